package keypage_test

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/keypage"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

const tenant, otherTenant = 1, 2

func page(id int64) keypage.Row {
	return keypage.Row{ID: id, Tenant: tenant, Parent: 10, Generation: 1, Class: envelope.ClassActive, Version: 1, Count: 3, Body: []byte{byte(id), 0, 255}}
}

// successor returns the page's next version, under the next parent.
func successor(r keypage.Row) keypage.Row {
	r.Parent, r.Generation, r.Class, r.Version, r.Count = r.Parent+1, r.Generation+1, envelope.ClassInactive, r.Version+1, r.Count+1
	r.Body = append(slices.Clone(r.Body), 1)
	return r
}

func equalRows(a, b keypage.Row) bool {
	return a.EncryptionContext() == b.EncryptionContext() && bytes.Equal(a.Body, b.Body)
}

func inTx(t rapid.TB, db *store.DB, fn func(ctx context.Context, tx *store.Tx) error) {
	t.Helper()
	ctx := context.Background()
	if err := db.InTx(ctx, func(tx *store.Tx) error { return fn(ctx, tx) }); err != nil {
		t.Fatal(err)
	}
}

func put(t rapid.TB, db *store.DB, rows ...keypage.Row) {
	t.Helper()
	inTx(t, db, func(ctx context.Context, tx *store.Tx) error { return keypage.Put(ctx, tx, rows...) })
}

func get(t *testing.T, db *store.DB, id int64) (row keypage.Row) {
	t.Helper()
	inTx(t, db, func(ctx context.Context, tx *store.Tx) (err error) {
		row, err = keypage.Get(ctx, tx, tenant, id)
		return err
	})
	return row
}

func swap(t *testing.T, db *store.DB, olds, news []keypage.Row) (swapped []bool) {
	t.Helper()
	inTx(t, db, func(ctx context.Context, tx *store.Tx) (err error) {
		swapped, err = keypage.Swap(ctx, tx, olds, news)
		return err
	})
	return swapped
}

func TestStoredPageIsReadUnchanged(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		put(t, db, page(1), page(2))
		for id := range int64(2) {
			if got := get(t, db, id+1); !equalRows(got, page(id+1)) {
				t.Errorf("page %d came back as %+v", id+1, got)
			}
		}
		err := db.ViewOnce(t.Context(), func(tx *store.Tx) error {
			_, err := keypage.Get(t.Context(), tx, tenant, 3)
			return err
		})
		if !fail.Is(err, api.NotFound) {
			t.Errorf("a page that is not there: %v", err)
		}
		late := page(4)
		late.Version = 2
		if err := db.InTx(t.Context(), func(tx *store.Tx) error { return keypage.Put(t.Context(), tx, late) }); err == nil {
			t.Error("a new page of version 2 was taken")
		}
	})
}

func TestStaleSwapAndDeleteChangeNothing(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		first, second := page(1), page(2)
		put(t, db, first, second)
		if got := swap(t, db, []keypage.Row{first}, []keypage.Row{successor(first)}); !slices.Equal(got, []bool{true}) {
			t.Fatalf("first swap: %v", got)
		}
		other := successor(first)
		other.Body = []byte("another node's")
		got := swap(t, db, []keypage.Row{first, second}, []keypage.Row{other, successor(second)})
		if !slices.Equal(got, []bool{false, true}) {
			t.Errorf("swaps of a stale and a current page: %v", got)
		}
		if !equalRows(get(t, db, 1), successor(first)) || !equalRows(get(t, db, 2), successor(second)) {
			t.Error("a stale swap was written or a current one was not")
		}
		inTx(t, db, func(ctx context.Context, tx *store.Tx) error {
			gone, err := keypage.Delete(ctx, tx, first, successor(second))
			if !slices.Equal(gone, []bool{false, true}) {
				t.Errorf("deletes of a stale and a current page: %v", gone)
			}
			if _, err := keypage.Get(ctx, tx, tenant, 2); !fail.Is(err, api.NotFound) {
				t.Errorf("a deleted page: %v", err)
			}
			return err
		})
		if !equalRows(get(t, db, 1), successor(first)) {
			t.Error("a stale delete was done")
		}
	})
}

