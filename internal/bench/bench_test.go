package bench_test

import (
	"context"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/bench"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
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
	t.Run("file", func(t *testing.T) {
		r, err := bench.Content(t.Context(), options(""))
		sound(t, r.Base, err, "ratioPutToCopy", "ratioGetToCopy", "ratioGetToDiskToCopy")
		if !r.BytesEqual {
			t.Errorf("%+v", r)
		}
	})
}
