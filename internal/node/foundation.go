package node

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"path/filepath"
	"slices"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/files"
	"keyroll/internal/lease"
	"keyroll/internal/seal"
	"keyroll/internal/store"
)

// foundation is what a node is built on: a locked data folder, and the open database that
// belongs to it.
type foundation struct {
	options Options
	name    string // of this start of the node, unique in its database
	db      *store.DB
	sealer  *seal.Seal
	leaseDB *store.DB     // separate connections for leases; nil with SQLite, which only one node uses
	leases  *lease.Leases // nil with SQLite
	serves  bool          // the node has begun to serve
	bound   bool          // the database is recorded
	closers []func() error
}

// openFoundation locks the data folder and opens its database. A first start that fails
// leaves nothing behind.
func openFoundation(ctx context.Context, o Options) (*foundation, error) {
	f := &foundation{options: o, name: newName()}
	if err := f.open(ctx); err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

func (f *foundation) open(ctx context.Context) error {
	o := &f.options
	unlock, err := lockFolder(files.OS, o.Data)
	if err != nil {
		return err
	}
	f.onClose(unlock)
	f.onClose(func() error {
		// A database outside the folder may need the seal that this start has made.
		if f.serves || !o.folder.empty || f.bound && o.Database != ownDatabase(o.Data) {
			return nil
		}
		return o.folder.restore(o.Data)
	})
	if !o.Idle { // a killed process may have left its InfoFile
		if err := files.OS.Remove(filepath.Join(o.Data, InfoFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fail.New(api.InvalidArgument, "the data folder cannot be used: %w", err)
		}
	}
	if err := checkDatabase(ctx, *o); err != nil {
		return err
	}
	if f.sealer, err = seal.Open(ctx, o.Seal); err != nil {
		return err
	}
	if f.db, err = store.Open(ctx, o.Database); err != nil {
		return err
	}
	f.onClose(f.db.Close)
	if err := f.db.FitConnections(ctx, o.Logger); err != nil {
		return err
	}
	if o.ForTests != nil {
		f.db.SetForTests(*o.ForTests)
	}
	if err := recordDatabase(*o, f.db); err != nil {
		return err
	}
	if f.db.Session() != "" {
		f.leaseDB = f.db.Aside()
		f.onClose(f.leaseDB.Close)
		f.leases = lease.New(f.leaseDB, f.name, lease.Term)
	}
	f.bound = true
	o.VaultDomain, err = bindSeal(ctx, f.db, f.sealer, o.VaultDomain)
	return err
}

// listen opens the node's listener.
func (f *foundation) listen() (net.Listener, error) {
	listener, err := net.Listen("tcp", f.options.Listen)
	if err != nil {
		return nil, fail.New(api.InvalidArgument, "cannot listen on %s: %w", f.options.Listen, err).
			WithHint("name another address with --listen")
	}
	f.onClose(func() error {
		if err := listener.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	return listener, nil
}

// onClose has a function called when the node is closed, before those of earlier calls.
func (f *foundation) onClose(c func() error) { f.closers = append(f.closers, c) }

func (f *foundation) close() error {
	var errs []error
	for _, c := range slices.Backward(f.closers) {
		errs = append(errs, c())
	}
	f.closers = nil
	return errors.Join(errs...)
}
