package main

import (
	"io"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/terminal"
)

type availabilityCommand struct {
	Roll availabilityRoll `cmd:"" help:"Give availability keys a new version, replace all wraps by older versions, and destroy the older versions."`
}

type availabilityRoll struct {
	connection
	Policy string `name:"policy" placeholder:"POLICY" help:"Roll only this policy's availability key (default: all of the tenant's)."`
}

func (c *availabilityRoll) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		var in api.RollAvailabilityKeysInput
		in.Body.Policy = c.Policy
		r, err := k.RollAvailabilityKeys(e, in)
		if err != nil {
			return err
		}
		return e.Object(r, func(w io.Writer) {
			terminal.Fields(w, "availability keys rolled", r.Keys, "wraps replaced", r.Wraps, "older versions destroyed", r.Destroyed)
		})
	})
}

func (*availabilityRoll) Help() string {
	return terminal.Help("Only an operator may run this command; it shows no key. It calls no vault of a customer and changes no container. keyroll also does it automatically, "+
		"when a key has reached the age of serve --availability-roll-every. A tenant can roll its own by creating a new policy, which has a new availability key. "+
		"A copy of the database from before a roll can no longer decrypt content that was under the service-managed policy.",
		"keyroll availability roll",
		"keyroll availability roll --policy USA_mailboxes -o json")
}
