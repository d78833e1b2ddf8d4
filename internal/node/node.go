// Package node is one running keyroll: it opens a data folder, connects the packages,
// and serves them on one listener.
//
// serve, demo, bench, an offline verify and the tests all start the same node.
// Requests to a host under the vault domain go to the embedded vaults; all others go
// to the service, which accesses those vaults over HTTPS as any client does, but
// through a listener in memory. Start reading at Start.
package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/time/rate"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/admit"
	"keyroll/internal/audit"
	"keyroll/internal/blob"
	"keyroll/internal/ca"
	"keyroll/internal/container"
	"keyroll/internal/content"
	"keyroll/internal/depth"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/files"
	"keyroll/internal/lease"
	"keyroll/internal/listen"
	"keyroll/internal/policy"
	"keyroll/internal/purge"
	"keyroll/internal/roll"
	"keyroll/internal/rootkey"
	"keyroll/internal/seal"
	"keyroll/internal/server"
	"keyroll/internal/service"
	"keyroll/internal/store"
	"keyroll/internal/upkeep"
	"keyroll/internal/vault"
	"keyroll/internal/verify"
)

// DefaultPageSlots is the size of new key pages; docs/performance.md shows the
// curve that it was chosen from.
const DefaultPageSlots = 512

// Options configures a node. The zero value of a field is its default.
type Options struct {
	Data     string // data folder, absolute
	Listen   string // host:port; port 0 takes a free one
	Database string // URL; default: a SQLite file in the data folder
	Blobs    string // URL of the blob store; default: a folder in the data folder
	Seal     string // URL of the seal; default: a file in the data folder
	// VaultDomain is stored in the database at the first start; a later start with
	// another one is refused.
	VaultDomain string
	PageSlots   int // 1 to 1024
	RollRate    int // containers per second, 0 for no limit
	// Availability is the URL of the store of availability keys. Default: that of the
	// last start, and at the first start a folder in the data folder.
	Availability string
	// AvailabilityRollEvery is the age at which an availability key is rolled.
	AvailabilityRollEvery time.Duration
	StrictKeyChecks       bool // policy.Config
	// Limits are the limits on connections of callers, and KeyVaultLimits applies the
	// documented limits of Azure Key Vault to them; neither applies to the node's own
	// calls.
	Limits         listen.Limits
	KeyVaultLimits bool
	// NoCollect turns off the daily collection of blobs, for use while the database was
	// restored from an older copy.
	NoCollect bool
	// External, unless nil, replaces how vaults outside this keyroll are accessed.
	External *rootkey.External
	// Idle starts the node without rolls and upkeep, and without InfoFile, by which
	// clients would find it.
	Idle   bool
	Logger *slog.Logger

	// Only tests set these.
	ForTests *store.ForTests // for the database; nil in production
	MakeRSA  vault.RSAMaker  // vault.Config's
	trouble  func(w http.ResponseWriter, r *http.Request) bool
	now      func() time.Time

	folder folderState
}

// Node is a running keyroll.
type Node struct {
	DB         *store.DB
	Policies   *policy.Policies
	Containers *container.Containers
	Contents   *content.Contents
	Roller     *roll.Roller
	Upkeep     *upkeep.Queue
	Purger     *purge.Purger
	Tenant     access.Tenant
	Info       Info
	Name       string // of this start of the node, unique in its database
	// Availability is the URL of the store of availability keys, empty for the
	// one in the data folder.
	Availability string

	leaseDB  *store.DB     // separate connections for leases; nil with SQLite, which only one node uses
	leases   *lease.Leases // nil with SQLite
	evicted  chan struct{} // signals that this node has evicted another one
	own      []string      // the stores that are in this node's data folder
	fence    int64         // of its lease
	refused  error         // why it stopped by itself
	ageRoll  *policy.AvailabilityRoller
	rewrap   *policy.WrapReplacer
	maintain func()                          // queues upkeep
	collect  func(ctx context.Context) error // collects blobs, if the last collection was a day ago
	logger   *slog.Logger
	access   *access.Directory
	keys     *rootkey.Client
	drain    context.CancelFunc
	serving  bool
	ready    atomic.Bool
	stop     context.CancelFunc
	workers  sync.WaitGroup
	closers  []func() error
	served   chan error
	ended    chan struct{}
	shutdown sync.Once
	closed   error
}

// drainTimeout bounds how long a stop waits for running requests.
const drainTimeout = 20 * time.Second