func TestSwapRefusesRowsThatAreNotTheNextVersion(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		put(t, db, page(1), page(2))
		for name, change := range map[string]func(*keypage.Row){
			"id":      func(r *keypage.Row) { r.ID = 2 },
			"tenant":  func(r *keypage.Row) { r.Tenant = otherTenant },
			"version": func(r *keypage.Row) { r.Version = 3 },
		} {
			next := successor(page(1))
			change(&next)
			err := db.InTx(t.Context(), func(tx *store.Tx) error {
				_, err := keypage.Swap(t.Context(), tx, []keypage.Row{page(1)}, []keypage.Row{next})
				return err
			})
			if err == nil {
				t.Errorf("a swap that changes the %s otherwise was taken", name)
			}
		}
		if !equalRows(get(t, db, 1), page(1)) || !equalRows(get(t, db, 2), page(2)) {
			t.Error("a refused swap was written")
		}
	})
}

func TestOfConcurrentSwappersOneWinsEachPage(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		const pages, swappers, rounds = 16, 4, 5
		rows := make([]keypage.Row, pages)
		for i := range rows {
			rows[i] = page(int64(i + 1))
		}
		put(t, db, rows...)
		for range rounds {
			won := make([][]bool, swappers) // by page id
			news := make([][]keypage.Row, swappers)
			var all sync.WaitGroup
			for s := range swappers {
				olds := slices.Clone(rows)
				if s%2 == 1 { // against the others' order: deadlocks on PostgreSQL are run again
					slices.Reverse(olds)
				}
				for _, old := range olds {
					next := successor(old)
					next.Body = []byte{byte(s)}
					news[s] = append(news[s], next)
				}
				all.Go(func() { won[s] = swap(t, db, olds, news[s]) })
			}
			all.Wait()
			if t.Failed() {
				return
			}
			for i := range rows {
				winners := 0
				for s := range swappers {
					at := i
					if s%2 == 1 {
						at = pages - 1 - i
					}
					if won[s][at] {
						winners++
						rows[i] = news[s][at]
					}
				}
				if winners != 1 {
					t.Fatalf("page %d was won by %d swappers", i+1, winners)
				}
				if got := get(t, db, rows[i].ID); !equalRows(got, rows[i]) {
					t.Fatalf("page %d is not its winner's: %+v", i+1, got)
				}
			}
		}
	})
}

func TestPagesOfAnotherTenantAreNotFound(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		put(t, db, page(1))
		asOther := page(1)
		asOther.Tenant = otherTenant
		if got := swap(t, db, []keypage.Row{asOther}, []keypage.Row{successor(asOther)}); got[0] {
			t.Error("another tenant swapped the page")
		}
		inTx(t, db, func(ctx context.Context, tx *store.Tx) error {
			if _, err := keypage.Get(ctx, tx, otherTenant, 1); !fail.Is(err, api.NotFound) {
				t.Errorf("another tenant's Get: %v", err)
			}
			if gone, err := keypage.Delete(ctx, tx, asOther); err != nil || gone[0] {
				t.Errorf("another tenant's Delete: %v, %v", gone, err)
			}
			parents, classes := []keypage.Parent{{ID: 10, Generation: 1}}, []envelope.Class{envelope.ClassActive}
			if rows, err := keypage.Under(ctx, tx, otherTenant, parents, classes, 0, 10); err != nil || len(rows) != 0 {
				t.Errorf("another tenant's Under: %d pages, %v", len(rows), err)
			}
			if pages, keys, err := keypage.Count(ctx, tx, otherTenant, parents, classes); err != nil || pages+keys != 0 {
				t.Errorf("another tenant's Count: %d pages, %d keys, %v", pages, keys, err)
			}
			sums, err := keypage.Usage(ctx, tx, otherTenant)
			if len(sums) != 0 {
				t.Errorf("another tenant's Usage: %v", sums)
			}
			return err
		})
		if !equalRows(get(t, db, 1), page(1)) {
			t.Error("another tenant changed the page")
		}
	})
}

