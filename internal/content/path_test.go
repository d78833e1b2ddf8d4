package content_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/content"
	"keyroll/internal/content/contenttest"
	"keyroll/internal/longtest"
	"keyroll/internal/name"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// spellings are the spellings of four paths.
var spellings = []string{"Plan.txt", "plan.txt", "PLAN.TXT", "é/a", "É/A", "e\u0301/a", "x", "X", "straße", "strasse", "STRASSE"}

// putOld stores a file as before paths were folded: it is found only by its exact
// path. A path that is already folded must be stored after its other spellings.
func putOld(t testing.TB, w *fixture, c container.Container, path, text string) {
	t.Helper()
	ctx := context.Background()
	directory, err := w.Containers.Directory(ctx, tenant)
	must(t, err)
	c.Folded = true // do not fold the others
	putAt(t, w, c, path, text)
	must(t, w.DB.InTx(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE item SET path_hash = ?3 WHERE container = ?1 AND path_hash = ?2`,
			c.ID, directory.Hash("path", c.ID, name.Fold(path)), directory.Hash("path", c.ID, path))
		return err
	}))
}

// unfolded marks a site as one whose paths were never folded.
func unfolded(t testing.TB, w *fixture, c container.Container) container.Container {
	t.Helper()
	must(t, w.DB.InTx(context.Background(), func(tx *store.Tx) error {
		_, err := tx.Exec(context.Background(), `UPDATE container SET names = 0 WHERE id = ?1`, c.ID)
		return err
	}))
	c.Folded = false
	return c
}

func putAt(t testing.TB, w *fixture, c container.Container, path, text string) {
	t.Helper()
	_, err := w.Put(context.Background(), c, path, int64(len(text)), strings.NewReader(text))
	must(t, err)
}

// contentAt returns the content at a path; empty: there is no file.
func contentAt(t testing.TB, w *fixture, c container.Container, path string) string {
	t.Helper()
	var b bytes.Buffer
	if err := w.Get(context.Background(), c, path, 0, -1, &b); err != nil {
		wantCode(t, err, api.NotFound)
	}
	return b.String()
}

// TestPathsOfASiteAreFoundInEverySpellingAndNoneIsLost stores files under exact
// paths, as nodes did before paths were folded, and then reads and writes by any
// spelling, in the site and in a site restored from a backup of it. Files whose paths
// differ only in spelling are kept; all others are found by each spelling of their
// path, and never by a spelling of another path.
func TestPathsOfASiteAreFoundInEverySpellingAndNoneIsLost(t *testing.T) {
	contenttest.FewChecks(t, longtest.Of(12, 100))
	sites := 0
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newFixture(t, db)
		rapid.Check(t, func(r *rapid.T) {
			sites++
			c := w.MustCreate(t, container.Site, fmt.Sprintf("https://contoso.sharepoint.com/sites/%d", sites))
			// The stored files: by exact path if stored by an old node, otherwise by folded path.
			old, folded := map[string]string{}, map[string]string{}
			var given []string
			for _, path := range spellings {
				if rapid.Bool().Draw(r, path) {
					given = append(given, path)
				}
			}
			for _, path := range slices.SortedFunc(slices.Values(given), foldedLast) {
				old[path] = "old " + path
				putOld(t, w, c, path, old[path])
			}
			c = unfolded(t, w, c)
			for path, text := range maps.Clone(old) {
				if got := contentAt(t, w, c, path); got != text {
					t.Fatalf("%q has %q before paths are folded", path, got)
				}
				alone := !slices.ContainsFunc(given, func(other string) bool { return other != path && name.Fold(other) == name.Fold(path) })
				if alone || path == name.Fold(path) { // whose exact form is the folded one
					folded[name.Fold(path)] = text
					delete(old, path)
				}
			}
			is := func(path string) string {
				if text, exact := old[path]; exact {
					return text
				}
				return folded[name.Fold(path)]
			}
			compare := func(c container.Container, when string) {
				for _, path := range spellings {
					if got := contentAt(t, w, c, path); got != is(path) {
						t.Fatalf("%s: %q has %q, want %q; exact %v, folded %v", when, path, got, is(path), old, folded)
					}
				}
				files, err := w.Files(context.Background(), c)
				must(t, err)
				if len(files) != len(old)+len(folded) {
					t.Fatalf("%s: there are %v; exact %v, folded %v", when, files, old, folded)
				}
			}
			if rapid.Bool().Draw(r, "read first") {
				compare(c, "unfolded")
			}
			for i := range rapid.IntRange(1, 4).Draw(r, "puts") {
				path, text := rapid.SampledFrom(spellings).Draw(r, "path"), fmt.Sprintf("new %d", i)
				putAt(t, w, c, path, text)
				if _, exact := old[path]; exact {
					old[path] = text
				} else {
					folded[name.Fold(path)] = text
				}
				if rapid.Bool().Draw(r, "look up again") {
					c = refetch(t, w, c)
				}
			}
			compare(c, "written")
			var exact int
			must(t, w.Check(context.Background(), refetch(t, w, c), func(one content.Checked) error {
				if one.Exact {
					exact++
				}
				return one.Err
			}))
			if exact != len(old) {
				t.Fatalf("%d files are found by their exact paths alone, want %v", exact, old)
			}
			restored := w.MustRestore(t, w.MustBackup(t, c), fmt.Sprintf("https://contoso.sharepoint.com/sites/%d-restored", sites))
			compare(restored, "restored")
		})
	})
}

func foldedLast(a, b string) int {
	rank := func(path string) int { return map[bool]int{true: 1, false: 0}[path == name.Fold(path)] }
	return cmp.Compare(rank(a), rank(b))
}

// refetch looks up a site as the next request does.
func refetch(t testing.TB, w *fixture, c container.Container) container.Container {
	t.Helper()
	if !w.Exists(&c, container.Site, c.Name) {
		t.Fatalf("site %q is lost", c.Name)
	}
	return c
}

// The id of a chat message is not a path: two ids that differ only in case are different.
func TestItemsOfAWorkloadStoreAreNamedExactly(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		c := w.MustCreate(t, container.Workload, "chat-messages")
		putAt(t, w, c, "AbC=", "one")
		putAt(t, w, c, "aBc=", "two")
		if one, two := contentAt(t, w, c, "AbC="), contentAt(t, w, c, "aBc="); one != "one" || two != "two" {
			t.Errorf("%q and %q", one, two)
		}
	})
}

// Folding may be interrupted at any point; the next write continues it.
func TestInterruptedFoldingContinues(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		for i := range 20 {
			putOld(t, w, w.Site, fmt.Sprintf("File %d", i), "x")
		}
		c := unfolded(t, w, w.Site)
		ctx, cancel := context.WithCancel(context.Background())
		calls := 0
		w.Policies.Opening = func(int64) error {
			if calls++; calls == 8 { // in the midst of the second reading
				cancel()
			}
			return nil
		}
		_, err := w.Stat(ctx, c, "FILE 3")
		if err == nil {
			t.Fatal("not stopped")
		}
		w.Policies.Opening = nil
		if refetch(t, w, c).Folded {
			t.Fatal("it is said to be done")
		}
		putAt(t, w, c, "FILE 19", "y")
		for i := range 20 {
			if got := contentAt(t, w, c, fmt.Sprintf("fIlE %d", i)); got != map[bool]string{true: "y", false: "x"}[i == 19] {
				t.Errorf("file %d has %q", i, got)
			}
		}
	})
}

func TestAPathThatIsInvalidForNewFilesIsRefused(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		for _, path := range []string{"a\u202Eb", "a\xe9b", "a\nb", "\uFEFFa", strings.Repeat("a", 1025), "a//b", "../a", ""} {
			_, err := w.Put(context.Background(), w.Site, path, 1, strings.NewReader("x"))
			wantCode(t, err, api.InvalidArgument)
		}
		files, err := w.Files(context.Background(), w.Site)
		must(t, err)
		if len(files) != 0 {
			t.Errorf("there are %v", files)
		}
	})
}
