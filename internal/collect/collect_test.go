package collect_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"keyroll/api"
	"keyroll/internal/blob"
	"keyroll/internal/collect"
	"keyroll/internal/content/contenttest"
	"keyroll/internal/longtest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// blobNameOf returns the name of a blob of a tenant.
func blobNameOf(tenant, id int64) string {
	return fmt.Sprintf("%x/%04x/%03x/%016x", tenant, id>>48, id>>36&0xfff, id)
}

func orphan(t testing.TB, w *fixture, name string) string {
	t.Helper()
	must(t, errorOf(w.Blobs.PutIfAbsent(context.Background(), name, strings.NewReader("orphan"))))
	return name
}

func TestACollectionDeletesOnlyOldOrphansOfItsTenant(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		w.MustImport(t, "From a@b Thu Jan  1 00:00:00 1970\nSubject: x\n\nhello\n")
		w.MustPut(t, "a", strings.Repeat("a", 3*blobSize))
		w.MustPut(t, "b", "replaced")
		b := w.MustBackup(t, w.Site)
		w.MustPut(t, "b", "new")
		reader, err := w.Open(t.Context(), w.Site, "b")
		must(t, err)
		w.MustPut(t, "b", "newer") // what the reader reads is dropped and stays
		before := w.BlobNames(t)
		yesterday := store.IDFrom(time.Now().Add(-24 * time.Hour))
		old := orphan(t, w, blobNameOf(tenant, yesterday))
		kept := []string{
			orphan(t, w, blobNameOf(tenant, store.IDFrom(time.Now().Add(-time.Hour)))),
			orphan(t, w, blobNameOf(tenant+1, yesterday)),
			orphan(t, w, fmt.Sprintf("%x/%x", tenant, yesterday)), // no name of keyroll's
		}
		collect := func(dry bool) collect.Collected {
			c, err := w.Collect(t.Context(), 2*time.Hour, dry)
			must(t, err)
			reported := collect.Collected{}
			must(t, c.Tenant(t.Context(), tenant, func(c collect.Collected) { reported = c }))
			must(t, c.End(t.Context()))
			reported.Removed = c.Removed
			if reported != c.Collected || reported.Blobs != int64(len(before))+2 || reported.Orphans != 1 || reported.OrphanBytes != 6 || reported.Bytes < 3*blobSize {
				t.Errorf("dry run %v: %+v, reported %+v", dry, c.Collected, reported)
			}
			return reported
		}
		if c := collect(true); c.Removed != 0 {
			t.Errorf("a dry run removed %d", c.Removed)
		}
		must(t, errorOf(w.Blobs.Stat(t.Context(), old)))
		if c := collect(false); c.Removed != 1 {
			t.Errorf("%d removed", c.Removed)
		}
		wantCode(t, errorOf(w.Blobs.Stat(t.Context(), old)), api.NotFound)
		for _, name := range append(before, kept...) {
			must(t, errorOf(w.Blobs.Stat(t.Context(), name)))
		}
		if c := w.MustCollect(t, 0); c.Removed != 1 {
			t.Errorf("%d removed without a grace", c.Removed)
		}
		var read strings.Builder
		must(t, reader.WriteRange(t.Context(), 0, -1, &read))
		must(t, reader.Close())
		if got := w.FilesOf(t, b.Container)["b"]; read.String() != "new" || got != "replaced" || w.MustGet(t, "b") != "newer" {
			t.Errorf("read %q, in the backup %q", read.String(), got)
		}
	})
}

// A collection runs during an upload: with enough grace the upload continues, without
// it the upload fails and the path keeps the previous file.
func TestAnUploadWhoseBlobWasCollectedFails(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		w.MustPut(t, "a", "before")
		during := func(grace time.Duration) io.Reader {
			return io.MultiReader(contenttest.ZeroBytes(blobSize+1), contenttest.ReaderFunc(func([]byte) (int, error) {
				w.MustCollect(t, grace)
				return 0, io.EOF
			}))
		}
		wantCode(t, errorOf(w.Put(t.Context(), w.Site, "a", -1, during(0))), api.Conflict)
		if got := w.MustGet(t, "a"); got != "before" {
			t.Errorf("the file is %q", got)
		}
		must(t, errorOf(w.Put(t.Context(), w.Site, "a", -1, during(time.Hour))))
		if got := w.MustGet(t, "a"); len(got) != blobSize+1 {
			t.Errorf("the file has %d bytes", len(got))
		}
		c, err := w.Collect(t.Context(), 2*time.Hour, false) // does not lower the fence
		must(t, err)
		must(t, c.Tenant(t.Context(), tenant, nil))
		must(t, c.End(t.Context()))
		wantCode(t, errorOf(w.Put(t.Context(), w.Site, "a", -1, during(0))), api.Conflict)
		w.WantHealthy(t, true)
		wantCode(t, errorOf(w.Collect(t.Context(), -1, false)), api.InvalidArgument)
	})
}

// hooked calls a function before and after each operation of a blob store.
type hooked struct {
	blob.Store
	putting, collecting func()
}

func (h *hooked) PutIfAbsent(ctx context.Context, name string, r io.Reader) (int64, error) {
	h.putting()
	defer h.putting()
	return h.Store.PutIfAbsent(ctx, name, r)
}

func (h *hooked) Batch() blob.Batch { return hookedBatch{h.Store.Batch(), h} }

type hookedBatch struct {
	blob.Batch
	h *hooked
}

func (b hookedBatch) Commit(ctx context.Context) error {
	b.h.putting()
	defer b.h.putting()
	return b.Batch.Commit(ctx)
}

func (h *hooked) Delete(ctx context.Context, name string) error {
	h.collecting()
	defer h.collecting()
	return h.Store.Delete(ctx, name)
}

