// Package service is the only door to mailboxes, sites and policies: one
// method an operation of the api package.
//
// Each method checks the principal, acts within that principal's tenant alone,
// and writes an audit entry: in the operation's own transaction where it
// changes something, before its result leaves where it does not, and with the
// code of the failure where it is refused. Start reading at do.
package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"time"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/audit"
	"keyroll/internal/container"
	"keyroll/internal/content"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/policy"
	"keyroll/internal/purge"
	"keyroll/internal/roll"
	"keyroll/internal/store"
	"keyroll/internal/upkeep"
	"keyroll/internal/verify"
)

// Config is what the service stands on.
type Config struct {
	DB         *store.DB
	Access     *access.Directory
	Policies   *policy.Policies
	Purger     *purge.Purger
	Containers *container.Containers
	Contents   *content.Contents
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

// KeyNames reads and writes the identifiers of customer keys.
type KeyNames interface {
	ParseURI(uri string) (envelope.KeyVersion, error)
	Reference(vault, key, version string) (envelope.KeyVersion, error)
	URI(kv envelope.KeyVersion) string
}

// Service is the door.
type Service struct{ Config }

// New returns the service over its rooms.
func New(c Config) *Service { return &Service{c} }

// call is one operation under way.
type call struct {
	*Service
	principal access.Principal
	tenant    int64
	target    string
	entry     int64 // id of its one audit entry
	dryRun    bool  // the change ends where it would write its audit entry
}

// errDryRun breaks off the transaction of a change that is to change nothing.
var errDryRun = errors.New("service: a dry run")

// done writes the operation's audit entry in tx. It is the last step of a change;
// a dry run has by then been refused all that the change would be, and ends here.
func (c *call) done(ctx context.Context, tx *store.Tx, detail string) error {
	if c.dryRun {
		return errDryRun
	}
	return c.Audit.Append(ctx, tx, audit.Entry{ID: c.entry, Tenant: c.tenant, Outcome: audit.Done, Target: c.target, Detail: detail})
}

// read runs an operation that changes nothing: on one snapshot, with its audit
// entry written before the result leaves.
func (c *call) read(ctx context.Context, f func(tx *store.Tx) error) error {
	if err := c.DB.View(ctx, f); err != nil {
		return err
	}
	return c.noteRead(ctx)
}

func (c *call) noteRead(ctx context.Context) error {
	return c.DB.InTx(ctx, func(tx *store.Tx) error { return c.done(ctx, tx, "") })
}

// stream runs an operation that writes content to w. Its audit entry is written
// before the first byte leaves, so that a refusal up to there is told as one.
func (c *call) stream(ctx context.Context, w io.Writer, f func(w io.Writer) error) error {
	noted := &notedWriter{w: w, note: func() error { return c.noteRead(ctx) }}
	if err := f(noted); err != nil {
		return err
	}
	if noted.note != nil { // there was no content
		return noted.note()
	}
	return nil
}

// notedWriter calls note once, before the first write.
type notedWriter struct {
	w    io.Writer
	note func() error
}

func (n *notedWriter) Write(p []byte) (int, error) {
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
	// The key that seals names is opened before any transaction.
	if _, err := s.Containers.Directory(ctx, p.Tenant); err != nil {
		return none, err
	}
	c := &call{Service: s, principal: p, tenant: p.Tenant, target: target, entry: store.NewID()}
	var out Out
	if err = p.Check(access.Role(op.Role)); err == nil {
		out, err = f(ctx, c)
	}
	if errors.Is(err, errDryRun) {
		c.dryRun = false
		err = s.DB.InTx(ctx, func(tx *store.Tx) error { return c.done(ctx, tx, "dry run, nothing was changed") })
	}
	if err == nil {
		return out, nil
	}
	if fail.Is(err, api.Unavailable) { // the answer of a commit may be lost: what it began is there
		s.Roller.Wake()
		s.Purger.Wake()
	}
	// A refusal is noted even if nobody waits for it any more; but what was done,
	// or has begun to leave, stays noted as that.
	ctx = context.WithoutCancel(ctx)
	unnoted := s.DB.InTx(ctx, func(tx *store.Tx) error {
		return s.Audit.AppendOnce(ctx, tx, audit.Entry{ID: c.entry, Tenant: p.Tenant, Outcome: string(fail.CodeOf(err)), Target: target})
	})
	if unnoted != nil {
		return none, fmt.Errorf("write the audit entry of a refusal (%s): %w", fail.CodeOf(err), unnoted)
	}
	return none, err
}

// CheckRole refuses an operation that the caller's role does not have, and writes
// that down; so its input is not looked at before.
func (s *Service) CheckRole(ctx context.Context, op api.Meta) error {
	p, err := access.PrincipalOf(ctx)
	if err != nil || p.Check(access.Role(op.Role)) == nil {
		return err
	}
	_, err = do(ctx, s, op, "", func(context.Context, *call) (struct{}, error) { return struct{}{}, nil })
	return err
}

// page reads the position and size of a part of a list.
func page(in api.PageInput) (after int64, limit int, err error) {
	if in.After != "" {
		if after, err = strconv.ParseInt(in.After, 10, 64); err != nil {
			return 0, 0, fail.New(api.InvalidArgument, "after %q is not the next of an earlier part", in.After)
		}
	}
	if in.Limit < 0 || in.Limit > 1000 {
		return 0, 0, fail.New(api.InvalidArgument, "limit %d is not within 0 to 1000", in.Limit)
	}
	if in.Limit == 0 {
		in.Limit = 100
	}
	return after, in.Limit, nil
}

// listOf makes the part of a list that starts after a position: rows were
// asked for one more than the limit, and the one over says that there is more.
func listOf[T any](items []T, ids []int64, limit int) api.List[T] {
	l := api.List[T]{Items: items}
	if len(items) > limit {
		l.Items = items[:limit]
		l.Next = fmt.Sprint(ids[limit-1])
	}
	if l.Items == nil {
		l.Items = []T{}
	}
	return l
}
