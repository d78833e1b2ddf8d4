package node_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
)

// A start that does not name the blob store, or names another one, is refused; a copy
// of the store is accepted.
func TestADatabaseAcceptsOnlyItsOwnBlobStoreOrACopy(t *testing.T) {
	data, moved := nodetest.Folder(t), filepath.Join(t.TempDir(), "moved")
	w := nodetest.Start(t, node.Options{Data: data})
	w.Site(site)
	w.Put(site, "a", []byte("content of a"))
	w.Stop()
	o := node.Options{Data: data, Blobs: folder(moved)}
	n, err := node.Start(context.Background(), o)
	if err == nil {
		n.Close()
	}
	_, _, hint := fail.Public(err)
	mark, _ := os.ReadFile(filepath.Join(data, "blobs", "keyroll-store"))
	if !fail.Is(err, api.Conflict) || len(mark) == 0 || !strings.HasSuffix(hint, strings.TrimSpace(string(mark))) {
		t.Errorf("%v; %s", err, hint)
	}
	if err := os.RemoveAll(moved); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(data, "blobs"), moved); err != nil {
		t.Fatal(err)
	}
	w = nodetest.Start(t, o)
	w.VerifyClean()
}
