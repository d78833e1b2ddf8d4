// Package service is the single entry point to mailboxes, sites and policies, with
// one method for each operation of the api package.
//
// Each method checks the principal, acts only within that principal's tenant, and
// writes an audit entry: a change in its own transaction, a read before its result is
// returned, a refusal with the code of the failure. Start reading at do.
package service

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/audit"
	"keyroll/internal/backup"
	"keyroll/internal/collect"
	"keyroll/internal/compact"
	"keyroll/internal/container"
	"keyroll/internal/content"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/items"
	"keyroll/internal/policy"
	"keyroll/internal/purge"
	"keyroll/internal/renew"
	"keyroll/internal/roll"
	"keyroll/internal/store"
	"keyroll/internal/upkeep"
	"keyroll/internal/verify"
)

// Config has the packages that the service uses.
type Config struct {
	DB         *store.DB
	Access     *access.Directory
	Policies   *policy.Policies
	Purger     *purge.Purger
	Containers *container.Containers
	Items      *items.Store
	Contents   *content.Contents
	Backups    *backup.Backups
	Collector  *collect.Collector
	Compactor  *compact.Compactor
	Renewer    *renew.Renewer
	Roller     *roll.Roller
	Verifier   *verify.Verifier
	Audit      *audit.Log
	Upkeep     *upkeep.Queue
	Keys       KeyNames
	// TenantGUID returns the GUID of a tenant.
	TenantGUID func(ctx context.Context, tenant int64) (uuid.UUID, error)
	// PageSlots is the size of new key pages.
	PageSlots int
	Now       func() time.Time
	Logger    *slog.Logger
}

// KeyNames parses and formats the URIs of customer keys.
type KeyNames interface {
	ParseURI(uri string) (envelope.KeyVersion, error)
	Reference(vault, key, version string) (envelope.KeyVersion, error)
	URI(kv envelope.KeyVersion) string
}

// Service implements the operations of the api package.
type Service struct {
	db         *store.DB
	access     *access.Directory
	policies   *policy.Policies
	purger     *purge.Purger
	containers *container.Containers
	items      *items.Store
	contents   *content.Contents
	backups    *backup.Backups
	collector  *collect.Collector
	compactor  *compact.Compactor
	renewer    *renew.Renewer
	roller     *roll.Roller
	verifier   *verify.Verifier
	audit      *audit.Log
	upkeep     *upkeep.Queue
	keyNames   KeyNames
	tenantGUID func(ctx context.Context, tenant int64) (uuid.UUID, error)
	pageSlots  int
	now        func() time.Time
	logger     *slog.Logger
}

// New returns a service.
func New(c Config) *Service {
	return &Service{
		db: c.DB, access: c.Access, policies: c.Policies, purger: c.Purger, containers: c.Containers, items: c.Items, contents: c.Contents,
		backups: c.Backups, collector: c.Collector, compactor: c.Compactor, renewer: c.Renewer, roller: c.Roller, verifier: c.Verifier, audit: c.Audit, upkeep: c.Upkeep,
		keyNames: c.Keys, tenantGUID: c.TenantGUID, pageSlots: c.PageSlots, now: c.Now, logger: c.Logger,
	}
}

// call is one running operation.
type call struct {
	*Service
	principal access.Principal
	tenant    int64
	target    string
	entry     int64 // id of its one audit entry
	dryRun    bool  // commit changes nothing
}

// change runs f in a transaction, together with the audit entry of the operation, whose
// detail f returns. A dry run is rolled back and has an entry that says so.
func (c *call) change(ctx context.Context, f func(tx *store.Tx) (detail string, err error)) error {
	return c.commit(ctx, nil, f)
}

// commit is change for a prepared change: f commits it.
func (c *call) commit(ctx context.Context, p store.Prepared, f func(tx *store.Tx) (detail string, err error)) error {
	if c.dryRun {
		err := c.db.DryRun(ctx, p, func(tx *store.Tx) error {
			_, err := f(tx)
			return err
		})
		if err != nil {
			return err
		}
		return c.recordDryRun(ctx)
	}
	return c.db.Commit(ctx, p, func(tx *store.Tx) error {
		detail, err := f(tx)
		if err != nil {
			return err
		}
		return c.recordDone(ctx, tx, detail)
	})
}

