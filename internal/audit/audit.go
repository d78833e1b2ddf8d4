// Package audit is the log of operations and of uses of root keys.
//
// An operation appends its entry in its own transaction, so that both are committed or
// neither; the use of a root key is appended before the key that it opened is returned.
// The names of people and the targets of operations are sealed. The entry of a root
// key's use has the id of the request that it served, whose entry has both. The package
// never decrypts sealed texts.
package audit

import (
	"context"
	"time"

	"github.com/google/uuid"

	"keyroll/internal/store"
)

// Origin says on whose behalf, and by which operation and request, something is done.
type Origin struct {
	Principal uuid.UUID
	Actor     string // name of the principal
	Operation string
	Request   string
	// System marks work that the service itself started.
	System bool
}

type originKey struct{}

// WithOrigin returns a context that carries o.
func WithOrigin(ctx context.Context, o Origin) context.Context {
	return context.WithValue(ctx, originKey{}, o)
}

// OriginOf returns the origin that ctx carries; without one, it is the
// service's own.
func OriginOf(ctx context.Context) Origin {
	if o, ok := ctx.Value(originKey{}).(Origin); ok {
		return o
	}
	return Origin{Operation: "service", System: true}
}

// Sealer seals a text of one entry under the tenant's directory key.
type Sealer interface {
	SealText(ctx context.Context, tenant, entry int64, text string) ([]byte, error)
}

// Outcomes of an entry beside the codes of failures.
const (
	Done = "done"
	// Cancelled is a use of a root key that was cancelled before its answer.
	Cancelled = "broken off"
	// Late is a roll that will not keep its deadline, or has not.
	Late = "late"
)

// Entry is one entry of the log. Target may name a person or a container, and is sealed;
// Detail must not, because it is not sealed.
type Entry struct {
	ID        int64
	Tenant    int64
	Operation string // empty: the origin's
	Outcome   string // Done, Cancelled, Late, the new health of a customer key, or the code of the failure
	Target    string
	Detail    string
}

// Log appends entries.
type Log struct {
	sealer Sealer
	now    func() time.Time
}

// New returns a log. sealer seals the names in its entries.
func New(sealer Sealer, now func() time.Time) *Log { return &Log{sealer: sealer, now: now} }

// Append writes e with the origin that ctx carries.
func (l *Log) Append(ctx context.Context, tx *store.Tx, e Entry) error {
	return l.append(ctx, tx, insertEntry, e)
}

// AppendOnce is Append, but writes nothing if an entry of the same id exists, so that an
// operation that is repeated is recorded once.
func (l *Log) AppendOnce(ctx context.Context, tx *store.Tx, e Entry) error {
	return l.append(ctx, tx, insertEntry+` ON CONFLICT (id) DO NOTHING`, e)
}

func (l *Log) append(ctx context.Context, tx *store.Tx, statement string, e Entry) error {
	o := OriginOf(ctx)
	if e.Operation == "" {
		e.Operation = o.Operation
	}
	actor, err := l.seal(ctx, e.Tenant, e.ID, o.Actor)
	if err != nil {
		return err
	}
	target, err := l.seal(ctx, e.Tenant, e.ID, e.Target)
	if err != nil {
		return err
	}
	return insert(ctx, tx, statement, entryRow{e, o, l.now(), actor, target})
}

func (l *Log) seal(ctx context.Context, tenant, entry int64, text string) ([]byte, error) {
	if text == "" {
		return nil, nil
	}
	return l.sealer.SealText(ctx, tenant, entry, text)
}

// RootKeyUse writes that a root key was used. It seals nothing, because the key that
// seals names is itself opened by a root key.
func RootKeyUse(ctx context.Context, tx *store.Tx, e Entry, now time.Time) error {
	return Notice(ctx, tx, e, now)
}

// Notice writes an event that the service itself detected. It has no actor, and seals
// nothing.
func Notice(ctx context.Context, tx *store.Tx, e Entry, now time.Time) error {
	o := OriginOf(ctx)
	e.Operation = o.Operation
	e.ID = store.NewID()
	return insert(ctx, tx, insertEntry, entryRow{Entry: e, origin: o, time: now})
}

const insertEntry = `INSERT INTO audit_entry (id, tenant, time, request, principal, operation, outcome, detail, actor, target)
	VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)`

// entryRow is an entry as it is stored, with its names sealed.
type entryRow struct {
	Entry
	origin        Origin
	time          time.Time
	actor, target []byte
}

func insert(ctx context.Context, tx *store.Tx, statement string, e entryRow) error {
	_, err := tx.Exec(ctx, statement,
		e.ID, e.Tenant, e.time.UnixMilli(), e.origin.Request, e.origin.Principal.String(), e.Operation, e.Outcome, e.Detail, e.actor, e.target)
	return err
}
