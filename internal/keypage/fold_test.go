package keypage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// folding is the pages of one parent key, and the page to which each child points.
type folding struct {
	ctx    context.Context
	db     *store.DB
	tenant int64
	parent Parent
	key    *envelope.Key
	keys   map[int64]*envelope.Key // by child
	folds  int                     // transactions that repointed
}

func newFolding(db *store.DB) *folding {
	return &folding{ctx: context.Background(), db: db, tenant: store.NewID(), parent: Parent{ID: store.NewID(), Generation: 3},
		key: envelope.NewKey(), keys: map[int64]*envelope.Key{}}
}

// pointers is a table of children, like those of the packages that fold.
const pointers = `CREATE TABLE IF NOT EXISTS fold_child (id BIGINT PRIMARY KEY, page BIGINT NOT NULL)`

// put adds a page of n new children and returns it.
func (f *folding) put(t testing.TB, class envelope.Class, n int) Row {
	t.Helper()
	row := Row{ID: store.NewID(), Tenant: f.tenant, Parent: f.parent.ID, Generation: f.parent.Generation, Class: class, Version: 1, Count: uint32(n)}
	var slots []envelope.Slot
	var args [][]any
	for range n {
		child := store.NewID()
		f.keys[child] = envelope.NewKey()
		args = append(args, []any{child, row.ID})
		slots = append(slots, envelope.Slot{Child: child, Generation: 1, Key: *f.keys[child]})
	}
	page, err := envelope.NewPage(slots...)
	if err != nil {
		t.Fatal(err)
	}
	if row.Body, err = envelope.SealPage(f.key, row.EncryptionContext(), page); err != nil {
		t.Fatal(err)
	}
	f.write(t, func(tx *store.Tx) error {
		if _, err := tx.Exec(f.ctx, pointers); err != nil {
			return err
		}
		if _, err := tx.ExecMany(f.ctx, `INSERT INTO fold_child VALUES (?1, ?2)`, args); err != nil {
			return err
		}
		return Put(f.ctx, tx, row)
	})
	return row
}

func (f *folding) write(t testing.TB, do func(tx *store.Tx) error) {
	t.Helper()
	if err := f.db.InTx(f.ctx, do); err != nil {
		t.Fatal(err)
	}
}

func (f *folding) fold(class envelope.Class, slots int) (int, error) {
	return Fold(f.ctx, f.db, f.key, Foldable{f.tenant, f.parent, class, slots}, f.repoint)
}

func (f *folding) repoint(ctx context.Context, tx *store.Tx, children []int64, page int64) error {
	f.folds++
	for _, child := range children {
		if _, err := tx.Exec(ctx, `UPDATE fold_child SET page = ?2 WHERE id = ?1`, child, page); err != nil {
			return err
		}
	}
	return nil
}

