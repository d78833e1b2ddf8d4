// Package operation runs one operation of the api package for a caller.
//
// It checks the caller's roles, and writes one audit entry: of a change in its own
// transaction, of a read before its result is returned, of a refusal with the code of the
// failure. What an operation does is the caller's. Start reading at Do.
package operation

import (
	"context"
	"fmt"
	"io"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/audit"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// Frame is what operations run in.
type Frame struct {
	DB    *store.DB
	Audit *audit.Log
	// Texts unwraps the key of a tenant that encrypts names, before any transaction.
	Texts func(ctx context.Context, tenant int64) (Texts, error)
	// Uncertain is called after a failure that may hide a change: the answer of its commit
	// was lost.
	Uncertain func()
}

// Texts seals the names and texts of a tenant, each for the id of what it belongs to.
type Texts interface {
	Seal(id int64, text string) []byte
	Open(id int64, sealed []byte) (string, error)
}

// Call is one running operation.
type Call struct {
	Principal access.Principal
	Tenant    int64
	Target    string
	Texts     Texts // of the tenant
	DryRun    bool  // Commit changes nothing
	// Also, unless nil, is called in the transaction of a change, before its audit entry.
	Also func(ctx context.Context, tx *store.Tx) error

	frame *Frame
	entry int64 // id of its one audit entry
}

// Change runs f in a transaction, together with the audit entry of the operation, whose
// detail f returns. A dry run is rolled back and has an entry that says so.
func (c *Call) Change(ctx context.Context, f func(tx *store.Tx) (detail string, err error)) error {
	return c.Commit(ctx, nil, f)
}

// Commit is Change for a prepared change: f commits it.
func (c *Call) Commit(ctx context.Context, p store.Prepared, f func(tx *store.Tx) (detail string, err error)) error {
	if c.DryRun {
		err := c.frame.DB.DryRun(ctx, p, func(tx *store.Tx) error {
			_, err := f(tx)
			return err
		})
		if err != nil {
			return err
		}
		return c.RecordDryRun(ctx)
	}
	return c.frame.DB.Commit(ctx, p, func(tx *store.Tx) error {
		detail, err := f(tx)
		if err != nil {
			return err
		}
		return c.RecordDone(ctx, tx, detail)
	})
}

// CommitShared is Commit for a small change of a container, as store.DB.CommitShared does it.
func (c *Call) CommitShared(ctx context.Context, p store.Prepared, container int64, f func(ctx context.Context, tx *store.Tx) error) error {
	return c.frame.DB.CommitShared(ctx, p, container, func(ctx context.Context, tx *store.Tx) error {
		if err := f(ctx, tx); err != nil {
			return err
		}
		return c.RecordDone(ctx, tx, "")
	})
}

// RecordDone writes the operation's audit entry in tx.
func (c *Call) RecordDone(ctx context.Context, tx *store.Tx, detail string) error {
	if c.Also != nil {
		if err := c.Also(ctx, tx); err != nil {
			return err
		}
	}
	return c.frame.Audit.Append(ctx, tx, audit.Entry{ID: c.entry, Tenant: c.Tenant, Outcome: audit.Done, Target: c.Target, Detail: detail})
}

// RecordDryRun writes the audit entry of a dry run.
func (c *Call) RecordDryRun(ctx context.Context) error {
	return c.frame.DB.Append(ctx, func(ctx context.Context, tx *store.Tx) error {
		return c.RecordDone(ctx, tx, "dry run, nothing was changed")
	})
}

// Read runs an operation that changes nothing: on one snapshot, with its audit entry
// written before the result is returned.
func (c *Call) Read(ctx context.Context, f func(tx *store.Tx) error) error {
	if err := c.frame.DB.View(ctx, f); err != nil {
		return err
	}
	return c.RecordRead(ctx)
}

// RecordRead writes the audit entry of a read.
func (c *Call) RecordRead(ctx context.Context) error {
	return c.frame.DB.Append(ctx, func(ctx context.Context, tx *store.Tx) error { return c.RecordDone(ctx, tx, "") })
}

// Stream runs an operation that writes content to w. Its audit entry is written before
// the first byte, so that an earlier failure is still recorded as a refusal.
func (c *Call) Stream(ctx context.Context, w io.Writer, f func(w io.Writer) error) error {
	noted := &auditedWriter{w: w, note: func() error { return c.RecordRead(ctx) }}
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

// Do checks the caller's roles, runs an operation on a target, and writes the audit entry of
// a refusal; run writes that of a success.
func Do[Out any](ctx context.Context, f *Frame, op api.Meta, target string, run func(ctx context.Context, c *Call) (Out, error)) (Out, error) {
	var none Out
	p, err := access.PrincipalOf(ctx)
	if err != nil {
		return none, err
	}
	ctx = audit.WithOrigin(ctx, audit.Origin{Principal: p.ID, Actor: p.Name, Operation: op.Name, Request: audit.OriginOf(ctx).Request})
	texts, err := f.Texts(ctx, p.Tenant)
	if err != nil {
		return none, err
	}
	c := &Call{frame: f, Principal: p, Tenant: p.Tenant, Target: target, Texts: texts, entry: store.NewID()}
	var out Out
	if err = p.Check(op.Roles...); err == nil {
		out, err = run(ctx, c)
	}
	if err == nil {
		return out, nil
	}
	if fail.Is(err, api.Unavailable) {
		f.Uncertain()
	}
	// A refusal is recorded even if the caller has given up. AppendOnce keeps the entry
	// of an operation that has succeeded or has begun to send content.
	ctx = context.WithoutCancel(ctx)
	unnoted := f.DB.Append(ctx, func(ctx context.Context, tx *store.Tx) error {
		return f.Audit.AppendOnce(ctx, tx, audit.Entry{ID: c.entry, Tenant: p.Tenant, Outcome: string(fail.CodeOf(err)), Target: target})
	})
	if unnoted != nil {
		return none, fmt.Errorf("write the audit entry of a refusal (%s): %w", fail.CodeOf(err), unnoted)
	}
	return none, err
}

// CheckRole refuses an operation that the caller's roles do not permit, and writes the
// audit entry, so that the caller need not parse its input first.
func (f *Frame) CheckRole(ctx context.Context, op api.Meta) error {
	p, err := access.PrincipalOf(ctx)
	if err != nil || p.Check(op.Roles...) == nil {
		return err
	}
	_, err = Do(ctx, f, op, "", func(context.Context, *Call) (struct{}, error) { return struct{}{}, nil })
	return err
}
