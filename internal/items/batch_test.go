package items_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/content/contenttest"
	"keyroll/internal/envelope"
	"keyroll/internal/items"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// put is a blob of a batch with its content.
type put struct {
	row  items.Blob
	key  *envelope.Key
	text string
}

func addTo(t testing.TB, w *fixture, batch *items.Batch, text string) put {
	t.Helper()
	p := put{row: items.Blob{ID: store.NewID(), Tenant: tenant, Item: store.NewID()}, key: envelope.NewKey(), text: text}
	size, err := batch.Put(t.Context(), p.row, p.key, strings.NewReader(text))
	must(t, err)
	if size != int64(len(text)) {
		t.Errorf("%d bytes of %d", size, len(text))
	}
	return p
}

func newBatch(t testing.TB, w *fixture) *items.Batch {
	t.Helper()
	batch, err := w.Items.NewBatch(t.Context())
	must(t, err)
	return batch
}

// wantStored fails unless all bytes and some ranges of the blobs can be read.
func wantStored(t testing.TB, w *fixture, puts []put) {
	t.Helper()
	for _, p := range puts {
		n := p.row.Size
		for _, r := range []envelope.Range{{N: n}, {Off: n / 2, N: n - n/2}, {Off: n / 3, N: n / 3}} {
			var got bytes.Buffer
			if _, err := w.Items.CopyBlob(t.Context(), p.row, p.key, r, &got); err != nil || got.String() != p.text[r.Off:r.Off+r.N] {
				t.Fatalf("blob %+v, range %+v: %d bytes, or others, error %v", p.row, r, got.Len(), err)
			}
		}
	}
}

// insertedObjects inserts objects and returns their rows.
func insertedObjects(t testing.TB, w *fixture, objects []items.Object, used []items.Blob) (list []items.Object) {
	t.Helper()
	ids := []int64{0}
	for _, o := range objects {
		ids = append(ids, o.ID)
	}
	must(t, w.DB.InTx(t.Context(), func(tx *store.Tx) error { return items.InsertObjects(t.Context(), tx, objects, used) }))
	must(t, w.DB.View(t.Context(), func(tx *store.Tx) (err error) {
		list, err = items.ObjectsByID(t.Context(), tx, tenant, ids)
		return err
	}))
	return list
}

func TestABatchFillsObjects(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		w.Sizes.Object = 200_000
		w.Reopen(t)
		batch := newBatch(t, w)
		defer batch.Discard()
		var puts []put
		for i := range 40 {
			puts = append(puts, addTo(t, w, batch, contenttest.RandomContent(i, []int{0, 1, 500, 70_000}[i%4])))
		}
		stored, err := batch.Commit(t.Context())
		must(t, err)
		batch.Discard() // does nothing any more
		used := map[int64]int64{}
		for i := range puts {
			puts[i].row = stored[i]
			if stored[i].At != used[stored[i].ObjectID()] {
				t.Errorf("blob %d begins at %d, not %d", i, stored[i].At, used[stored[i].ObjectID()])
			}
			used[stored[i].ObjectID()] += stored[i].SealedSize()
		}
		objects := batch.Objects()
		if len(objects) != 4 || len(w.BlobNames(t)) != 4 { // of three times 70,000 bytes, and the rest
			t.Fatalf("objects %+v, %d files", objects, len(w.BlobNames(t)))
		}
		for _, o := range objects {
			if used[o.ID] != o.Size {
				t.Errorf("object %+v has %d bytes of blobs", o, used[o.ID])
			}
		}
		wantStored(t, w, puts)
		first := stored[:12]
		list := insertedObjects(t, w, objects, first)
		if len(list) != 1 || list[0].Dead != 0 {
			t.Errorf("objects of the first blobs: %+v", list)
		}
	})
}

func TestABlobThatIsAloneInABatchHasItsOwnObject(t *testing.T) {
	w := newFixture(t, storetest.One(t))
	batch := newBatch(t, w)
	defer batch.Discard()
	p := addTo(t, w, batch, "text")
	stored, err := batch.Commit(t.Context())
	must(t, err)
	if p.row = stored[0]; p.row.Object != 0 || p.row.At != 0 || len(batch.Objects()) != 0 || len(w.BlobNames(t)) != 1 {
		t.Errorf("row %+v, objects %+v", p.row, batch.Objects())
	}
	wantStored(t, w, []put{p})
}

