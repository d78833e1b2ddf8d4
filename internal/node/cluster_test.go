package node_test

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
	"keyroll/internal/store/storetest"
)

func folder(parts ...string) string {
	return (&url.URL{Scheme: "file", Path: filepath.Join(parts...)}).String()
}

// Where a store stands in the data folder of one node, no other node may run,
// and none may come to run beside it; what is told says what to do.
func TestANodeThatKeepsAStoreToItselfRunsBesideNoOther(t *testing.T) {
	shared := t.TempDir()
	seal := folder(shared, "seal")
	elsewhere := func(o node.Options) node.Options {
		o.Availability, o.Blobs = folder(shared, "availability"), folder(shared, "blobs")
		return o
	}
	for _, c := range []struct {
		name string
		own  func(o node.Options) node.Options
		says string
	}{
		{"availability by default", func(o node.Options) node.Options { o.Availability = ""; return o }, "--availability https://"},
		{"availability named", func(o node.Options) node.Options { o.Availability = folder(o.Data, "keys"); return o }, "--availability https://"},
		{"blobs by default", func(o node.Options) node.Options { o.Blobs = ""; return o }, "--blobs file:///"},
		{"blobs by a link", func(o node.Options) node.Options {
			link := filepath.Join(filepath.Dir(o.Data), "link")
			if err := os.MkdirAll(o.Data, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(o.Data, link); err != nil {
				t.Fatal(err)
			}
			o.Blobs = folder(link, "blobs") // not to be taken for a folder elsewhere
			return o
		}, "--blobs file:///"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // a node that is refused has waited whether the other one is dead
			database := storetest.PostgresURL(t)
			all := func() node.Options {
				return elsewhere(node.Options{Data: filepath.Join(t.TempDir(), "data"), Database: database, Seal: seal})
			}
			refused := func(o node.Options) {
				t.Helper()
				n, err := node.Start(context.Background(), o)
				if err == nil {
					n.Close()
				}
				_, detail, hint := fail.Public(err)
				if !fail.Is(err, api.Conflict) || !strings.Contains(detail, "in its own data folder") || !strings.Contains(hint, c.says) {
					t.Errorf("%v, hint %q", err, hint)
				}
			}
			w := nodetest.Start(t, c.own(all()))
			refused(all()) // whatever the new one has
			w.Stop()
			if strings.HasPrefix(c.name, "blobs") {
				w = nodetest.Start(t, all())
				refused(c.own(all())) // or the one that runs
				nodetest.Start(t, all())
			}
		})
	}
}

func TestANodeWithAnotherSealRefusesTheSharedDatabase(t *testing.T) {
	database, shared := storetest.PostgresURL(t), t.TempDir()
	o := node.Options{Database: database, Seal: folder(shared, "seal"), Blobs: folder(shared, "blobs"), Availability: folder(shared, "availability")}
	nodetest.Start(t, o)
	o.Data, o.Seal = filepath.Join(t.TempDir(), "data"), ""
	if n, err := node.Start(context.Background(), o); !fail.Is(err, api.WrongSeal) {
		if err == nil {
			n.Close()
		}
		t.Error(err)
	}
}
