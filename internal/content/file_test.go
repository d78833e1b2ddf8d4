package content_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"keyroll/api"
	"keyroll/internal/blob"
	"keyroll/internal/container"
	"keyroll/internal/content"
	"keyroll/internal/content/contenttest"
	"keyroll/internal/items"
	"keyroll/internal/mbox/mboxtest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

func TestFilesOfAnySizeAreReadWholeAndByRange(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		for _, size := range []int{0, 1, blobSize - 1, blobSize, blobSize + 1, 3 * blobSize, 10*blobSize + 17} {
			path, want := fmt.Sprintf("dir/file %d", size), contenttest.RandomContent(size, size)
			if f := w.MustPut(t, path, want); f.Path != path || f.Size != int64(size) {
				t.Errorf("put %d: %+v", size, f)
			}
			if w.MustGet(t, path) != want {
				t.Errorf("%d bytes did not come back", size)
			}
			for _, r := range [][2]int{{0, 0}, {0, 1}, {size / 2, 1}, {size - 1, 5}, {blobSize - 1, 2}, {blobSize, blobSize}, {size / 3, size / 2}, {1, -1}} {
				if r[0] < 0 || r[0] >= size {
					continue
				}
				part := want[r[0]:]
				if r[1] >= 0 {
					part = part[:min(r[1], len(part))]
				}
				var got bytes.Buffer
				must(t, w.Get(t.Context(), w.Site, path, int64(r[0]), int64(r[1]), &got))
				if got.String() != part {
					t.Errorf("range %v of %d bytes is wrong", r, size)
				}
			}
			for _, off := range []int64{-1, max(int64(size), 1), int64(size) + 1} {
				wantCode(t, w.Get(t.Context(), w.Site, path, off, -1, io.Discard), api.RangeNotSatisfiable)
			}
		}
		w.WantHealthy(t, true)
	})
}

func TestARangeOpensOnlyTheBlobsItNeeds(t *testing.T) {
	w := newFixture(t, storetest.One(t))
	want := contenttest.RandomContent(1, 5*blobSize)
	w.MustPut(t, "file", want)
	names := w.BlobNames(t)
	slices.Sort(names) // ids grow
	for i, name := range names {
		if i != 2 {
			must(t, w.Blobs.Delete(t.Context(), name))
		}
	}
	var got bytes.Buffer
	must(t, w.Get(t.Context(), w.Site, "file", 2*blobSize+10, blobSize-10, &got))
	if got.String() != want[2*blobSize+10:3*blobSize] {
		t.Error("the range is wrong")
	}
	wantCode(t, w.Get(t.Context(), w.Site, "file", 2*blobSize+10, blobSize, io.Discard), api.Damaged)
}

// Any sequence of puts and folds leaves exactly the last file at each path.
func TestASiteHoldsTheLastVersionOfEachFile(t *testing.T) {
	w := newFixture(t, storetest.One(t))
	const blobSize = 1000
	w.Sizes = items.Sizes{Blob: blobSize, Batch: 4, Part: 4}
	w.Reopen(t)
	rapid.Check(t, func(rt *rapid.T) {
		w.Site = w.MustCreate(t, container.Site, fmt.Sprintf("https://contoso.sharepoint.com/%d", store.NewID()))
		want := make(map[string]string)
		for i := range rapid.IntRange(1, 6).Draw(rt, "puts") {
			path := rapid.SampledFrom([]string{"a", "a/b", "c é"}).Draw(rt, "path")
			want[path] = contenttest.RandomContent(i, rapid.SampledFrom([]int{0, 10, blobSize, 4*blobSize + 1}).Draw(rt, "size"))
			w.MustPut(t, path, want[path])
			if rapid.IntRange(0, 3).Draw(rt, "fold") == 0 {
				_, err := w.Renewer.Fold(t.Context(), w.Site)
				must(t, err)
			}
		}
		list, err := w.Files(t.Context(), w.Site)
		must(t, err)
		if len(list) != len(want) || !slices.IsSortedFunc(list, func(a, b content.File) int { return strings.Compare(a.Path, b.Path) }) {
			rt.Fatalf("files %v, want %d", list, len(want))
		}
		for _, f := range list {
			if got := w.MustGet(t, f.Path); got != want[f.Path] || f.Size != int64(len(got)) {
				rt.Fatalf("%q has %d bytes, want %d", f.Path, len(got), len(want[f.Path]))
			}
			if stat, err := w.Stat(t.Context(), w.Site, f.Path); err != nil || stat != f {
				rt.Fatalf("stat %+v, %v; listed %+v", stat, err, f)
			}
		}
	})
	w.WantHealthy(t, true)
}