// Start opens the data folder and serves it until Close.
func Start(ctx context.Context, o Options) (n *Node, err error) {
	if err := o.defaults(); err != nil {
		return nil, err
	}
	n = &Node{Name: newName(), logger: o.Logger, evicted: make(chan struct{}, 1), served: make(chan error, 1), ended: make(chan struct{})}
	started, bound := n, false // n is nil where an error is returned
	defer func() {
		if err != nil {
			_ = started.Close()
		}
	}()
	unlock, err := lockFolder(files.OS, o.Data)
	if err != nil {
		return nil, err
	}
	n.closers = append(n.closers, unlock)
	n.closers = append(n.closers, func() error {
		// A database outside the folder may need the seal that this start has made.
		if started.serving || !o.folder.empty || bound && o.Database != ownDatabase(o.Data) {
			return nil
		}
		return o.folder.restore(o.Data)
	})
	if !o.Idle { // a killed process may have left its InfoFile
		if err := files.OS.Remove(filepath.Join(o.Data, InfoFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fail.New(api.InvalidArgument, "the data folder cannot be used: %w", err)
		}
	}
	if err := checkDatabase(ctx, o); err != nil {
		return nil, err
	}
	sealer, err := seal.Open(ctx, o.Seal)
	if err != nil {
		return nil, err
	}
	if n.DB, err = store.Open(ctx, o.Database); err != nil {
		return nil, err
	}
	n.closers = append(n.closers, n.DB.Close)
	if err := n.DB.FitConnections(ctx, o.Logger); err != nil {
		return nil, err
	}
	if o.ForTests != nil {
		n.DB.SetForTests(*o.ForTests)
	}
	if err := n.recordDatabase(o); err != nil {
		return nil, err
	}
	if n.DB.Session() != "" {
		n.leaseDB = n.DB.Aside()
		n.closers = append(n.closers, n.leaseDB.Close)
		n.leases = lease.New(n.leaseDB, n.Name, lease.Term)
	}
	bound = true
	if o.VaultDomain, err = n.bindSeal(ctx, sealer, o.VaultDomain); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return nil, fail.New(api.InvalidArgument, "cannot listen on %s: %w", o.Listen, err).
			WithHint("name another address with --listen")
	}
	n.closers = append(n.closers, func() error {
		if err := listener.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	if err := n.runExclusive(ctx, func(ctx context.Context) error { return n.wire(ctx, o, sealer, listener) }); err != nil {
		return nil, err
	}
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	n.stop = stop
	if !o.Idle {
		n.workers.Go(func() { n.Roller.Run(work) })
		n.workers.Go(func() { n.Upkeep.Run(work) })
		n.workers.Go(func() { n.ageRoll.Run(work) })
		n.workers.Go(func() { n.rewrap.Run(work) })
		n.workers.Go(func() { n.maintainDaily(work) })
		n.workers.Go(func() { n.Purger.Run(work) })
		if !o.NoCollect {
			n.workers.Go(func() { n.collectDaily(work) })
		}
	}
	if !o.Idle {
		if err := n.Info.write(files.OS, o.Data); err != nil {
			return nil, err
		}
		n.closers = append(n.closers, func() error { return files.OS.Remove(filepath.Join(o.Data, InfoFile)) })
	}
	n.ready.Store(true)
	return n, nil
}

func (o *Options) defaults() error {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.now == nil {
		o.now = time.Now
	}
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if o.PageSlots == 0 {
		o.PageSlots = DefaultPageSlots
	}
	if o.AvailabilityRollEvery == 0 {
		o.AvailabilityRollEvery = DefaultAvailabilityRollEvery
	}
	if o.AvailabilityRollEvery < 0 {
		return fail.New(api.InvalidArgument, "availability keys cannot be rolled every %v", o.AvailabilityRollEvery)
	}
	if o.VaultDomain != "" {
		if err := checkDomain(o.VaultDomain); err != nil {
			return err
		}
	}
	if o.PageSlots < 1 || o.PageSlots > 1024 {
		return fail.New(api.InvalidArgument, "page slots %d must be 1 to 1024", o.PageSlots)
	}
	if o.RollRate < 0 {
		return fail.New(api.InvalidArgument, "roll rate %d must not be below 0", o.RollRate)
	}
	if err := listen.CheckDescriptors(o.Limits); err != nil {
		return err
	}
	abs, err := filepath.Abs(o.Data)
	if err != nil {
		return err
	}
	o.Data = abs
	if o.folder, err = makeFolder(files.OS, o.Data); err != nil {
		return err
	}
	if o.folder.shared {
		o.Logger.Warn("the data folder is writable by its group: chmod 700", "folder", o.Data)
	}
	if o.Database == "" {
		o.Database = ownDatabase(o.Data)
	}
	if o.Seal == "" {
		o.Seal = fileURL(o.Data, "seal")
	}
	return nil
}

// wire creates the packages' objects from the store up and starts to serve.
func (n *Node) wire(ctx context.Context, o Options, sealer *seal.Seal, listener net.Listener) error {
	now := o.now
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		return err
	}
	inside := listen.NewMemory()
	n.Info = newInfo(o.Data, o.VaultDomain, listener.Addr().(*net.TCPAddr))
	directory, err := access.Open(ctx, n.DB, sealer, o.VaultDomain, now, n.logger)
	if err != nil {
		return err
	}
	n.access = directory
	if n.Tenant, err = n.firstTenant(ctx, directory); err != nil {
		return err
	}
	n.Info.TenantID = n.Tenant.GUID.String()
	authority, err := ca.Open(ctx, n.DB, sealer)
	if err != nil {
		return err
	}
	tlsConfig, err := serverTLS(authority, o.VaultDomain)
	if err != nil {
		return err
	}
	if err := n.writeSecrets(ctx, directory, authority.PEM()); err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority.PEM())
	own := "https://" + net.JoinHostPort("127.0.0.1", port)
	vaults := vault.Open(n.DB, sealer, directory, n.logger, now, vault.Config{Domain: o.VaultDomain, Authority: own, KeyVaultLimits: o.KeyVaultLimits, MakeRSA: o.MakeRSA})
	keys := rootkey.New(rootkey.Config{
		VaultDomain: o.VaultDomain,
		Port:        port,
		Dial:        func(ctx context.Context, _, _ string) (net.Conn, error) { return inside.Dial(ctx) },
		RootCAs:     roots,
		Authority:   own,
		Tenant: func(ctx context.Context, tenant int64) (string, error) {
			guid, err := n.tenantGUID(ctx, directory, tenant)
			return guid.String(), err
		},
		Secret: func(ctx context.Context, tenant int64, id rootkey.Identity) (string, string, error) {
			principal := identities[id]
			secret, err := directory.ClientSecret(ctx, tenant, principal)
			return principal.String(), secret, err
		},
		MayUse:   directory.CheckExternal,
		Logger:   n.logger,
		External: o.External,
	})
	n.keys = keys
	n.closers = append(n.closers, func() error { keys.Close(); return nil })
	availabilityKeys, err := n.openAvailability(ctx, o, port)
	if err != nil {
		return err
	}
	location := o.Blobs
	if location == "" {
		location = fileURL(o.Data, "blobs")
	}
	blobs, err := blob.Open(ctx, location)
	if err != nil {
		return err
	}
	n.closers = append(n.closers, blobs.Close)
	serving, drain := context.WithCancel(context.WithoutCancel(ctx))
	n.drain = drain
	if err := n.join(ctx, o); err != nil {
		return err
	}
	if err := n.bindBlobs(ctx, blobs.Identity(), location); err != nil {
		return err
	}
	revisionKey, err := n.revisionKey(ctx, sealer)
	if err != nil {
		return err
	}
	n.Policies = policy.New(policy.Config{DB: n.DB, Roots: keys, Availability: availabilityKeys,
		RevisionKey: revisionKey, OlderNodes: olderNodes("records_health"), StrictKeyChecks: o.StrictKeyChecks, OperatorVault: operatorVault(n.Availability), Now: now, Logger: n.logger})
	n.closers = append(n.closers, func() error { n.Policies.Close(); return nil })
	n.rewrap = &policy.WrapReplacer{Policies: n.Policies, Leases: n.leases}
	n.ageRoll = n.newAvailabilityRoller(o.AvailabilityRollEvery, directory)
	n.Containers = container.New(n.DB, n.Policies, o.PageSlots, now)
	n.closers = append(n.closers, func() error { n.Containers.Close(); return nil })
	n.Contents = content.New(n.DB, n.Containers, blobs, o.PageSlots, now)
	n.Contents.Leases = n.leases
	n.Contents.OlderNodes = olderNodes("keeps_totals")
	n.Upkeep = upkeep.New(n.logger)
	var limit *rate.Limiter
	if o.RollRate > 0 {
		limit = rate.NewLimiter(rate.Limit(o.RollRate), o.PageSlots)
	}
	var svc *service.Service
	n.Roller = roll.New(roll.Config{DB: n.DB, Policies: n.Policies, Limit: limit, Deep: depth.New(n.DB, n.Containers, n.Contents), Leases: n.leases, Now: now, Logger: n.logger,
		Settled: func(tenant, policy int64) { svc.Retire(tenant, policy) }})
	log := audit.New(n.Containers, now)
	n.Purger = purge.New(purge.Config{DB: n.DB, Policies: n.Policies, Containers: n.Containers, Audit: log, KeysInFiles: !strings.HasPrefix(n.Availability, "https://"), Leases: n.leases, Now: now, Logger: n.logger})
	verifier := verify.New(n.DB, n.Policies, n.Containers, n.Contents)
	verifier.Vaults = vaults
	svc = service.New(service.Config{DB: n.DB, Access: directory, Policies: n.Policies, Purger: n.Purger, Containers: n.Containers, Contents: n.Contents,
		Roller: n.Roller, Verifier: verifier, Audit: log,
		Upkeep: n.Upkeep, Keys: keys, PageSlots: o.PageSlots, Now: now, Logger: n.logger,
		TenantGUID: func(ctx context.Context, tenant int64) (uuid.UUID, error) {
			return n.tenantGUID(ctx, directory, tenant)
		}})
	handler := server.New(server.Config{Service: svc, Auth: directory, Log: n.logger, Ready: n.ready.Load, Health: n.DB.Ping})

	handlers := dispatcher{vaults: vaults, vault: vaults.Handler(), management: vaults.Management(), tokens: directory.Handler(), service: handler, trouble: o.trouble}
	n.serving = true
	go func() {
		n.served <- listen.Serve(serving, listener, handlers, listen.Config{TLS: tlsConfig, Log: n.logger, Grace: drainTimeout, Limits: &o.Limits})
		close(n.ended)
	}()
	n.serveItself(ctx, inside, handlers, tlsConfig)

	if err := n.bootstrap(ctx, directory); err != nil {
		return err
	}
	if err := n.adoptVaults(ctx, directory); err != nil {
		return err
	}
	n.maintain, n.collect = svc.QueueMaintenance, svc.CollectIfDue
	n.maintain()
	return nil
}

