package content_test

import (
	"io"
	"runtime"
	"strings"
	"testing"

	"keyroll/internal/content"
	"keyroll/internal/content/contenttest"
	"keyroll/internal/items"
	"keyroll/internal/mbox/mboxtest"
	"keyroll/internal/store/storetest"
)

// allocated returns how many bytes f allocates in total, including freed ones: an
// upper bound of the memory that it ever used.
func allocated(f func()) int64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int64(after.TotalAlloc - before.TotalAlloc)
}

func TestMemoryDoesNotGrowWithTheSizeOfContent(t *testing.T) {
	w := newFixture(t, storetest.One(t))
	w.Sizes = items.Sizes{Blob: items.BlobSize, Batch: 512, Part: 512}
	w.Reopen(t)
	const small, large = 1 << 20, 48 << 20
	line := strings.Repeat("x", 99) + "\n"
	for name, test := range map[string]struct {
		run func(size int64) error
		// each: how much each blob of the larger content may allocate.
		each int64
	}{
		"import": {func(n int64) error {
			message := io.MultiReader(strings.NewReader("From a\nSubject: s\n\n"), &mboxtest.Endless{Line: line, Left: int(n)})
			return errorOf(w.Import(t.Context(), w.Mail, -1, message, content.ImportOptions{}))
		}, 0},
		"import a long line": {func(n int64) error {
			message := io.MultiReader(strings.NewReader("From "), contenttest.ZeroBytes(n))
			return errorOf(w.Import(t.Context(), w.Mail, -1, message, content.ImportOptions{}))
		}, 0},
		"put": {func(n int64) error {
			return errorOf(w.Put(t.Context(), w.Site, "file", n, contenttest.ZeroBytes(n)))
		}, 400 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			run := func(n int64) int64 { return allocated(func() { must(t, test.run(n)) }) }
			run(small) // what is made once
			few, many := run(small), run(large)
			if most := few + 1<<20 + test.each*large/items.BlobSize; many > most {
				t.Errorf("1 MiB allocates %d KiB, 48 MiB %d KiB, want at most %d", few>>10, many>>10, most>>10)
			}
		})
	}
	for name, run := range map[string]func() error{
		"export": func() error { return w.Export(t.Context(), w.Mail, io.Discard) }, // 100 MiB
		"get":    func() error { return w.Get(t.Context(), w.Site, "file", 0, -1, io.Discard) },
		"range":  func() error { return w.Get(t.Context(), w.Site, "file", 20<<20, 20<<20, io.Discard) },
	} {
		t.Run(name, func(t *testing.T) {
			must(t, run())
			if n := allocated(func() { must(t, run()) }); n > 4<<20 {
				t.Errorf("%d KiB allocated", n>>10)
			}
		})
	}
	w.WantHealthy(t, true)
}
