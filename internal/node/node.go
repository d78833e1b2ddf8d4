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
	"errors"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/fail"
	"keyroll/internal/files"
	"keyroll/internal/listen"
	"keyroll/internal/rootkey"
	"keyroll/internal/store"
	"keyroll/internal/vault"
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

	// Only tests set these, and a benchmark the first.
	ForTests *store.ForTests // for the database; nil in production
	MakeRSA  vault.RSAMaker  // vault.Config's
	trouble  func(w http.ResponseWriter, r *http.Request) bool
	now      func() time.Time

	folder folderState
}

// Node is a running keyroll.
type Node struct {
	*Packages
	DB     *store.DB
	Tenant access.Tenant
	Info   Info
	Name   string // of this start of the node, unique in its database

	base     *foundation
	identity *identity
	stores   *stores
	serving  *serving
	workers  *workers
	ready    atomic.Bool
	shutdown sync.Once
	closed   error
}

// Start opens the data folder and serves it until Close.
func Start(ctx context.Context, o Options) (*Node, error) {
	if err := o.defaults(); err != nil {
		return nil, err
	}
	base, err := openFoundation(ctx, o)
	if err != nil {
		return nil, err
	}
	n := &Node{DB: base.db, Name: base.name, base: base}
	if err := n.start(ctx); err != nil {
		_ = n.Close()
		return nil, err
	}
	return n, nil
}

func (n *Node) start(ctx context.Context) error {
	o, base := n.base.options, n.base
	listener, err := base.listen()
	if err != nil {
		return err
	}
	if err := base.runExclusive(ctx, func(ctx context.Context) error { return n.assemble(ctx, listener) }); err != nil {
		return err
	}
	if !o.Idle {
		n.workers.run(ctx)
		if err := n.Info.write(files.OS, o.Data); err != nil {
			return err
		}
		base.onClose(func() error { return files.OS.Remove(filepath.Join(o.Data, InfoFile)) })
	}
	n.ready.Store(true)
	return nil
}

// assemble builds the parts of the node, from the database up, and begins to serve.
func (n *Node) assemble(ctx context.Context, listener net.Listener) (err error) {
	base := n.base
	if n.identity, err = openIdentity(ctx, base, listener.Addr().(*net.TCPAddr)); err != nil {
		return err
	}
	n.Tenant, n.Info = n.identity.tenant, n.identity.info
	if n.stores, err = openStores(ctx, base, n.identity); err != nil {
		return err
	}
	n.serving = newServing(ctx, base, n.stores)
	evicted, err := join(ctx, base, n.Info.URL, n.stores.inFolder(base.options), n.serving.refuse)
	if err != nil {
		return err
	}
	if err := n.stores.bindBlobs(ctx, base.db); err != nil {
		return err
	}
	if n.Packages, err = connect(ctx, base, n.identity, n.stores); err != nil {
		return err
	}
	n.serving.begin(ctx, listener, n.handlers(), n.identity)
	if err := n.bootstrap(ctx); err != nil {
		return err
	}
	n.workers = newWorkers(base, n.identity, n.Packages, evicted)
	n.workers.maintain()
	return nil
}

// Done is closed when the node has stopped serving; Close returns why.
func (n *Node) Done() <-chan struct{} { return n.serving.ended }

// Close drains running requests, stops the workers, and closes everything.
func (n *Node) Close() error {
	n.shutdown.Do(func() {
		n.ready.Store(false)
		n.workers.stop() // so that other nodes take over its work at once
		errs := []error{n.serving.stop()}
		n.workers.wait()
		errs = append(errs, n.base.close(), n.serving.refusal())
		n.closed = errors.Join(errs...)
	})
	return n.closed
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