// A content that fails leaves dead bytes, and the other blobs can be read.
func TestABatchContinuesAfterAContentThatFailed(t *testing.T) {
	w := newFixture(t, storetest.One(t))
	failed := errors.New("the content ended")
	fail := func(batch *items.Batch, n int64) {
		t.Helper()
		content := io.MultiReader(contenttest.ZeroBytes(n), contenttest.ReaderFunc(func([]byte) (int, error) { return 0, failed }))
		if _, err := batch.Put(t.Context(), items.Blob{ID: store.NewID(), Tenant: tenant}, envelope.NewKey(), content); !errors.Is(err, failed) {
			t.Errorf("error %v", err)
		}
	}
	batch := newBatch(t, w)
	defer batch.Discard()
	fail(batch, 200_000)
	puts := []put{addTo(t, w, batch, "first")}
	fail(batch, 0)
	puts = append(puts, addTo(t, w, batch, "second"))
	fail(batch, 100_000)
	stored, err := batch.Commit(t.Context())
	must(t, err)
	for i := range puts {
		puts[i].row = stored[i]
	}
	wantStored(t, w, puts)
	list := insertedObjects(t, w, batch.Objects(), stored)
	if live := stored[0].SealedSize() + stored[1].SealedSize(); len(list) != 1 || list[0].Size-list[0].Dead != live || list[0].Dead < 196_608 {
		t.Errorf("objects %+v; %d bytes are live", list, live)
	}
	none := newBatch(t, w)
	defer none.Discard()
	fail(none, 100_000)
	if stored, err := none.Commit(t.Context()); err != nil || len(stored) != 0 || len(none.Objects()) != 0 {
		t.Errorf("%d blobs, objects %+v, error %v", len(stored), none.Objects(), err)
	}
	if n := len(w.BlobNames(t)); n != 1 {
		t.Errorf("%d files", n)
	}
}

func TestADiscardedBatchLeavesNothing(t *testing.T) {
	w := newFixture(t, storetest.One(t))
	w.Sizes.Object = 1000
	w.Reopen(t)
	batch := newBatch(t, w)
	for range 3 {
		addTo(t, w, batch, strings.Repeat("x", 700))
	}
	batch.Discard()
	if n := len(w.BlobNames(t)); n != 0 {
		t.Errorf("%d files", n)
	}
}

// An object under whose name there is one already is refused, and the other one is kept.
func TestABatchFailsIfAnObjectExists(t *testing.T) {
	w := newFixture(t, storetest.One(t))
	first := newBatch(t, w)
	p := addTo(t, w, first, "theirs")
	stored, err := first.Commit(t.Context())
	must(t, err)
	again := newBatch(t, w)
	defer again.Discard()
	_, err = again.Put(t.Context(), items.Blob{ID: p.row.ID, Tenant: tenant}, envelope.NewKey(), strings.NewReader("ours"))
	must(t, err)
	addTo(t, w, again, "ours too")
	_, err = again.Commit(t.Context())
	wantCode(t, err, api.AlreadyExists)
	p.row = stored[0]
	wantStored(t, w, []put{p})
}

// Beside a node that does not read objects of several blobs, each blob has its own.
func TestNoObjectIsSharedBesideOlderNodes(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		shared := func() (n int64) {
			must(t, w.DB.View(t.Context(), func(tx *store.Tx) error {
				return tx.QueryRow(t.Context(), `SELECT COUNT(*) FROM blob WHERE object <> 0`).Scan(&n)
			}))
			return n
		}
		w.Older = true
		w.MustImport(t, contenttest.Mbox(5))
		w.MustRenew(t, store.NewID(), w.Mail)
		if n := shared(); n != 0 {
			t.Errorf("%d blobs are in shared objects", n)
		}
		w.WantHealthy(t, true)
		w.Older = false
		w.MustImport(t, contenttest.Mbox(4))
		if n := shared(); n != 4 {
			t.Errorf("%d blobs are in shared objects, not 4", n)
		}
		w.MustRenew(t, store.NewID(), w.Mail)
		if n := shared(); n != 9 {
			t.Errorf("%d blobs are in shared objects, not 9", n)
		}
		w.WantExact(t)
		if n := len(w.BlobNames(t)); n != 1 {
			t.Errorf("%d objects", n)
		}
	})
}
