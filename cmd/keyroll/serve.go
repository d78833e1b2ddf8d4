package main

import (
	"fmt"
	"log/slog"

	"keyroll/internal/node"
)

type serveCommand struct {
	Data        string `name:"data" type:"path" default:"${data}" env:"KEYROLL_DATA" placeholder:"DIR" help:"Data folder (${default})."`
	Listen      string `name:"listen" default:"127.0.0.1:8443" placeholder:"ADDRESS" help:"Address to listen on (${default})."`
	VaultDomain string `name:"vault-domain" placeholder:"DOMAIN" help:"Domain of the embedded vaults, begins with vault. (vault.localhost). It is written into the database at first start."`
	PageSlots   slots  `name:"page-slots" default:"${pageSlots}" placeholder:"N" help:"Keys in a new key page, 1 to 1024 (${default})."`
	RollRate    int    `name:"roll-rate" placeholder:"N" help:"Containers a second that rolls may bring over; no limit unless given."`
	StrictLevel bool   `name:"strict-recovery-level" help:"Take customer keys of recovery level Recoverable+ProtectedSubscription alone."`
	StrictKeys  bool   `name:"strict-key-checks" help:"Refuse customer keys that would otherwise get a warning."`
}

func (c *serveCommand) Run(e *env) error {
	logger := slog.New(slog.NewTextHandler(e.err, nil))
	n, err := node.Start(e, node.Options{Data: c.Data, Listen: c.Listen, VaultDomain: c.VaultDomain,
		PageSlots: int(c.PageSlots), RollRate: c.RollRate, Logger: logger,
		StrictRecoveryLevel: c.StrictLevel, StrictKeyChecks: c.StrictKeys})
	if err != nil && e.Err() != nil {
		fmt.Fprintln(e.err, "keyroll was stopped before it was ready")
		return nil
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(e.err, "keyroll serves %s with data folder %s\n", n.Info.URL, c.Data)
	fmt.Fprintln(e.err, "Who copies all of this folder has all that is in it: the seal and the availability keys stand beside the database.")
	select {
	case <-e.Done():
		fmt.Fprintln(e.err, "keyroll drains and stops")
	case <-n.Done():
	}
	return n.Close()
}

// slots is a number of keys in a key page.
type slots int

// Validate is called by kong when flags have been read.
func (s slots) Validate() error {
	if s < 1 || s > 1024 {
		return fmt.Errorf("%d is not within 1 to 1024", s)
	}
	return nil
}
