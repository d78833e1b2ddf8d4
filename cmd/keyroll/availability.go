package main

import (
	"io"

	"keyroll/api"
	"keyroll/client"
)

type availabilityCommand struct {
	Roll availabilityRoll `cmd:"" help:"Give availability keys a new version, replace all wraps under older ones, and destroy those."`
}

type availabilityRoll struct {
	connection
	Policy string `name:"policy" placeholder:"POLICY" help:"Only this policy's availability key; all of the tenant's unless given."`
}

func (c *availabilityRoll) Run(e *env) error {
	return c.with(func(k *client.Client) error {
		var in api.RollAvailabilityKeysInput
		in.Body.Policy = c.Policy
		r, err := k.RollAvailabilityKeys(e, in)
		if err != nil {
			return err
		}
		return e.object(r, func(w io.Writer) {
			fields(w, "availability keys rolled", r.Keys, "wraps replaced", r.Wraps, "older versions destroyed", r.Destroyed)
		})
	})
}