func TestAPutThatFailsChangesNothing(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		broken := errors.New("broken")
		old := contenttest.RandomContent(1, 3*blobSize)
		w.MustPut(t, "file", old)
		before, stored := w.AllTables(t), len(w.BlobNames(t))
		long := contenttest.RandomContent(2, 4*blobSize)
		half := long[:len(long)/2]
		for name, test := range map[string]struct {
			size int
			sent string
			then error // after what was sent
			also error
			code api.Code
		}{
			"early end":           {len(long), half, io.EOF, nil, api.Truncated},
			"early end, one byte": {len(long), long[1:], io.EOF, nil, api.Truncated},
			"nothing came":        {1, "", io.EOF, nil, api.Truncated},
			"connection cut":      {-1, half, io.ErrUnexpectedEOF, nil, api.Truncated},
			"cut, length stated":  {len(long), half, io.ErrUnexpectedEOF, nil, api.Truncated},
			"more than stated":    {10, half, io.EOF, nil, api.InvalidArgument},
			"one byte more":       {len(long) - 1, long, io.EOF, nil, api.InvalidArgument},
			"reader fails":        {-1, half, broken, nil, api.Internal},
			"audit fails":         {-1, half, io.EOF, broken, api.Internal},
		} {
			for _, path := range []string{"file", "new"} {
				r := io.MultiReader(strings.NewReader(test.sent), iotest.ErrReader(test.then))
				_, err := w.Put(t.Context(), w.Site, path, int64(test.size), r, func(*store.Tx) error { return test.also })
				if err == nil {
					t.Fatalf("%s: no error", name)
				}
				wantCode(t, err, test.code)
				if w.AllTables(t) != before || len(w.BlobNames(t)) != stored {
					t.Fatalf("%s: something changed", name)
				}
			}
		}
		if w.MustGet(t, "file") != old {
			t.Error("the old file is not there")
		}
		wantCode(t, w.Get(t.Context(), w.Site, "new", 0, -1, io.Discard), api.NotFound)
		w.WantHealthy(t, true)
	})
}

func TestATruncatedTransferReportsItsLength(t *testing.T) {
	w := newFixture(t, storetest.One(t))
	_, err := w.Put(t.Context(), w.Site, "file", 10, strings.NewReader("abc"))
	if err == nil || err.Error() != "put file: the transfer ended after 3 of 10 bytes" {
		t.Error(err)
	}
}

func TestInvalidPathsAreRefused(t *testing.T) {
	w := newFixture(t, storetest.One(t))
	for _, path := range []string{"", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a/.", "a\x00b", "a\nb", "\xff", strings.Repeat("a", 1025)} {
		_, err := w.Put(t.Context(), w.Site, path, -1, strings.NewReader("x"))
		wantCode(t, err, api.InvalidArgument)
		wantCode(t, w.Get(t.Context(), w.Site, path, 0, -1, io.Discard), api.InvalidArgument)
	}
	for _, path := range []string{"a", "a/b", "...", ".a", "a b/ü", "C:\\x", strings.Repeat("a", 1024)} {
		w.MustPut(t, path, path)
		if w.MustGet(t, path) != path {
			t.Errorf("%q is not there", path)
		}
	}
}

// gate is a writer that blocks at its first byte until it is released.
type gate struct {
	bytes.Buffer
	reached, open chan struct{}
	once          sync.Once
}

func newGate() *gate { return &gate{reached: make(chan struct{}), open: make(chan struct{})} }

func (g *gate) Write(p []byte) (int, error) {
	g.once.Do(func() {
		close(g.reached)
		<-g.open
	})
	return g.Buffer.Write(p)
}