func (h *hooked) List(ctx context.Context, prefix string, each func(name string, size int64) error) error {
	defer h.collecting()
	return h.Store.List(ctx, prefix, func(name string, size int64) error {
		h.collecting()
		return each(name, size)
	})
}

// race is a site and its backups. Collections begin at any moment of an act on them,
// and acts at any moment of a collection.
type race struct {
	*fixture
	other   contenttest.Contents // another node: one puts small files one after the other
	t       testing.TB
	site    map[string]string
	backups []map[string]string // by their order
	made    int
	refused int

	plan                  []int // what happens at each moment, from a draw
	moment                int
	left                  int        // things that may still happen: each makes moments for others
	one                   sync.Mutex // of the plan
	inPut, inCollect      sync.Mutex
	collected, collected0 int
	moved                 int64
}

// next returns what the plan does at this moment.
func (r *race) next(n int) int {
	r.one.Lock()
	defer r.one.Unlock()
	r.moment++
	return r.plan[r.moment%len(r.plan)] % n
}

// mayHappen reports whether one more thing may happen.
func (r *race) mayHappen() bool {
	r.one.Lock()
	defer r.one.Unlock()
	r.left--
	return r.left >= 0
}

func (r *race) putting() {
	if !r.inPut.TryLock() {
		return
	}
	defer r.inPut.Unlock()
	what := r.next(5)
	if what > 2 || !r.mayHappen() {
		return
	}
	switch what {
	case 0:
		r.MustCollect(r.t, 0)
		r.collected0++
	case 1:
		r.MustCollect(r.t, time.Hour)
		r.collected++
	case 2:
		r.moved += r.MustCompact(r.t).Blobs
	}
}

func (r *race) collecting() {
	if !r.inCollect.TryLock() {
		return
	}
	defer r.inCollect.Unlock()
	if r.next(3) == 0 && r.mayHappen() {
		r.act(r.other)
	}
}

// act does something to the site, and puts files through by; a collection may refuse it.
func (r *race) act(by contenttest.Contents) {
	ctx := context.Background()
	switch r.next(4) {
	case 0, 1:
		r.made++
		path, text := []string{"a", "b"}[r.next(2)], contenttest.RandomContent(r.made, []int{10, blobSize + 1}[r.next(2)])
		err := errorOf(by.Put(ctx, r.fixture.Site, path, -1, strings.NewReader(text), func(*store.Tx) error {
			r.site[path] = text // before the next thing happens
			return nil
		}))
		if err != nil {
			wantCode(r.t, err, api.Conflict)
			r.refused++
		}
	case 2:
		files := maps.Clone(r.site)
		r.MustBackup(r.t, r.fixture.Site)
		r.backups = append(r.backups, files)
	case 3:
		if len(r.backups) > 0 {
			r.MustExpire(r.t, r.AllBackups(r.t)[0])
			r.backups = r.backups[1:]
		}
	}
}

// TestNoCollectionDeletesABlobInUse compares the content read with the content put.
func TestNoCollectionDeletesABlobInUse(t *testing.T) {
	contenttest.FewChecks(t, longtest.Of(3, 30))
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newFixture(t, db)
		r := &race{fixture: w, t: t, site: map[string]string{}}
		blobs := &hooked{w.Blobs, r.putting, r.collecting}
		w.Contents, r.other = w.Connect(blobs), w.Connect(blobs)
		rapid.Check(t, func(draw *rapid.T) {
			r.plan = rapid.SliceOfN(rapid.IntRange(0, 11), 24, 24).Draw(draw, "plan")
			for range 4 {
				r.left = 20
				r.act(r.Contents)
				r.moved += r.MustCompact(t).Blobs
				r.TidyUp(t)
				if got := r.FilesOf(t, r.fixture.Site); !maps.Equal(got, r.site) {
					t.Fatalf("%d files, not %d, or others", len(got), len(r.site))
				}
				for i, b := range r.AllBackups(t) {
					if got := r.FilesOf(t, b.Container); !maps.Equal(got, r.backups[i]) {
						t.Fatalf("backup %d has %d files, not %d, or others", i, len(got), len(r.backups[i]))
					}
				}
			}
		})
		r.inPut.Lock() // no more
		r.inCollect.Lock()
		r.TidyUp(t)
		r.MustCollect(t, 0)
		r.WantExactRows(t)
		t.Logf("%d files put, %d refused; %d collections, %d more with grace; %d blobs moved", r.made, r.refused, r.collected0, r.collected, r.moved)
	})
}

// Rows are written and not yet committed when a collection begins: it sets its fence
// only after their commit.
func TestACollectionWaitsForUncommittedRows(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		collected := make(chan collect.Collected, 1)
		collect := sync.OnceFunc(func() { go func() { collected <- w.MustCollect(t, 0) }() })
		waits := func() (is bool) {
			must(t, w.DB.ViewOnce(t.Context(), func(tx *store.Tx) error {
				return tx.QueryRow(t.Context(), `SELECT COUNT(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
					AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`).Scan(&is)
			}))
			return is
		}
		must(t, errorOf(w.Put(t.Context(), w.Site, "a", -1, strings.NewReader("content"), func(*store.Tx) error {
			collect() // which then waits, though the first run of this transaction is rolled back
			// On SQLite there is only one writer at a time, which acts as the lock.
			for strings.HasSuffix(t.Name(), "/postgres") && len(collected) == 0 && !waits() {
			}
			return nil
		})))
		if c := <-collected; c.Blobs != 1 || c.Removed != 0 || w.MustGet(t, "a") != "content" {
			t.Errorf("%+v", c)
		}
	})
}
