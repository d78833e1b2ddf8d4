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

func (*availabilityRoll) Help() string {
	return help("An operator's command; nobody sees a key. No vault of a customer is asked, no container is touched. keyroll does it by itself too, "+
		"when a key has reached the age of serve --availability-roll-every. A tenant rolls by making a new policy, which has a key of its own. "+
		"A backup of the database from before a roll opens what stood under the service-managed policy no more.",
		"keyroll availability roll",
		"keyroll availability roll --policy USA_mailboxes -o json")
}
