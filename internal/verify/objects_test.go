package verify_test

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"keyroll/internal/content/contenttest"
	"keyroll/internal/items"
)

// object is an object that holds every blob of a tenant.
type object struct {
	name  string
	bytes []byte
	blobs []items.Blob           // in the order of their places, each once
	items map[int64][]items.Blob // the rows of each blob: those of copies of its item too
}

// combined stores more messages and files, makes a backup, and moves all blobs of the tenant
// into one object.
func (w tenant) combined() (o object) {
	w.Helper()
	for _, box := range w.boxes {
		w.Import(box, contenttest.Message(10)+contenttest.Message(100)+contenttest.Message(1000))
	}
	site := w.Site("b")
	for _, text := range []string{"", "one", strings.Repeat("two", 1000)} {
		_, err := w.Contents.Put(w.Ctx, site, fmt.Sprint(len(text)), -1, strings.NewReader(text))
		w.Must(err)
	}
	w.backup()
	for range 2 { // the blobs of objects, and those that had an object of their own
		_, err := w.Contents.Compactor.Run(w.Ctx)
		w.Must(err)
	}

	id := w.Number(`SELECT MAX(object) FROM blob`)
	o.items = map[int64][]items.Blob{}
	var rows int64
	w.Must(w.Contents.Items.InObjects(w.Ctx, []int64{id}, func(b items.Blob) {
		if o.items[b.ID] == nil {
			o.blobs = append(o.blobs, b)
		}
		o.items[b.ID] = append(o.items[b.ID], b)
		rows++
	}))
	slices.SortFunc(o.blobs, items.Blob.ComparePlace)
	if all := w.Number(`SELECT COUNT(*) FROM blob`); rows != all || len(o.blobs) != 12 || rows == int64(len(o.blobs)) {
		w.Fatalf("the object has %d blobs of %d rows, and there are %d rows", len(o.blobs), rows, all)
	}
	w.Must(w.Blobs.List(w.Ctx, "", func(name string, _ int64) error {
		if strings.HasSuffix(name, fmt.Sprintf("/%016x", id)) {
			o.name = name
		}
		return nil
	}))
	r, err := w.Blobs.GetRange(w.Ctx, o.name, 0, -1)
	w.Must(err)
	defer r.Close()
	o.bytes, err = io.ReadAll(r)
	w.Must(err)
	return o
}

// replace gives the object other bytes; with nil it is missing.
func (w tenant) replace(o object, by []byte) {
	w.Helper()
	w.Must(w.Blobs.Delete(w.Ctx, o.name))
	if by != nil {
		_, err := w.Blobs.PutIfAbsent(w.Ctx, o.name, bytes.NewReader(by))
		w.Must(err)
	}
}

// flip returns the object's bytes with one byte changed in each of some blobs: the first, the
// middle or the last one of the blob.
func (o object) flip(which position, blobs ...int) []byte {
	changed := slices.Clone(o.bytes)
	for _, i := range blobs {
		b := o.blobs[i]
		changed[b.At+(b.SealedSize()-1)*int64(which)/2] ^= 1
	}
	return changed
}

// position is a place in a blob, in halves of it.
type position int64

const (
	first position = iota
	middle
	final
)

// Messages of two mailboxes, files and a backup share an object. Its damage is reported for
// each item of the blobs that it affects, and for no other one.
func TestDamageOfASharedObjectNamesExactlyTheItemsThatItAffects(t *testing.T) {
	each(t, func(w tenant) {
		o := w.combined()
		sound := w.verify(0)
		if len(sound.Damaged)+len(sound.Closed) != 0 {
			t.Fatalf("%+v", sound)
		}
		all := make([]int, len(o.blobs))
		for i := range all {
			all[i] = i
		}
		last := len(all) - 1
		for name, c := range map[string]struct {
			bytes []byte
			hurt  []int // of the blobs
			says  string
		}{
			"cut within a blob":              {o.bytes[:o.blobs[4].At+10], all[4:], "is truncated"},
			"cut between blobs":              {o.bytes[:o.blobs[7].At], all[7:], "is truncated: it has 0 of"},
			"cut by a byte":                  {o.bytes[:len(o.bytes)-1], all[last:], "is truncated"},
			"empty":                          {o.bytes[:0], all, "is truncated: it has 0 of"},
			"missing":                        {nil, all, "is missing from the blob store"},
			"the first byte of a blob":       {o.flip(first, 5), []int{5}, ""},
			"a byte of a blob":               {o.flip(middle, 2), []int{2}, ""},
			"the last byte of a blob":        {o.flip(final, 6), []int{6}, ""},
			"a byte of the first blob":       {o.flip(middle, 0), []int{0}, ""},
			"a byte of the last blob":        {o.flip(middle, last), []int{last}, ""},
			"a byte of each of some":         {o.flip(middle, 1, 4, 5, 9), []int{1, 4, 5, 9}, ""},
			"the last byte of each of some":  {o.flip(final, 0, 3, 8, last), []int{0, 3, 8, last}, ""},
			"the first byte of every second": {o.flip(first, 0, 2, 4, 6, 8, 10), []int{0, 2, 4, 6, 8, 10}, ""},
			"a byte of each":                 {o.flip(middle, all...), all, ""},
		} {
			w.replace(o, c.bytes)
			blobOf := map[string]int64{} // by the item of a row
			for _, i := range c.hurt {
				for _, row := range o.items[o.blobs[i].ID] {
					blobOf[fmt.Sprint(row.Item)] = row.ID
				}
			}
			report := w.verify(0)
			if report.Items != sound.Items-int64(len(blobOf)) || report.Containers != sound.Containers || len(report.Damaged) != len(blobOf) || len(report.Closed) != 0 {
				t.Errorf("%s: %+v, want %d items that are damaged of %d", name, report, len(blobOf), sound.Items)
			}
			for _, f := range report.Damaged {
				blob, hurt := blobOf[f.ID]
				delete(blobOf, f.ID)
				if f.Kind != "item" || !hurt || !strings.Contains(f.Detail, fmt.Sprintf("blob %d", blob)) || !strings.Contains(f.Detail, c.says) {
					t.Errorf("%s: found %+v", name, f)
				}
			}
			if len(blobOf) > 0 {
				t.Errorf("%s: items that are not named: %v", name, blobOf)
			}
		}
		w.replace(o, o.bytes)
		if again := w.verify(0); again.Items != sound.Items || len(again.Damaged) != 0 {
			t.Errorf("the object is whole again: %+v", again)
		}
	})
}
