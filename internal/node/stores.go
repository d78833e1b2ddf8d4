package node

import (
	"context"
	"net"

	"keyroll/api"
	"keyroll/internal/availability"
	"keyroll/internal/blob"
	"keyroll/internal/fail"
	"keyroll/internal/listen"
	"keyroll/internal/rootkey"
	"keyroll/internal/store"
)

// stores are what a node keeps outside its database: customer keys in vaults, availability
// keys, and blobs.
type stores struct {
	inside         *listen.Memory // leads to the node itself, for its embedded vaults
	keys           *rootkey.Client
	availability   *availability.Store
	availabilityAt string // its URL, empty for files in the data folder
	blobs          blob.Store
	blobsAt        string // its URL
}

func openStores(ctx context.Context, f *foundation, id *identity) (*stores, error) {
	o := f.options
	s := &stores{inside: listen.NewMemory(), blobsAt: o.Blobs}
	s.keys = rootkey.New(rootkey.Config{
		VaultDomain: o.VaultDomain,
		Port:        id.port,
		Dial:        func(ctx context.Context, _, _ string) (net.Conn, error) { return s.inside.Dial(ctx) },
		RootCAs:     id.roots,
		Authority:   id.own(),
		Tenant: func(ctx context.Context, tenant int64) (string, error) {
			guid, err := id.tenantGUID(ctx, tenant)
			return guid.String(), err
		},
		Secret:   id.secret,
		MayUse:   id.directory.CheckExternal,
		Logger:   o.Logger,
		External: o.External,
	})
	f.onClose(func() error { s.keys.Close(); return nil })
	if err := s.openAvailability(ctx, f, id.port); err != nil {
		return nil, err
	}
	if s.blobsAt == "" {
		s.blobsAt = fileURL(o.Data, "blobs")
	}
	blobs, err := blob.Open(ctx, s.blobsAt)
	if err != nil {
		return nil, err
	}
	s.blobs = blobs
	f.onClose(blobs.Close)
	return s, nil
}

// inFolder returns which of the stores are in the data folder, where other nodes cannot
// access them.
func (s *stores) inFolder(o Options) []string {
	return ownStores(o.Data, map[string]string{"availability": s.availabilityAt, "blobs": o.Blobs})
}

// bindBlobs checks that a blob store is the one that the database was first used with,
// or a copy of it. With another one all content would be missing, and new content
// would be stored in the wrong place.
func (s *stores) bindBlobs(ctx context.Context, db *store.DB) error {
	identity, location := s.blobs.Identity(), s.blobsAt
	return db.InTx(ctx, func(tx *store.Tx) error {
		stored, err := firstSetting(ctx, tx, "blob-store", identity)
		if err != nil {
			return err
		}
		if stored != identity {
			return fail.New(api.Conflict, "the blobs of this database are in another blob store than %s", location).
				WithHint("name that blob store with --blobs or KEYROLL_BLOBS; if %s is a copy without its object %s, create that object with the content %s", location, blob.MarkName, stored)
		}
		return nil
	})
}
