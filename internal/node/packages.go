package node

import (
	"context"
	"net/http"
	"strings"

	"golang.org/x/time/rate"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/audit"
	"keyroll/internal/backup"
	"keyroll/internal/collect"
	"keyroll/internal/compact"
	"keyroll/internal/container"
	"keyroll/internal/content"
	"keyroll/internal/depth"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/items"
	"keyroll/internal/policy"
	"keyroll/internal/purge"
	"keyroll/internal/renew"
	"keyroll/internal/roll"
	"keyroll/internal/seal"
	"keyroll/internal/server"
	"keyroll/internal/service"
	"keyroll/internal/store"
	"keyroll/internal/upkeep"
	"keyroll/internal/vault"
	"keyroll/internal/verify"
)

// Packages are the connected packages of a node, from the policies up to the service.
type Packages struct {
	Policies   *policy.Policies
	Containers *container.Containers
	Items      *items.Store
	Contents   *content.Contents
	Backups    *backup.Backups
	Collector  *collect.Collector
	Compactor  *compact.Compactor
	Renewer    *renew.Renewer
	Roller     *roll.Roller
	Upkeep     *upkeep.Queue
	Purger     *purge.Purger
	Service    *service.Service
	vaults     *vault.Vaults
}

// connect connects the packages.
func connect(ctx context.Context, f *foundation, id *identity, s *stores) (*Packages, error) {
	o := f.options
	revisionKey, err := openRevisionKey(ctx, f.db, f.sealer)
	if err != nil {
		return nil, err
	}
	p := &Packages{Upkeep: upkeep.New(o.Logger), vaults: vault.Open(vault.Config{DB: f.db, Seal: f.sealer, Directory: id.directory, Logger: o.Logger, Now: o.now,
		Domain: o.VaultDomain, Authority: id.own(), KeyVaultLimits: o.KeyVaultLimits, MakeRSA: o.MakeRSA})}
	p.Policies = policy.New(policy.Config{DB: f.db, Roots: s.keys, Availability: s.availability, RevisionKey: revisionKey, OlderNodes: olderNodes("records_health"),
		StrictKeyChecks: o.StrictKeyChecks, OperatorVault: operatorVault(s.availabilityAt), Now: o.now, Logger: o.Logger})
	f.onClose(func() error { p.Policies.Close(); return nil })
	p.Containers = container.New(f.db, p.Policies, o.PageSlots, o.now)
	f.onClose(func() error { p.Containers.Close(); return nil })
	p.Items = items.New(items.Config{DB: f.db, Keys: p.Containers, Blobs: s.blobs, Slots: o.PageSlots, OlderNodes: olderNodes("keeps_totals"),
		ObjectlessNodes: olderNodes("reads_objects")})
	p.Contents = content.New(f.db, p.Items, p.Containers, o.now)
	p.Backups = backup.New(f.db, p.Items, p.Containers)
	p.Backups.Leases = f.leases
	p.Collector = collect.New(f.db, p.Items, o.now)
	p.Compactor = compact.New(f.db, p.Items, compact.DefaultLimits)
	p.Renewer = renew.New(f.db, p.Items, p.Containers, o.PageSlots)
	var limit *rate.Limiter
	if o.RollRate > 0 {
		limit = rate.NewLimiter(rate.Limit(o.RollRate), o.PageSlots)
	}
	p.Roller = roll.New(roll.Config{DB: f.db, Policies: p.Policies, Limit: limit, Deep: depth.New(f.db, p.Containers, p.Renewer), Leases: f.leases, Now: o.now, Logger: o.Logger,
		Settled: func(tenant, policy int64) { p.Service.Retire(tenant, policy) }})
	log := audit.New(p.Containers, o.now)
	p.Purger = purge.New(purge.Config{DB: f.db, Policies: p.Policies, Containers: p.Containers, Audit: log,
		KeysInFiles: !strings.HasPrefix(s.availabilityAt, "https://"), Leases: f.leases, Now: o.now, Logger: o.Logger})
	verifier := verify.New(f.db, p.Policies, p.Containers, p.Items, p.Contents)
	verifier.Vaults = p.vaults
	p.Service = service.New(service.Config{DB: f.db, Access: id.directory, Policies: p.Policies, Purger: p.Purger, Containers: p.Containers, Items: p.Items, Contents: p.Contents, Backups: p.Backups, Collector: p.Collector, Compactor: p.Compactor, Renewer: p.Renewer,
		Roller: p.Roller, Verifier: verifier, Audit: log, Upkeep: p.Upkeep, Keys: s.keys, PageSlots: o.PageSlots, Now: o.now, Logger: o.Logger, TenantGUID: id.tenantGUID, Leases: f.leases})
	return p, nil
}

// handlers returns the handlers of all requests.
func (n *Node) handlers() http.Handler {
	o, directory := n.base.options, n.identity.directory
	return dispatcher{vaults: n.vaults, vault: n.vaults.Handler(), management: n.vaults.Management(), tokens: directory.Handler(), trouble: o.trouble,
		service: server.New(server.Config{Service: n.Service, Auth: directory, Log: o.Logger, Ready: n.ready.Load, Health: n.DB.Ping})}
}

// openRevisionKey returns the key that authenticates revision rows.
func openRevisionKey(ctx context.Context, db *store.DB, sealer *seal.Seal) (key *envelope.Key, err error) {
	err = db.InTx(ctx, func(tx *store.Tx) error {
		raw, err := seal.Secret(ctx, tx, sealer, "revision key", func() ([]byte, error) { return envelope.NewKey().Bytes(), nil })
		if err != nil {
			return err
		}
		defer clear(raw)
		key, err = envelope.KeyFrom(raw)
		return err
	})
	return key, err
}

// bootstrap completes the first tenant, as service.CreateTenant completes others, and
// registers the vaults that tenants use already. The node serves: its own vaults are
// called.
func (n *Node) bootstrap(ctx context.Context) error {
	if err := n.Policies.Bootstrap(ctx, n.Tenant.ID, n.Tenant.GUID); err != nil {
		return err
	}
	if err := n.stores.bindAvailability(ctx, n.DB); err != nil {
		return err
	}
	if err := n.Containers.Bootstrap(ctx, n.Tenant.ID); err != nil {
		return err
	}
	err := n.DB.InTx(ctx, func(tx *store.Tx) error { return n.identity.directory.FinishTenant(ctx, tx, n.Tenant.ID) })
	if err != nil && !fail.Is(err, api.AlreadyExists) { // by an earlier start
		return err
	}
	return n.adoptVaults(ctx)
}

// adoptVaults registers the vaults outside keyroll that policies already use, each for
// the tenants that use it. It does so once: at the first start of a version that
// requires vaults to be registered.
func (n *Node) adoptVaults(ctx context.Context) error {
	var adopted []policy.ExternalVault
	err := n.DB.InTx(ctx, func(tx *store.Tx) error {
		adopted = nil
		was, err := firstSetting(ctx, tx, "outside-vaults-adopted", n.Name)
		if err != nil || was != n.Name {
			return err
		}
		if adopted, err = policy.ExternalVaults(ctx, tx); err != nil {
			return err
		}
		for _, v := range adopted {
			if err := n.identity.directory.SetExternal(ctx, tx, v.Tenant, access.ExternalVaults{Vaults: []string{v.URL}}, access.ExternalVaults{}); err != nil {
				return err
			}
		}
		return nil
	})
	for _, v := range adopted {
		n.base.options.Logger.WarnContext(ctx, "a vault outside keyroll that a tenant's policies use was registered for that tenant: check that the tenant owns it", "tenant", v.Tenant, "vault", v.URL)
	}
	return err
}
