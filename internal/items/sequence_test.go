package items_test

import (
	"bytes"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/content/contenttest"
	"keyroll/internal/items"
	"keyroll/internal/store/storetest"
)

// storedTogether returns blobs with these contents in one object, and the store that counts opens.
func storedTogether(t *testing.T, texts ...string) ([]put, *fixture, *contenttest.Opens) {
	t.Helper()
	w := newFixture(t, storetest.One(t))
	opens := w.CountOpens()
	batch := newBatch(t, w)
	defer batch.Discard()
	var puts []put
	for _, text := range texts {
		puts = append(puts, addTo(t, w, batch, text))
	}
	stored, err := batch.Commit(t.Context())
	must(t, err)
	for i := range puts {
		puts[i].row = stored[i]
	}
	return puts, w, opens
}

// wantOpens reads blobs in an order and fails unless that needs so many opens.
func wantOpens(t *testing.T, w *fixture, opens *contenttest.Opens, puts []put, want int64) {
	t.Helper()
	var rows []items.Blob
	for _, p := range puts {
		rows = append(rows, p.row)
	}
	before := opens.Count.Load()
	from := w.Items.InOrder(rows)
	for _, p := range puts {
		var got bytes.Buffer
		n, err := from.CopyBlob(t.Context(), p.row, p.key, p.row.Whole(), &got)
		if err != nil || n != p.row.Size || got.String() != p.text {
			t.Fatalf("blob %+v: %d bytes, or others, error %v", p.row, n, err)
		}
	}
	from.Close()
	from.Close() // does nothing any more
	if n := opens.Count.Load() - before; n != want {
		t.Errorf("%d opens, want %d", n, want)
	}
	if n := opens.Unclosed.Load(); n != 0 {
		t.Errorf("%d readers were not closed", n)
	}
}

func TestBlobsThatFollowEachOtherAreReadTogether(t *testing.T) {
	puts, w, opens := storedTogether(t, "a", "", strings.Repeat("b", 70_000), "c", strings.Repeat("d", 3<<20), "e", "f")
	wantOpens(t, w, opens, puts, 1)
	wantOpens(t, w, opens, []put{puts[0], puts[2], puts[3]}, 1)                   // over a small gap
	wantOpens(t, w, opens, []put{puts[0], puts[3]}, 2)                            // over a large one
	wantOpens(t, w, opens, []put{puts[3], puts[2], puts[2], puts[0], puts[1]}, 4) // backwards
	var alone []put
	for range 2 {
		batch := newBatch(t, w)
		p := addTo(t, w, batch, "alone")
		stored, err := batch.Commit(t.Context())
		must(t, err)
		p.row = stored[0]
		alone = append(alone, p)
	}
	wantOpens(t, w, opens, []put{puts[0], alone[0], puts[1], puts[2], alone[1]}, 4)
}

// A blob that fails does not prevent that the next ones are read.
func TestASequenceContinuesAfterABlobThatFailed(t *testing.T) {
	puts, w, opens := storedTogether(t, "a", strings.Repeat("b", 200_000), "c", "d")
	from := w.Items.InOrder([]items.Blob{puts[0].row, puts[1].row, puts[2].row, puts[3].row})
	defer from.Close()
	for i, p := range puts {
		key := p.key
		if i == 1 {
			key = puts[0].key
		}
		var got bytes.Buffer
		_, err := from.CopyBlob(t.Context(), p.row, key, p.row.Whole(), &got)
		if i == 1 {
			wantCode(t, err, api.Damaged)
		} else if err != nil || got.String() != p.text {
			t.Errorf("blob %d: %q, error %v", i, got.String(), err)
		}
	}
	if n := opens.Count.Load(); n != 1 {
		t.Errorf("%d opens", n)
	}
}
