package main

import (
	"fmt"
	"log/slog"
	"time"

	"keyroll/internal/node"
)

type serveCommand struct {
	Data string `name:"data" type:"path" default:"${data}" env:"KEYROLL_DATA" placeholder:"DIR" help:"Data folder (${default})."`
	stores
	Listen                string        `name:"listen" default:"127.0.0.1:8443" placeholder:"ADDRESS" help:"Address to listen on (${default})."`
	VaultDomain           string        `name:"vault-domain" placeholder:"DOMAIN" help:"Domain of the embedded vaults, begins with vault. (vault.localhost). It is written into the database at first start."`
	PageSlots             slots         `name:"page-slots" default:"${pageSlots}" placeholder:"N" help:"Keys in a new key page, 1 to 1024 (${default})."`
	AvailabilityRollEvery time.Duration `name:"availability-roll-every" default:"${availabilityRollEvery}" placeholder:"DURATION" help:"Age at which an availability key gets a new version by itself (${default})."`
	RollRate              int           `name:"roll-rate" placeholder:"N" help:"Containers a second that rolls may bring over; no limit unless given."`
	StrictLevel           bool          `name:"strict-recovery-level" help:"Take customer keys of recovery level Recoverable+ProtectedSubscription alone."`
	StrictKeys            bool          `name:"strict-key-checks" help:"Refuse customer keys that would otherwise get a warning."`
}

func (c *serveCommand) Run(e *env) error {
	logger := slog.New(slog.NewTextHandler(e.err, nil))
	n, err := node.Start(e, node.Options{Data: c.Data, Listen: c.Listen, Database: c.Database, Blobs: c.Blobs, Seal: c.Seal, Availability: c.Availability,
		VaultDomain: c.VaultDomain, PageSlots: int(c.PageSlots), RollRate: c.RollRate, AvailabilityRollEvery: c.AvailabilityRollEvery, Logger: logger,
		StrictRecoveryLevel: c.StrictLevel, StrictKeyChecks: c.StrictKeys})
	if err != nil && e.Err() != nil {
		fmt.Fprintln(e.err, "keyroll was stopped before it was ready")
		return nil
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(e.err, "keyroll serves %s with data folder %s and database %s\n", n.Info.URL, c.Data, n.DB.Shown())
	fmt.Fprintln(e.err, n.CopyWarning())
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

// Validate is called by kong when flags have been read.
func (c *serveCommand) Validate() error {
	if c.AvailabilityRollEvery <= 0 {
		return fmt.Errorf("--availability-roll-every: %v is no age", c.AvailabilityRollEvery)
	}
	return nil
}