func TestAReaderOfAReplacedFileReadsItToItsEnd(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		old, next := contenttest.RandomContent(1, 5*blobSize), contenttest.RandomContent(2, 3*blobSize)
		w.MustPut(t, "file", old)
		g, done := newGate(), make(chan error, 1)
		go func() { done <- w.Get(context.Background(), w.Site, "file", 0, -1, g) }()
		<-g.reached
		w.MustPut(t, "file", next)
		if w.MustGet(t, "file") != next {
			t.Error("a later reader does not see the new file")
		}
		if n := len(w.BlobNames(t)); n != 8 {
			t.Errorf("%d blobs while the old file is read, want 8", n)
		}
		close(g.open)
		if err := <-done; err != nil || g.String() != old {
			t.Errorf("the reader got %d bytes, %v", g.Len(), err)
		}
		w.WantHealthy(t, true)
		if n := len(w.BlobNames(t)); n != 3 {
			t.Errorf("%d blobs after it was read, want 3", n)
		}
	})
}

func TestReadersSeeTheOldOrTheNewFile(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		versions := make(map[string]int)
		for i := range 24 {
			versions[contenttest.RandomContent(i, (1+i%4)*blobSize/2)] = i
		}
		w.MustPut(t, "file", contenttest.RandomContent(0, blobSize/2))
		var wg sync.WaitGroup
		stop := make(chan struct{})
		for range 2 {
			wg.Go(func() {
				for {
					var got bytes.Buffer
					if err := w.Get(context.Background(), w.Site, "file", 0, -1, &got); err != nil {
						t.Error(err)
						return
					}
					if _, whole := versions[got.String()]; !whole {
						t.Errorf("read %d bytes of no version", got.Len())
						return
					}
					select {
					case <-stop:
						return
					default:
					}
				}
			})
		}
		wg.Go(func() {
			for {
				if _, err := w.Renewer.Fold(context.Background(), w.Site); err != nil {
					t.Error(err)
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
		var writers sync.WaitGroup
		for writer := range 2 {
			writers.Go(func() {
				for i := writer; i < len(versions); i += 2 {
					b := contenttest.RandomContent(i, (1+i%4)*blobSize/2)
					if _, err := w.Put(context.Background(), w.Site, "file", int64(len(b)), strings.NewReader(b)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		writers.Wait()
		close(stop)
		wg.Wait()
		w.WantHealthy(t, true)
	})
}

// A revoked key stops an upload and a download at the next blob.
func TestRevocationStopsAStreamAtTheNextBlob(t *testing.T) {
	w := newFixture(t, storetest.One(t))
	want := contenttest.RandomContent(1, 5*blobSize)
	w.MustPut(t, "file", want)
	w.MustImport(t, contenttest.Mbox(9))
	for after := int64(2); after < 6; after++ {
		w.RevokeAfter(after - 1)
		var got bytes.Buffer
		wantCode(t, w.Get(t.Context(), w.Site, "file", 0, -1, &got), api.VaultDenied)
		if blobs := after - 1; int64(got.Len()) != blobs*blobSize { // one open is for the metadata and the first blob, and the last refuses
			t.Errorf("refused at open %d: %d bytes came", after, got.Len())
		}
	}
	w.Policies.Opening = nil
	before := w.AllTables(t)
	w.RevokeAfter(3)
	_, err := w.Put(t.Context(), w.Site, "file", -1, strings.NewReader(want))
	wantCode(t, err, api.VaultDenied)
	if w.AllTables(t) != before || len(w.BlobNames(t)) != 5+3 { // nine messages are three batches
		t.Error("a refused put left something")
	}
	for name, err := range map[string]error{
		"get":      w.Get(t.Context(), w.Site, "file", 0, -1, io.Discard),
		"missing":  w.Get(t.Context(), w.Site, "no such file", 0, -1, io.Discard),
		"export":   w.Export(t.Context(), w.Mail, io.Discard),
		"list":     errorOf(w.Files(t.Context(), w.Site)),
		"messages": errorOf(w.Messages(t.Context(), w.Mail, 0, 10)),
		"check":    w.Check(t.Context(), w.Mail, func(content.Checked) error { return nil }),
		"import":   errorOf(w.Import(t.Context(), w.Mail, -1, strings.NewReader(contenttest.Mbox(1)), content.ImportOptions{})),
	} {
		t.Run(name, func(t *testing.T) { wantCode(t, err, api.VaultDenied) })
	}
}

// A revoked import is refused before its content is read, and an export of large
// messages stops between them.
func TestRevocationStopsMail(t *testing.T) {
	w := newFixture(t, storetest.One(t))
	message := mboxtest.Ann + "\n" + strings.Repeat("x", blobSize) + "\n\n"
	w.MustImport(t, strings.Repeat(message, 4))
	for whole := range int64(4) {
		w.RevokeAfter(whole)
		var got bytes.Buffer
		wantCode(t, w.Export(t.Context(), w.Mail, &got), api.VaultDenied)
		if int64(got.Len()) != whole*int64(len(message)) {
			t.Errorf("%d bytes came, want %d messages", got.Len(), whole)
		}
	}
	unread := contenttest.ReaderFunc(func([]byte) (int, error) {
		t.Error("the import was read")
		return 0, io.EOF
	})
	wantCode(t, errorOf(w.Import(t.Context(), w.Mail, -1, unread, content.ImportOptions{})), api.VaultDenied)
}

// A file that is replaced while the list is made is in it once, in its new form.
func TestAListContainsEachFileOnce(t *testing.T) {
	w := newFixture(t, storetest.One(t))
	for i := range 9 { // three parts
		w.MustPut(t, fmt.Sprint("file", i), "old")
	}
	opens := 0
	w.Policies.Opening = func(int64) error {
		if opens++; opens == 2 { // the second part is about to be opened
			w.Policies.Opening = nil
			w.MustPut(t, "file1", "newer")
		}
		return nil
	}
	list, err := w.Files(t.Context(), w.Site)
	must(t, err)
	if len(list) != 9 || list[1].Path != "file1" || list[1].Size != int64(len("newer")) {
		t.Errorf("%+v", list)
	}
}

func TestACancelledContextStopsEveryOperation(t *testing.T) {
	w := newFixture(t, storetest.One(t))
	w.MustPut(t, "file", contenttest.RandomContent(1, 3*blobSize))
	ctx, cancel := context.WithCancel(t.Context())
	endsHere := contenttest.ReaderFunc(func(p []byte) (int, error) {
		cancel()
		return copy(p, "From x\n"), nil
	})
	if _, err := w.Import(ctx, w.Mail, -1, endsHere, content.ImportOptions{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	if _, err := w.Put(ctx, w.Site, "file", -1, endsHere); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	err := w.Get(ctx, w.Site, "file", 0, -1, writerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil }))
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	w.WantHealthy(t, true)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// An error of the writer to which a file is copied is not reported as damage.
func TestAFailingWriterIsNotReportedAsDamage(t *testing.T) {
	w := newFixture(t, storetest.One(t))
	w.MustPut(t, "file", "x")
	w.MustImport(t, contenttest.Mbox(1))
	gone := errors.New("the client went away")
	sink := writerFunc(func([]byte) (int, error) { return 0, gone })
	for _, err := range []error{
		w.Get(t.Context(), w.Site, "file", 0, -1, sink),
		w.Export(t.Context(), w.Mail, sink),
		w.Message(t.Context(), w.Mail, w.MustMessages(t)[0].ID, sink),
	} {
		if !errors.Is(err, gone) {
			t.Error(err)
		}
		wantCode(t, err, api.Internal)
	}
}

// Another node has drawn the same id: its blob is kept.
func TestAFailedUploadDeletesOnlyItsOwnBlobs(t *testing.T) {
	w := newFixture(t, storetest.One(t))
	var theirs string
	w.Contents = w.Connect(&storesFirst{w.Blobs, &theirs})
	wantCode(t, errorOf(w.Put(t.Context(), w.Site, "a", -1, contenttest.ZeroBytes(10))), api.AlreadyExists)
	if names := w.BlobNames(t); len(names) != 1 || names[0] != theirs {
		t.Errorf("%q, not %q", names, theirs)
	}
}

// storesFirst stores a blob under every name before the test's own put.
type storesFirst struct {
	blob.Store
	name *string
}

func (f *storesFirst) PutIfAbsent(ctx context.Context, name string, r io.Reader) (int64, error) {
	*f.name = name
	if _, err := f.Store.PutIfAbsent(ctx, name, strings.NewReader("theirs")); err != nil {
		return 0, err
	}
	return f.Store.PutIfAbsent(ctx, name, r)
}