// commitShared is commit for a small change of a container, as store.DB.CommitShared does it.
func (c *call) commitShared(ctx context.Context, p store.Prepared, ct container.Container, f func(ctx context.Context, tx *store.Tx) error) error {
	return c.db.CommitShared(ctx, p, ct.ID, func(ctx context.Context, tx *store.Tx) error {
		if err := f(ctx, tx); err != nil {
			return err
		}
		return c.recordDone(ctx, tx, "")
	})
}

// recordDone writes the operation's audit entry in tx.
func (c *call) recordDone(ctx context.Context, tx *store.Tx, detail string) error {
	return c.audit.Append(ctx, tx, audit.Entry{ID: c.entry, Tenant: c.tenant, Outcome: audit.Done, Target: c.target, Detail: detail})
}

func (c *call) recordDryRun(ctx context.Context) error {
	return c.db.Append(ctx, func(ctx context.Context, tx *store.Tx) error {
		return c.recordDone(ctx, tx, "dry run, nothing was changed")
	})
}

// read runs an operation that changes nothing: on one snapshot, with its audit entry
// written before the result is returned.
func (c *call) read(ctx context.Context, f func(tx *store.Tx) error) error {
	if err := c.db.View(ctx, f); err != nil {
		return err
	}
	return c.recordRead(ctx)
}

func (c *call) recordRead(ctx context.Context) error {
	return c.db.Append(ctx, func(ctx context.Context, tx *store.Tx) error { return c.recordDone(ctx, tx, "") })
}

// stream runs an operation that writes content to w. Its audit entry is written before
// the first byte, so that an earlier failure is still recorded as a refusal.
func (c *call) stream(ctx context.Context, w io.Writer, f func(w io.Writer) error) error {
	noted := &auditedWriter{w: w, note: func() error { return c.recordRead(ctx) }}
	if err := f(noted); err != nil {
		return err
	}
	if noted.note != nil { // there was no content
		return noted.note()
	}
	return nil
}

// auditedWriter calls note once, before the first write.
type auditedWriter struct {
	w    io.Writer
	note func() error
}

func (n *auditedWriter) Write(p []byte) (int, error) {
	if n.note != nil {
		if err := n.note(); err != nil {
			return 0, err
		}
		n.note = nil
	}
	return n.w.Write(p)
}

// do checks the principal, runs an operation on a target, and writes the audit
// entry of a refusal; f writes that of a success.
func do[Out any](ctx context.Context, s *Service, op api.Meta, target string, f func(ctx context.Context, c *call) (Out, error)) (Out, error) {
	var none Out
	p, err := access.PrincipalOf(ctx)
	if err != nil {
		return none, err
	}
	ctx = audit.WithOrigin(ctx, audit.Origin{Principal: p.ID, Actor: p.Name, Operation: op.Name, Request: audit.OriginOf(ctx).Request})
	// The key that encrypts names is unwrapped before any transaction.
	if _, err := s.containers.Directory(ctx, p.Tenant); err != nil {
		return none, err
	}
	c := &call{Service: s, principal: p, tenant: p.Tenant, target: target, entry: store.NewID()}
	var out Out
	if err = p.Check(access.Role(op.Role)); err == nil {
		out, err = f(ctx, c)
	}
	if err == nil {
		return out, nil
	}
	if fail.Is(err, api.Unavailable) { // the commit may have succeeded although its response was lost
		s.roller.Wake()
		s.purger.Wake()
	}
	// A refusal is recorded even if the caller has given up. AppendOnce keeps the entry
	// of an operation that has succeeded or has begun to send content.
	ctx = context.WithoutCancel(ctx)
	unnoted := s.db.Append(ctx, func(ctx context.Context, tx *store.Tx) error {
		return s.audit.AppendOnce(ctx, tx, audit.Entry{ID: c.entry, Tenant: p.Tenant, Outcome: string(fail.CodeOf(err)), Target: target})
	})
	if unnoted != nil {
		return none, fmt.Errorf("write the audit entry of a refusal (%s): %w", fail.CodeOf(err), unnoted)
	}
	return none, err
}

// CheckRole refuses an operation that the caller's role does not allow, and writes the
// audit entry, so that the caller need not parse its input first.
func (s *Service) CheckRole(ctx context.Context, op api.Meta) error {
	p, err := access.PrincipalOf(ctx)
	if err != nil || p.Check(access.Role(op.Role)) == nil {
		return err
	}
	_, err = do(ctx, s, op, "", func(context.Context, *call) (struct{}, error) { return struct{}{}, nil })
	return err
}
