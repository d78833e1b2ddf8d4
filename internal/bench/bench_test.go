package bench_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/bench"
	"keyroll/internal/fail"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// Each benchmark runs at the smallest size that includes everything, reports where
// its figures were taken, and has decrypted its keys and read its content again.
func TestBenchmarksRunAtEveryDepth(t *testing.T) {
	t.Parallel()
	options := func(database string) bench.Options {
		return bench.Options{Data: t.TempDir(), Database: database, Containers: 5, Items: 3, ItemSize: 2000, PageSlots: 2, Rounds: 1,
			Progress: func(string) {},
			Script: func(_ context.Context, n *node.Node, text string) error {
				_, err := nodetest.Around(t, n).TryScript(text)
				return err
			},
			Client: func(n *node.Node) (*client.Client, error) { return nodetest.Around(t, n).Client, nil }}
	}
	sound := func(t *testing.T, b bench.Base, err error, ratios ...string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if b.Database == "" || b.Durability == "" || b.DatabaseBytes == 0 || b.Rounds != 1 {
			t.Errorf("taken at %+v", b)
		}
		for _, name := range ratios {
			if f := b.Range[name]; f.Median <= 0 || f.Min > f.Median || f.Max < f.Median {
				t.Errorf("%s: %+v", name, f)
			}
		}
	}
	for name, database := range map[string]string{"sqlite": "", "postgres": storetest.EmptyPostgresURL(t)} {
		t.Run("policy/"+name, func(t *testing.T) {
			r, err := bench.Roll(t.Context(), options(database))
			sound(t, r.Base, err, "ratioToRowByRow", "ratioToPages")
			if r.KeysOpenedAndEqual != 5 || r.Pages != 3 {
				t.Errorf("%+v", r)
			}
		})
		t.Run("container/"+name, func(t *testing.T) {
			r, err := bench.Container(t.Context(), options(database))
			sound(t, r.Base, err, "ratioToRowByRow")
			if r.KeysOpenedAndEqual != 15 {
				t.Errorf("%+v", r)
			}
		})
	}
	t.Run("root", func(t *testing.T) {
		r, err := bench.Root(t.Context(), options(""))
		sound(t, r.Base, err, "ratioToFew")
	})
	t.Run("content", func(t *testing.T) {
		r, err := bench.Recrypt(t.Context(), options(""))
		sound(t, r.Base, err, "ratioToLimits")
		if !r.BytesEqual || r.Bytes != 5*3*2000 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("readers", func(t *testing.T) {
		r, err := bench.Readers(t.Context(), bench.ReadersOptions{Options: options(""), Depth: api.DepthPolicy, Readable: 2, PerSecond: 100, Window: 100 * time.Millisecond})
		sound(t, r.Base, err, "ratioOfP99")
		if r.Reads != 20 {
			t.Errorf("%+v", r)
		}
	})
	for name, database := range map[string]string{"sqlite": "", "postgres": storetest.EmptyPostgresURL(t)} {
		t.Run("items/"+name, func(t *testing.T) {
			o := bench.ItemsOptions{Options: options(database), Clients: []int{1, 3}}
			o.Items = 7
			r, err := bench.Items(t.Context(), o)
			sound(t, r.Base, err)
			for _, clients := range o.Clients {
				for _, name := range []string{"ratioImportToWrite", "ratioImportToRows", "ratioPutToWrite", "ratioGetToWithoutAudit", "putP99Seconds", "getP99Seconds", "listPerSecond", "objectsPer1000Messages"} {
					if f := r.Range[fmt.Sprintf("%s/%d", name, clients)]; f.Median <= 0 {
						t.Errorf("%s of %d clients: %+v", name, clients, f)
					}
				}
			}
			if database == "" {
				checkGetsAudited(t, filepath.Join(o.Data, "items", "keyroll.db"), 2*7+1+3)
			}
			if !r.BytesEqual || len(r.Clients) != 2 || r.Clients[1].Clients != 3 || r.Clients[1].PutP50Seconds > r.Clients[1].PutP99Seconds {
				t.Errorf("%+v", r)
			}
		})
	}
	t.Run("items that cannot be shared", func(t *testing.T) {
		for _, clients := range [][]int{nil, {0}, {4}, {2, 2}} {
			if _, err := bench.Items(t.Context(), bench.ItemsOptions{Options: options(""), Clients: clients}); !fail.Is(err, api.InvalidArgument) {
				t.Errorf("%d clients of 3 items: %v", clients, err)
			}
		}
	})
	t.Run("file", func(t *testing.T) {
		r, err := bench.Content(t.Context(), options(""))
		sound(t, r.Base, err, "ratioPutToCopy", "ratioGetToCopy", "ratioGetToDiskToCopy")
		if !r.BytesEqual {
			t.Errorf("%+v", r)
		}
	})
}

// checkGetsAudited checks that n gets have an audit entry: of each file once, although it is
// read twice, and the first of each client, which is not measured.
func checkGetsAudited(t *testing.T, database string, n int) {
	t.Helper()
	db, err := store.Open(t.Context(), "sqlite://"+database)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var entries int
	err = db.View(t.Context(), func(tx *store.Tx) error {
		return tx.QueryRow(t.Context(), `SELECT COUNT(*) FROM audit_entry WHERE operation = ?1`, api.GetFile.Name).Scan(&entries)
	})
	if err != nil || entries != n {
		t.Errorf("%d gets have an audit entry instead of %d, %v", entries, n, err)
	}
}
