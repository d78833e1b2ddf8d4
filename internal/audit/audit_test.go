package audit_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"keyroll/internal/audit"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// marker is a Sealer that marks the texts that should be sealed.
type marker struct{ err error }

func (m marker) SealText(_ context.Context, tenant, entry int64, text string) ([]byte, error) {
	return fmt.Appendf(nil, "sealed for %d/%d: %s", tenant, entry, text), m.err
}

var at = time.UnixMilli(1_800_000_000_123)

func now() time.Time { return at }

// storedEntry is a stored entry.
func storedEntry(t *testing.T, db *store.DB, id int64) (text string) {
	t.Helper()
	err := db.ViewOnce(t.Context(), func(tx *store.Tx) error {
		var tenant, time int64
		var request, principal, operation, outcome, detail string
		var actor, target []byte
		err := tx.QueryRow(t.Context(), `SELECT tenant, time, request, principal, operation, outcome, detail, actor, target FROM audit_entry WHERE id = ?1`, id).
			Scan(&tenant, &time, &request, &principal, &operation, &outcome, &detail, &actor, &target)
		text = fmt.Sprintf("%d|%d|%s|%s|%s|%s|%s|%s|%s", tenant, time, request, principal, operation, outcome, detail, actor, target)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func appendEntry(ctx context.Context, db *store.DB, f func(context.Context, *store.Tx, audit.Entry) error, e audit.Entry) error {
	return db.InTx(ctx, func(tx *store.Tx) error { return f(ctx, tx, e) })
}

func TestEntryRecordsPrincipalOperationAndReasonAndSealsNames(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		log := audit.New(marker{}, now)
		who := uuid.New()
		ctx := audit.WithOrigin(t.Context(), audit.Origin{Principal: who, Actor: "alice", Operation: "ExportMail", Request: "r"})
		if err := appendEntry(ctx, db, log.Append, audit.Entry{ID: 7, Tenant: 3, Outcome: audit.Done, Target: "bob@contoso.com", Detail: "d"}); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("3|%d|r|%s|ExportMail|done|d|sealed for 3/7: alice|sealed for 3/7: bob@contoso.com", at.UnixMilli(), who)
		if got := storedEntry(t, db, 7); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if err := appendEntry(t.Context(), db, log.Append, audit.Entry{ID: 8, Tenant: 3, Outcome: audit.Done}); err != nil {
			t.Fatal(err)
		}
		if got, want := storedEntry(t, db, 8), fmt.Sprintf("3|%d||%s|service|done|||", at.UnixMilli(), uuid.Nil); got != want {
			t.Errorf("the service's own: got %s, want %s", got, want)
		}
	})
}

func TestAppendOnceWritesOneEntry(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		log := audit.New(marker{}, now)
		for i, outcome := range []string{audit.Done, "Internal"} {
			if err := appendEntry(t.Context(), db, log.AppendOnce, audit.Entry{ID: 7, Tenant: 3, Outcome: outcome}); err != nil {
				t.Fatal(i, err)
			}
		}
		if got, want := storedEntry(t, db, 7), fmt.Sprintf("3|%d||%s|service|done|||", at.UnixMilli(), uuid.Nil); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if err := appendEntry(t.Context(), db, log.Append, audit.Entry{ID: 7, Tenant: 3, Outcome: audit.Done}); !store.IsUnique(err) {
			t.Errorf("a second entry of one id: %v", err)
		}
	})
}

func TestEntryThatCannotBeSealedIsNotWritten(t *testing.T) {
	db := storetest.One(t)
	refused := errors.New("no directory")
	log := audit.New(marker{refused}, now)
	if err := appendEntry(t.Context(), db, log.Append, audit.Entry{ID: 7, Tenant: 3, Target: "bob"}); !errors.Is(err, refused) {
		t.Errorf("error is %v", err)
	}
}

func TestUseOfARootKeySealsNothingAndKeepsItsOrigin(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		who := uuid.New()
		ctx := audit.WithOrigin(t.Context(), audit.Origin{Principal: who, Actor: "alice", Operation: "Roll", Request: "roll 5"})
		err := db.InTx(ctx, func(tx *store.Tx) error {
			for range 2 {
				if err := audit.RootKeyUse(ctx, tx, audit.Entry{Tenant: 3, Outcome: audit.Cancelled, Detail: "unwrap"}, at); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		var n int
		err = db.ViewOnce(ctx, func(tx *store.Tx) error {
			return tx.QueryRow(ctx, `SELECT COUNT(*) FROM audit_entry WHERE tenant = 3 AND principal = ?1 AND operation = 'Roll' AND request = 'roll 5'
				AND outcome = 'broken off' AND detail = 'unwrap' AND actor IS NULL AND target IS NULL`, who.String()).Scan(&n)
		})
		if err != nil || n != 2 {
			t.Errorf("%d entries, %v", n, err)
		}
	})
}
