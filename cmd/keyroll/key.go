package main

import (
	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/fail"
	"keyroll/internal/terminal"
)

type keyCommand struct {
	Usage keyUsage `cmd:"" help:"Show what each key version still protects, and whether it is safe to retire."`
}

type keyUsage struct {
	connection
	Vault   string `name:"vault" placeholder:"VAULT" help:"Show only keys of this vault."`
	Key     string `name:"key" placeholder:"KEY" help:"Show only this key."`
	Version string `name:"version" placeholder:"VERSION" help:"Show only this version."`
}

func (c *keyUsage) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		l, err := k.ListKeyUsage(e, api.KeyUsageInput{Vault: c.Vault, Key: c.Key, Version: c.Version})
		if err != nil {
			return err
		}
		if len(l.Items) == 0 && c.Vault+c.Key+c.Version != "" {
			// An empty table would seem to say that nothing needs the key version.
			return fail.New(api.NotFound, "no policy uses or has ever used such a key version").
				WithHint("keyroll key usage without a filter shows every key version that policies use or have used")
		}
		return list(e, l.Items, "vault key version policy active inactive disconnected disabled sites workloads backups health verdict since",
			func(u api.KeyUsage) []any {
				return []any{u.Vault, u.Key, u.Version, u.Policy, u.Active, u.Inactive, u.Disconnected, u.Disabled,
					u.Sites, u.Workloads, u.Backups, u.Health.State, u.Verdict, terminal.Time(u.Since)}
			})
	})
}
