package main

import (
	"context"
	"os/exec"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/bench"
	"keyroll/internal/node"
	"keyroll/internal/store/storetest"
)

// Each benchmark runs at the smallest size that includes everything, reports where
// its figures were taken, and has decrypted its keys and read its content again.
func TestBenchmarksRunAtEveryDepth(t *testing.T) {
	t.Parallel()
	options := func(database string) bench.Options {
		return bench.Options{Data: t.TempDir(), Database: database, Containers: 5, Items: 3, ItemSize: 2000, PageSlots: 2, Rounds: 1,
			Script: quietly, Client: localClient, Progress: func(string) {}}
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
	t.Run("list", func(t *testing.T) {
		r, err := bench.List(t.Context(), bench.ListOptions{Options: options(""), Command: func(ctx context.Context, n *node.Node) (*exec.Cmd, error) {
			cmd, err := listCommand(ctx, n)
			cmd.Args[0] = "keyroll" // the test's own binary is the command under this name
			return cmd, err
		}})
		sound(t, r.Base, err, "serverSecondsPer1000", "firstLineSeconds")
		if r.Containers != 5 || r.Items != 3 || r.PeakRSSBytes <= 0 {
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