// The table holds random pages of two tenants, some of them swapped; Under,
// Count and Usage agree with a walk over a slice for any question.
func TestUnderCountAndUsageAgreeWithAModel(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		var buffer keypage.Buffer
		rapid.Check(t, func(t *rapid.T) {
			inTx(t, db, func(ctx context.Context, tx *store.Tx) error {
				_, err := tx.Exec(ctx, "DELETE FROM key_page")
				return err
			})
			parent := rapid.Int64Range(1, 3)
			generation := rapid.Uint32Range(1, 2)
			class := rapid.Custom(func(t *rapid.T) envelope.Class {
				return envelope.Class(rapid.Uint8Range(uint8(envelope.ClassActive), uint8(envelope.ClassBlob)).Draw(t, "class"))
			})
			model := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) keypage.Row {
				r := page(rapid.Int64Range(1, 200).Draw(t, "id"))
				r.Tenant = rapid.Int64Range(tenant, otherTenant).Draw(t, "tenant")
				r.Parent, r.Generation, r.Class = parent.Draw(t, "parent"), generation.Draw(t, "generation"), class.Draw(t, "class")
				r.Count = rapid.Uint32Range(1, 1024).Draw(t, "count")
				return r
			}), 0, 60, func(r keypage.Row) int64 { return r.ID }).Draw(t, "pages")
			put(t, db, model...)
			was := slices.Clone(model)
			for i := range model {
				if rapid.Bool().Draw(t, "move") {
					model[i] = successor(model[i])
				}
			}
			inTx(t, db, func(ctx context.Context, tx *store.Tx) error {
				for i := range model {
					if model[i].Version == was[i].Version {
						continue
					}
					if _, err := keypage.Swap(ctx, tx, was[i:i+1], model[i:i+1]); err != nil {
						return err
					}
				}
				return nil
			})
			slices.SortFunc(model, func(a, b keypage.Row) int { return cmp.Compare(a.ID, b.ID) })

			parents := rapid.SliceOf(rapid.Custom(func(t *rapid.T) keypage.Parent {
				return keypage.Parent{ID: parent.Draw(t, "parent"), Generation: generation.Draw(t, "generation")}
			})).Draw(t, "parents")
			classes := rapid.SliceOf(class).Draw(t, "classes")
			apart := rapid.SliceOfDistinct(rapid.SampledFrom(append(parents, keypage.Parent{ID: 4, Generation: 1})), rapid.ID).Draw(t, "different parents")
			after, limit := rapid.Int64Range(0, 201).Draw(t, "after"), rapid.IntRange(1, 20).Draw(t, "limit")

			var under, standing []keypage.Row
			var pages, keys int64
			usage := make(map[keypage.Sum]keypage.Sum) // by parent, generation, class alone
			for _, r := range model {
				if r.Tenant != tenant {
					continue
				}
				if slices.Contains(parents, keypage.Parent{ID: r.Parent, Generation: r.Generation}) && slices.Contains(classes, r.Class) {
					pages, keys = pages+1, keys+int64(r.Count)
					if r.ID > after && len(under) < limit {
						under = append(under, r)
					}
				}
				if slices.Contains(apart, keypage.Parent{ID: r.Parent, Generation: r.Generation}) && r.Class == envelope.ClassBlob {
					standing = append(standing, r)
				}
				if r.Class != envelope.ClassBlob {
					key := keypage.Sum{Parent: r.Parent, Generation: r.Generation, Class: r.Class}
					sum := key
					sum.Pages, sum.Keys = usage[key].Pages+1, usage[key].Keys+int64(r.Count)
					usage[key] = sum
				}
			}
			ctx := context.Background()
			err := db.ViewOnce(ctx, func(tx *store.Tx) error {
				gotUnder, err := keypage.Under(ctx, tx, tenant, parents, classes, after, limit)
				if err != nil {
					return err
				}
				if !slices.EqualFunc(gotUnder, under, equalRows) {
					t.Errorf("Under: %v, want %v", gotUnder, under)
				}
				if gotUnder, err = buffer.Under(ctx, tx, tenant, parents, classes, after, limit); err != nil {
					return err
				}
				if !slices.EqualFunc(gotUnder, under, equalRows) {
					t.Errorf("Under of a buffer: %v, want %v", gotUnder, under)
				}
				gotPages, gotKeys, err := keypage.Count(ctx, tx, tenant, parents, classes)
				if err != nil {
					return err
				}
				if gotPages != pages || gotKeys != keys {
					t.Errorf("Count: %d pages, %d keys, want %d, %d", gotPages, gotKeys, pages, keys)
				}
				gotParents, err := keypage.WithPages(ctx, tx, tenant, apart, classes)
				if err != nil {
					return err
				}
				if wantParents := slices.DeleteFunc(slices.Clone(apart), func(p keypage.Parent) bool {
					return !slices.ContainsFunc(model, func(r keypage.Row) bool {
						return r.Tenant == tenant && r.Parent == p.ID && r.Generation == p.Generation && slices.Contains(classes, r.Class)
					})
				}); !slices.Equal(gotParents, wantParents) {
					t.Errorf("WithPages: %v, want %v", gotParents, wantParents)
				}
				located, err := keypage.Locate(ctx, tx, tenant, envelope.ClassBlob, apart)
				if err != nil {
					return err
				}
				ids := []int64{201} // nothing has it
				for _, at := range located {
					ids = append(ids, at.ID)
				}
				gotStanding, err := keypage.GetAll(ctx, tx, tenant, ids)
				if err != nil {
					return err
				}
				parentOf := func(at keypage.Location, r keypage.Row) bool { return at.Parent == r.Parent }
				if !slices.EqualFunc(gotStanding, standing, equalRows) || !slices.EqualFunc(located, standing, parentOf) {
					t.Errorf("Locate and GetAll: %v, %v, want %v", located, gotStanding, standing)
				}
				sums, err := keypage.Usage(ctx, tx, tenant)
				if len(sums) != len(usage) {
					t.Errorf("Usage: %v, want %v", sums, usage)
				}
				for _, sum := range sums {
					if sum != usage[keypage.Sum{Parent: sum.Parent, Generation: sum.Generation, Class: sum.Class}] {
						t.Errorf("Usage: %v, want %v", sums, usage)
					}
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	})
}