// points returns the page to which each child points.
func (f *folding) points(t testing.TB) map[int64]int64 {
	t.Helper()
	pages := map[int64]int64{}
	err := f.db.ViewOnce(f.ctx, func(tx *store.Tx) error {
		rows, err := tx.Query(f.ctx, `SELECT id, page FROM fold_child`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var child, page int64
			if err := rows.Scan(&child, &page); err != nil {
				return err
			}
			pages[child] = page
		}
		return rows.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	return pages
}

func (f *folding) rows(t testing.TB, class envelope.Class) (rows []Row) {
	t.Helper()
	err := f.db.ViewOnce(f.ctx, func(tx *store.Tx) (err error) {
		rows, err = Under(f.ctx, tx, f.tenant, []Parent{f.parent}, []envelope.Class{class}, 0, 10_000)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// counts returns the slots of each page, in id order, after checking that
// every child's key occurs once, on the page to which the child points.
func (f *folding) counts(t testing.TB, classes ...envelope.Class) (counts []uint32) {
	t.Helper()
	seen, points := 0, f.points(t)
	for _, class := range classes {
		for _, row := range f.rows(t, class) {
			counts = append(counts, row.Count)
			page, err := envelope.OpenPage(f.key, row.EncryptionContext(), row.Body)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range page.Slots() {
				seen++
				if points[s.Child] != row.ID {
					t.Fatalf("child %d is on page %d and points to %d", s.Child, row.ID, points[s.Child])
				}
				if !s.Key.Equal(f.keys[s.Child]) {
					t.Fatalf("child %d has another key", s.Child)
				}
			}
		}
	}
	if seen != len(f.keys) {
		t.Fatalf("%d keys, want %d", seen, len(f.keys))
	}
	return counts
}

func TestFoldMergesOnlySmallPagesOfOneParentAndClass(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		db.SetForTests(store.ForTests{}) // transactions are counted
		f := newFolding(db)
		for _, n := range []int{1, 1, 7, 2, 4, 5, 1, 8, 3, 4} {
			f.put(t, envelope.ClassActive, n)
		}
		for range 3 {
			f.put(t, envelope.ClassInactive, 1)
		}
		other := newFolding(db) // another tenant, the same parent: its pages are not there
		other.parent = f.parent
		other.put(t, envelope.ClassActive, 1)
		other.put(t, envelope.ClassActive, 1)

		merged, err := f.fold(envelope.ClassActive, 8)
		if err != nil || merged != 5 {
			t.Errorf("merged %d, %v", merged, err)
		}
		// 1+1+2+4 and 1+3+4; 7, 5 and 8 are over half full and stay.
		if got, want := fmt.Sprint(f.counts(t, envelope.ClassActive, envelope.ClassInactive)), "[8 7 5 8 8 1 1 1]"; got != want {
			t.Errorf("pages of %s slots, want %s", got, want)
		}
		if got := fmt.Sprint(other.counts(t, envelope.ClassActive)); got != "[1 1]" {
			t.Errorf("the other tenant's pages: %s", got)
		}
		if again, err := f.fold(envelope.ClassActive, 8); again != 0 || err != nil || f.folds != 2 {
			t.Errorf("a second fold merged %d, %v", again, err)
		}
	})
}

func TestFoldKeepsEachTransactionWithinOnePage(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		db.SetForTests(store.ForTests{}) // transactions are counted
		f := newFolding(db)
		for range 50 {
			f.put(t, envelope.ClassBlob, 1)
		}
		if merged, err := f.fold(envelope.ClassBlob, 1); merged != 0 || err != nil {
			t.Errorf("into pages of one slot: merged %d, %v", merged, err)
		}
		merged, err := f.fold(envelope.ClassBlob, 8)
		if err != nil || merged != 43 || f.folds != 7 {
			t.Errorf("merged %d in %d transactions, %v", merged, f.folds, err)
		}
		if got, want := fmt.Sprint(f.counts(t, envelope.ClassBlob)), "[8 8 8 8 8 8 2]"; got != want {
			t.Errorf("pages of %s slots, want %s", got, want)
		}
	})
}

// TestFoldThatLosesASwapChangesNothing replaces one of the pages between the fold's
// read and its write.
func TestFoldThatLosesASwapChangesNothing(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		for rival := range 3 { // the page that is kept, and those that go
			f := newFolding(db)
			for range 3 {
				f.put(t, envelope.ClassActive, 1)
			}
			merged, err := merge(f.key, f.rows(t, envelope.ClassActive))
			if err != nil {
				t.Fatal(err)
			}
			old := f.rows(t, envelope.ClassActive)[rival]
			moved := old
			moved.Class, moved.Version = envelope.ClassInactive, old.Version+1
			if moved.Body, err = envelope.Reseal(f.key, f.key, old.EncryptionContext(), moved.EncryptionContext(), old.Body); err != nil {
				t.Fatal(err)
			}
			f.write(t, func(tx *store.Tx) error {
				_, err := Swap(f.ctx, tx, []Row{old}, []Row{moved})
				return err
			})
			if err := merged.commit(f.ctx, db, f.repoint); !errors.Is(err, errConflict) {
				t.Errorf("rival %d: %v", rival, err)
			}
			if got := fmt.Sprint(f.counts(t, envelope.ClassActive, envelope.ClassInactive)); got != "[1 1 1]" {
				t.Errorf("rival %d: pages of %s slots", rival, got)
			}
		}
	})
}

