package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os/signal"
	"syscall"
	"time"

	"keyroll/internal/benchcommand"
	"keyroll/internal/listen"
	"keyroll/internal/node"
)

type serveCommand struct {
	Data string `name:"data" type:"path" default:"${data}" env:"KEYROLL_DATA" placeholder:"DIR" help:"Data folder (default: ${default})."`
	stores
	Listen                string             `name:"listen" default:"127.0.0.1:8443" env:"KEYROLL_LISTEN" placeholder:"ADDRESS" help:"Address to listen on (default: ${default})."`
	VaultDomain           string             `name:"vault-domain" placeholder:"DOMAIN" help:"Domain of the embedded vaults; it begins with vault. (default: vault.localhost). It is fixed at the first start."`
	PageSlots             benchcommand.Slots `name:"page-slots" default:"${pageSlots}" hidden:"" placeholder:"N" help:"Keys in a new key page, 1 to 1024 (default: ${default})."`
	AvailabilityRollEvery time.Duration      `name:"availability-roll-every" default:"${availabilityRollEvery}" placeholder:"DURATION" help:"Age at which an availability key is given a new version automatically (default: ${default})."`
	RollRate              int                `name:"roll-rate" placeholder:"N" help:"Containers per second that the rolls of this node may move together (default: no limit)."`
	NoCollect             bool               `name:"no-collect" help:"Turn off the daily deletion of blobs that the database does not reference. Use it while a database that was restored from an older copy is in use."`
	StrictKeys            bool               `name:"strict-key-checks" help:"Refuse customer keys that would otherwise get a warning, and those without the recovery level Recoverable+ProtectedSubscription."`
	MaxConnections        int                `name:"max-connections" placeholder:"N" help:"Connections at a time (default: as many as the limit on open files allows (ulimit -n), at most 4096)."`
	MaxPerSource          int                `name:"max-connections-per-source" placeholder:"N" help:"Connections at a time from one address, or from one /64 network of IPv6 (default: half of --max-connections)."`
	TrustedProxies        []prefix           `name:"trusted-proxy" placeholder:"ADDRESS" help:"Address or network of a proxy or load balancer, such as 10.0.0.0/24; may be repeated. Of the two limits only --max-connections applies to its connections; --max-connections-per-source applies to the addresses in its X-Forwarded-For, which is trusted."`
	KeyVaultLimits        bool               `name:"key-vault-limits" help:"Apply the limits of Azure Key Vault to callers of the embedded vaults: per vault and ten seconds 4,000 requests, 2,000 operations with HSM keys and 10 new keys. Further requests are refused with 429."`
}

// limits returns the limits on connections that the flags set.
func (c *serveCommand) limits() listen.Limits {
	l := listen.Limits{Connections: c.MaxConnections, PerSource: c.MaxPerSource}
	for _, p := range c.TrustedProxies {
		l.Proxies = append(l.Proxies, netip.Prefix(p))
	}
	return l
}

// prefix is a network, or an address, in a flag.
type prefix netip.Prefix

// UnmarshalText is called by kong.
func (p *prefix) UnmarshalText(text []byte) error {
	network, err := netip.ParsePrefix(string(text))
	if err != nil {
		address, err := netip.ParseAddr(string(text))
		if err != nil {
			return fmt.Errorf("%q is not an address, and not a network such as 10.0.0.0/24", text)
		}
		network = netip.PrefixFrom(address, address.BitLen())
	}
	*p = prefix(network.Masked())
	return nil
}

func (c *serveCommand) Run(e *env) error {
	signal.Ignore(syscall.SIGHUP) // the server goes on when the terminal or the session that started it ends
	logger := slog.New(slog.NewTextHandler(e.ErrOut, nil))
	n, err := node.Start(e, node.Options{Data: c.Data, Listen: c.Listen, Database: c.Database, Blobs: c.Blobs, Seal: c.Seal, Availability: c.Availability,
		VaultDomain: c.VaultDomain, PageSlots: int(c.PageSlots), RollRate: c.RollRate, AvailabilityRollEvery: c.AvailabilityRollEvery, Logger: logger,
		StrictKeyChecks: c.StrictKeys, Limits: c.limits(), KeyVaultLimits: c.KeyVaultLimits, NoCollect: c.NoCollect})
	if err != nil && e.Err() != nil {
		fmt.Fprintln(e.ErrOut, "keyroll was stopped before it was ready")
		return nil
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(e.ErrOut, "keyroll serves %s with data folder %s and database %s\n", n.Info.URL, c.Data, n.DB.Shown())
	fmt.Fprintln(e.ErrOut, n.CopyWarning())
	select {
	case <-e.Done():
		fmt.Fprintln(e.ErrOut, "keyroll drains and stops")
	case <-n.Done():
	}
	return n.Close()
}

// Validate is called by kong when flags have been read.
func (c *serveCommand) Validate() error {
	if c.AvailabilityRollEvery <= 0 {
		return fmt.Errorf("--availability-roll-every: %v is not a valid age; it must be above 0", c.AvailabilityRollEvery)
	}
	if c.MaxConnections < 0 || c.MaxPerSource < 0 {
		return errors.New("--max-connections and --max-connections-per-source cannot be below 0")
	}
	return nil
}