// A policy that was rolled often has more older keys than one statement can have terms.
func TestUnderAndCountTakeAnyNumberOfParents(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		const parents = 350
		var rows []keypage.Row
		var asked []keypage.Parent
		for i := range int64(parents) {
			r := page(parents - i) // ids descend as parents ascend
			r.Parent = 1000 + i
			rows = append(rows, r)
			asked = append(asked, keypage.Parent{ID: r.Parent, Generation: 1})
		}
		put(t, db, rows...)
		inTx(t, db, func(ctx context.Context, tx *store.Tx) error {
			var after int64
			for after < parents {
				got, err := keypage.Under(ctx, tx, tenant, asked, []envelope.Class{envelope.ClassActive}, after, 100)
				if err != nil {
					return err
				}
				if len(got) != int(min(100, parents-after)) {
					t.Fatalf("%d pages after %d", len(got), after)
				}
				for _, r := range got {
					if after++; r.ID != after {
						t.Fatalf("page %d where %d belongs", r.ID, after)
					}
				}
			}
			located, err := keypage.Locate(ctx, tx, tenant, envelope.ClassActive, asked)
			if len(located) != parents || err != nil {
				t.Errorf("Locate: %d pages, %v", len(located), err)
			}
			pages, keys, err := keypage.Count(ctx, tx, tenant, asked, []envelope.Class{envelope.ClassActive})
			if pages != parents || keys != 3*parents {
				t.Errorf("Count: %d pages, %d keys", pages, keys)
			}
			return err
		})
	})
}