func TestDamagedPageDelaysNoOtherPage(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		f := newFolding(db)
		var pages []Row
		for range 5 {
			pages = append(pages, f.put(t, envelope.ClassActive, 1))
		}
		bad := pages[2]
		bad.Body = slices.Clone(bad.Body)
		bad.Body[len(bad.Body)-1] ^= 1
		bad.Version++
		f.write(t, func(tx *store.Tx) error {
			_, err := Swap(f.ctx, tx, []Row{pages[2]}, []Row{bad})
			return err
		})
		merged, err := f.fold(envelope.ClassActive, 8)
		if merged != 3 || !fail.Is(err, api.Damaged) || !strings.Contains(err.Error(), fmt.Sprint(bad.ID)) {
			t.Errorf("merged %d, %v", merged, err)
		}
		rows := f.rows(t, envelope.ClassActive)
		if len(rows) != 2 || rows[0].Count != 4 || rows[1].ID != bad.ID || rows[1].Version != bad.Version {
			t.Errorf("left %v", rows)
		}
	})
}

func TestFoldKilledAtAnyPointLosesNoKey(t *testing.T) {
	errKilled := errors.New("killed")
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		for point, want := range map[string]string{"fold.before-commit": "[1 1 1]", "fold.after-commit": "[3]"} {
			f := newFolding(db)
			for range 3 {
				f.put(t, envelope.ClassActive, 1)
			}
			func() {
				fault.Set(func(name string) {
					if name == point {
						panic(errKilled)
					}
				})
				defer fault.Set(nil)
				defer func() {
					if p := recover(); p != any(errKilled) {
						t.Errorf("%s: %v", point, p)
					}
				}()
				f.fold(envelope.ClassActive, 8)
			}()
			if got := fmt.Sprint(f.counts(t, envelope.ClassActive)); got != want {
				t.Errorf("%s left pages of %s slots, want %s", point, got, want)
			}
		}
	})
}

func TestFoldStopsIfAPointerCannotBeMoved(t *testing.T) {
	errRefused := errors.New("refused")
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		f := newFolding(db)
		for range 3 {
			f.put(t, envelope.ClassActive, 1)
		}
		merged, err := Fold(f.ctx, db, f.key, Foldable{f.tenant, f.parent, envelope.ClassActive, 8}, func(context.Context, *store.Tx, []int64, int64) error { return errRefused })
		if merged != 0 || !errors.Is(err, errRefused) {
			t.Errorf("merged %d, %v", merged, err)
		}
		if got := fmt.Sprint(f.counts(t, envelope.ClassActive)); got != "[1 1 1]" {
			t.Errorf("pages of %s slots", got)
		}
	})
}

func TestAnyPagesFoldToTheSameKeys(t *testing.T) {
	db := storetest.One(t)
	rapid.Check(t, func(r *rapid.T) {
		f := newFolding(db)
		slots := rapid.IntRange(1, 12).Draw(r, "slots")
		for _, n := range rapid.SliceOfN(rapid.IntRange(1, slots), 1, 20).Draw(r, "pages") {
			f.put(t, envelope.ClassActive, n)
		}
		before := len(f.rows(t, envelope.ClassActive))
		merged, err := f.fold(envelope.ClassActive, slots)
		if err != nil {
			r.Fatal(err)
		}
		counts := f.counts(t, envelope.ClassActive)
		small := 0
		for _, n := range counts {
			if int(n) > slots {
				r.Fatalf("a page of %d slots", n)
			}
			if int(n) <= slots/2 {
				small++
			}
		}
		if small > 1 || merged != before-len(counts) {
			r.Fatalf("pages of %v slots left, %d merged of %d", counts, merged, before)
		}
	})
}
