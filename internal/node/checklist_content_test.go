package node_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/envelope"
	"keyroll/internal/items"
	"keyroll/internal/keypage"
	"keyroll/internal/node"
	"keyroll/internal/store"
)

// containerKeys decrypts the key of every container.
func (x tenancy) containerKeys() (all []container.Opened) {
	x.t.Helper()
	ctx, n := x.t.Context(), x.Node
	list := ask(x.t, n.DB, func(tx *store.Tx) ([]container.Container, error) {
		return n.Containers.All(ctx, tx, n.Tenant.ID, 0, 1000)
	})
	for _, c := range list {
		opened, err := n.Containers.OpenKey(ctx, c, api.ByUser)
		if err != nil {
			x.t.Fatal(err)
		}
		all = append(all, opened)
	}
	return all
}

func TestChecklist07LeafKeyPerMailboxSiteAndWorkload(t *testing.T) {
	x := newTenancy(t, node.Options{})
	x.Mailbox("carol@contoso.com", mailboxes.policy)
	x.Site(sites.unit + "2")
	x.PutItem("sensitivity-labels", "one", []byte(said))
	count := map[container.Kind]int{}
	var keys [][]byte
	for _, c := range x.containerKeys() {
		count[c.Kind]++
		if key := c.Key.Bytes(); len(key) != 256/8 || slices.ContainsFunc(keys, func(other []byte) bool { return bytes.Equal(key, other) }) {
			t.Errorf("%s %d has the key of another, or one of %d bytes", c.Kind, c.ID, len(key))
		} else {
			keys = append(keys, key)
		}
	}
	if count[container.Mailbox] != 3 || count[container.Site] != 2 || count[container.Workload] < 3 {
		t.Errorf("opened %v", count)
	}
	for _, want := range []struct {
		kind
		active, sites, workloads int64
	}{{mailboxes, 2, 0, 0}, {sites, 0, 2, 0}, {stores, 1, 0, 2}} {
		for _, vault := range want.vaults {
			list, err := x.Client.ListKeyUsage(t.Context(), api.KeyUsageInput{Vault: vault})
			if err != nil || len(list.Items) != 1 {
				t.Fatalf("%s: %+v, %v", vault, list.Items, err)
			}
			if u := list.Items[0]; u.Active != want.active || u.Sites != want.sites || u.Workloads != want.workloads || u.Verdict != api.InUse {
				t.Errorf("%s protects %+v", vault, u)
			}
		}
	}
}

// blobKeys decrypts the key of every blob of all containers of a kind, by blob.
func (x tenancy) blobKeys(kind container.Kind) map[int64][]byte {
	x.t.Helper()
	keys := map[int64][]byte{}
	for _, c := range x.containerKeys() {
		if c.Kind != kind {
			continue
		}
		pages := ask(x.t, x.Node.DB, func(tx *store.Tx) ([]keypage.Row, error) {
			return keypage.Under(x.t.Context(), tx, keypage.Set{Tenant: c.Tenant, Parents: []keypage.Parent{{ID: c.ID, Generation: c.Generation}}, Classes: []envelope.Class{envelope.ClassBlob}}, 0, 1000)
		})
		for _, row := range pages {
			page, err := envelope.OpenPage(c.Key, row.EncryptionContext(), row.Body)
			if err != nil {
				x.t.Fatal(err)
			}
			for _, slot := range page.Slots() {
				keys[slot.Child] = bytes.Clone(slot.Key.Bytes())
			}
		}
	}
	return keys
}

func TestChecklist08PerFilePerChunkPerDeltaKeysAES256(t *testing.T) {
	x := newTenancy(t, node.Options{})
	seen := map[string]bool{} // every key of all blobs
	grown := func(what string, kind container.Kind, want int, write func()) {
		t.Helper()
		before := x.blobKeys(kind)
		write()
		fresh := 0
		for blob, key := range x.blobKeys(kind) {
			if _, old := before[blob]; old {
				continue
			}
			fresh++
			if len(key) != 256/8 || seen[string(key)] {
				t.Errorf("%s: blob %d has a key of %d bits, or that of another", what, blob, 8*len(key))
			}
			seen[string(key)] = true
		}
		if fresh != want {
			t.Errorf("%s made %d keys, want %d", what, fresh, want)
		}
	}
	large := bytes.Repeat([]byte("0123456789abcdef"), (2*items.BlobSize+16)/16)
	grown("a file of three pieces", container.Site, 3, func() { x.Put(sites.unit, "large", large) })
	grown("the same file elsewhere", container.Site, 3, func() { x.Put(sites.unit, "copy", large) })
	grown("an update", container.Site, 3, func() { x.Put(sites.unit, "large", large) })
	grown("two messages", container.Mailbox, 2, func() { x.Import(mailboxes.unit, said+said) })
	grown("an item", container.Workload, 1, func() { x.PutItem(stores.unit, "two", []byte(said)) })
	if got := x.Get(sites.unit, "large"); !bytes.Equal(got, large) {
		t.Errorf("read %d bytes of %d", len(got), len(large))
	}
	stored := map[string]bool{}
	for _, blob := range x.blobs() {
		if stored[string(blob)] {
			t.Error("two blobs are the same as they are stored")
		}
		stored[string(blob)] = true
	}
}

func TestChecklist09BlobsAreStoredApartFromMapAndKeyPages(t *testing.T) {
	x := newTenancy(t, node.Options{})
	database := x.database()
	for _, blob := range x.blobs() {
		if bytes.Contains(database, blob[len(blob)/2:]) {
			t.Error("a blob's content is in the database")
		}
		for _, word := range []string{"body of it all", "plan.txt", "alice", "contoso", "finance"} {
			if bytes.Contains(blob, []byte(word)) {
				t.Errorf("a blob tells %q", word)
			}
		}
	}
	if n := len(x.blobs()); n != 4 {
		t.Errorf("there are %d blobs", n)
	}
	// Map and key pages are in one database; nothing can be decrypted without either.
	blobs, elsewhere := filepath.Join(x.Data, "blobs"), filepath.Join(t.TempDir(), "blobs")
	if err := os.Rename(blobs, elsewhere); err != nil {
		t.Fatal(err)
	}
	for _, k := range kinds {
		x.wantRefusedRead(k, api.Damaged, "without the blob store")
	}
	if files, err := x.Client.ListFiles(t.Context(), api.ListSiteFiles{SiteInput: api.SiteInput{Site: sites.unit}}); err != nil || len(files.Items) != 1 || files.Items[0].Path != "plan.txt" {
		t.Errorf("the map without the blobs: %+v, %v", files.Items, err)
	}
	if len(x.blobKeys(container.Mailbox)) != 2 || len(x.blobKeys(container.Site)) != 1 || len(x.blobKeys(container.Workload)) != 1 {
		t.Error("the key pages cannot be decrypted without the blobs")
	}
	if err := os.Rename(elsewhere, blobs); err != nil {
		t.Fatal(err)
	}
	for _, k := range kinds {
		x.wantReadable(k, "with it again")
	}
}
