package store_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// With a server that allows five connections keyroll serves twelve simultaneous requests:
// they wait for one another, whether the node knew the limit at its start or not.
func TestRequestsWaitForAConnection(t *testing.T) {
	for _, fits := range []bool{false, true} {
		t.Run(map[bool]string{false: "later", true: "at the start"}[fits], func(t *testing.T) {
			address := storetest.EmptyPostgresURL(t)
			database := strings.TrimPrefix(strings.SplitN(address, "?", 2)[0], "postgres:///")
			role := "few_" + database
			execute(t, address, "CREATE ROLE "+role+" LOGIN CONNECTION LIMIT 5", "GRANT ALL ON SCHEMA public TO "+role)
			t.Cleanup(func() {
				if err := store.Execute(context.Background(), address, "DROP OWNED BY "+role, "DROP ROLE "+role); err != nil {
					t.Error(err)
				}
			})
			db, err := store.Open(t.Context(), strings.Replace(address, "user=keyroll", "user="+role, 1))
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			var log bytes.Buffer
			if fits {
				if err := db.FitConnections(t.Context(), slog.New(slog.NewTextHandler(&log, nil))); err != nil {
					t.Fatal(err)
				}
				if !strings.Contains(log.String(), "left=5 used=5 wanted=18 least=5") {
					t.Errorf("the log has %s", &log)
				}
				aside := db.Aside()
				defer aside.Close()
				if err := aside.Ping(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			var all sync.WaitGroup
			for range 12 {
				all.Go(func() {
					for range 30 {
						err := db.InTx(t.Context(), func(tx *store.Tx) error { return tx.Lock(t.Context(), 1, true) })
						if err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
		})
	}
}

func TestANodeWithEnoughConnectionsLogsNoWarning(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		var log bytes.Buffer
		if err := db.FitConnections(t.Context(), slog.New(slog.NewTextHandler(&log, nil))); err != nil || log.Len() > 0 {
			t.Errorf("%v; the log has %s", err, &log)
		}
	})
}