// serveItself serves the node's own calls until everything else has stopped.
func (n *Node) serveItself(ctx context.Context, inside *listen.Memory, handler http.Handler, config *tls.Config) {
	own := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(w, r.WithContext(admit.Own(r.Context())))
	})
	serving, end := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() {
		ended <- listen.Serve(serving, inside, own, listen.Config{TLS: config, Log: n.logger, Grace: drainTimeout})
	}()
	n.closers = append(n.closers, func() error {
		n.keys.Close() // end would wait for its idle connections
		end()
		return <-ended
	})
}

// maintainDaily queues upkeep once a day, and also when a node was evicted that may not
// have finished its own, until ctx is done.
func (n *Node) maintainDaily(ctx context.Context) {
	const day = 24 * time.Hour
	tick := time.NewTicker(day)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.evicted:
		case <-tick.C:
			if err := n.leases.Forget(ctx, day); err != nil && ctx.Err() == nil {
				n.logger.WarnContext(ctx, "leases that ended long ago could not be deleted; it will be retried", "error", err)
			}
		}
		n.maintain()
	}
}

// Done is closed when the node has stopped serving; Close returns why.
func (n *Node) Done() <-chan struct{} { return n.ended }

// Close drains running requests, stops the workers, and closes everything.
func (n *Node) Close() error {
	n.shutdown.Do(func() {
		var errs []error
		n.ready.Store(false)
		if n.stop != nil { // so that other nodes take over its work at once
			n.stop()
		}
		if n.serving {
			n.drain()
			errs = append(errs, <-n.served)
		}
		n.workers.Wait()
		for i := len(n.closers) - 1; i >= 0; i-- {
			errs = append(errs, n.closers[i]())
		}
		n.closed = errors.Join(append(errs, n.refused)...)
	})
	return n.closed
}

// revisionKey returns the key that authenticates revision rows.
func (n *Node) revisionKey(ctx context.Context, sealer *seal.Seal) (key *envelope.Key, err error) {
	err = n.DB.InTx(ctx, func(tx *store.Tx) error {
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
