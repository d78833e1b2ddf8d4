package content_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/content"
	"keyroll/internal/content/contenttest"
	"keyroll/internal/mbox/mboxtest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

var errCut = errors.New("cut")

// importNamed imports r under a name.
func importNamed(t testing.TB, w *fixture, name string, r io.Reader) (content.Imported, error) {
	t.Helper()
	return w.Import(t.Context(), w.Mail, -1, r, content.ImportOptions{Name: name})
}

// unfinished returns the imports that can be continued.
func unfinished(t testing.TB, w *fixture) (list []content.MailImport) {
	t.Helper()
	must(t, w.DB.View(t.Context(), func(tx *store.Tx) (err error) {
		list, err = w.Imports(t.Context(), tx, w.Mail)
		return err
	}))
	return list
}

// However often and wherever an import is interrupted: once it has been continued to
// its end, each message is stored exactly once.
func TestAnImportThatIsContinuedStoresEachMessageOnce(t *testing.T) {
	w := newFixture(t, storetest.One(t))
	rapid.Check(t, func(rt *rapid.T) {
		w.Mail = w.MustCreate(t, container.Mailbox, fmt.Sprintf("m%d@contoso.com", store.NewID()))
		mbox := mboxtest.Mailboxes().Draw(rt, "mbox") + strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{mboxtest.Ann + "A: b\n\nx\n", mboxtest.Bob + "A: b\n\ny\n\n"}), 0, 30).Draw(rt, "more"), "")
		stored := int64(0)
		for range rapid.IntRange(0, 4).Draw(rt, "cuts") {
			at := rapid.IntRange(0, len(mbox)).Draw(rt, "cut")
			done, err := importNamed(t, w, "one", io.MultiReader(strings.NewReader(mbox[:at]), iotest.ErrReader(errCut)))
			if !errors.Is(err, errCut) || done.Before != stored && done.Messages > 0 {
				rt.Fatalf("cut: %+v after %d, %v", done, stored, err)
			}
			stored += done.Messages
			if list := unfinished(t, w); stored > 0 && (len(list) != 1 || list[0].Messages != stored) || stored == 0 && len(list) > 0 {
				rt.Fatalf("%d messages are stored, of %+v", stored, list)
			}
		}
		done, err := importNamed(t, w, "one", iotest.HalfReader(strings.NewReader(mbox)))
		if err != nil || done.Before != stored || done.Before+done.Messages != int64(len(mboxtest.Split(mbox))) {
			rt.Fatalf("continued: %+v after %d, %v", done, stored, err)
		}
		if got := w.MustExport(t); got != mbox {
			rt.Fatalf("%d bytes exported, %d imported", len(got), len(mbox))
		}
		if list := unfinished(t, w); len(list) > 0 {
			rt.Fatalf("not finished: %+v", list)
		}
	})
	w.WantHealthy(t, true)
}

func TestOnlyTheSameMailContinuesAnImport(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		all := contenttest.Mbox(23) // in batches of 4
		begin := func(name string) {
			t.Helper()
			if _, err := importNamed(t, w, name, io.MultiReader(strings.NewReader(all[:len(all)*3/4]), iotest.ErrReader(errCut))); !errors.Is(err, errCut) {
				t.Fatal(err)
			}
		}
		begin("one")
		kept := w.MustExport(t)
		for name, other := range map[string]string{
			"changed": strings.Replace(all, "body 3", "bodi 3", 1),
			"shorter": all[:len(all)/3],
			"longer":  strings.Replace(all, "body 3", "body  3", 1),
			"none":    "",
		} {
			_, err := importNamed(t, w, "one", strings.NewReader(other))
			wantCode(t, err, api.DifferentMail)
			if w.MustExport(t) != kept {
				t.Fatalf("%s: it changed the mailbox", name)
			}
		}
		_, err := w.Import(t.Context(), w.Mail, -1, strings.NewReader(all), content.ImportOptions{Name: "one", Format: api.MboxRD})
		wantCode(t, err, api.Conflict)
		// An import of another name starts from the beginning.
		begin("two")
		if list := unfinished(t, w); len(list) != 2 || list[0].Name != "two" {
			t.Errorf("%+v", list)
		}
		for _, name := range []string{"two", "one"} {
			if _, err := importNamed(t, w, name, strings.NewReader(all)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := importNamed(t, w, "one", strings.NewReader(all)); err == nil || !strings.Contains(err.Error(), "this import is finished") {
			t.Errorf("a finished import: %v", err)
		}
		if n := len(w.MustMessages(t)); n != 2*23 {
			t.Errorf("%d messages, want each twice", n)
		}
		// The state of an import is deleted after 30 days.
		begin("three")
		w.Now = func() time.Time { return time.Now().Add(31 * 24 * time.Hour) }
		w.Reopen(t)
		must(t, w.ForgetImports(t.Context(), tenant))
		if list := unfinished(t, w); len(list) > 0 {
			t.Errorf("after 31 days: %+v", list)
		}
	})
}

// Of two requests that continue one import the first to store succeeds, and a stopped
// one stores nothing more, whatever it has already read.
func TestAnImportBelongsToOneRequest(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		w.DB.SetForTests(store.ForTests{})
		ctx, all := t.Context(), contenttest.Mbox(23)
		for name, act := range map[string]func() string{
			"continued": func() string {
				if _, err := importNamed(t, w, "continued", strings.NewReader(all)); err != nil {
					t.Error(err)
				}
				return all
			},
			"stopped": func() string {
				m, err := w.StopImport(ctx, w.Mail, "stopped")
				if err != nil || m.Messages != 8 || m.Finished {
					t.Errorf("stopped: %+v, %v", m, err)
				}
				return strings.Join(mboxtest.Split(all)[:8], "")
			},
		} {
			w.Mail = w.MustCreate(t, container.Mailbox, name+"@contoso.com")
			var want string
			_, err := w.Import(ctx, w.Mail, -1, strings.NewReader(all), content.ImportOptions{Name: name, Progress: func(i content.Imported) {
				if i.Messages == 8 {
					want = act()
				}
			}})
			wantCode(t, err, api.Conflict)
			if got := w.MustExport(t); got != want {
				t.Errorf("%s: %d bytes are there, want %d", name, len(got), len(want))
			}
		}
		// Before the first commit, and after the last.
		w.Mail = w.MustCreate(t, container.Mailbox, "early@contoso.com")
		if m, err := w.StopImport(ctx, w.Mail, "early"); err != nil || m.Messages != 0 {
			t.Errorf("%+v, %v", m, err)
		}
		if list := unfinished(t, w); len(list) > 0 {
			t.Errorf("%+v", list)
		}
		if _, err := importNamed(t, w, "early", strings.NewReader(all)); err != nil {
			t.Error(err)
		}
		if m, err := w.StopImport(ctx, w.Mail, "early"); err != nil || m.Messages != 23 || !m.Finished || m.Bytes != int64(len(all)) {
			t.Errorf("%+v, %v", m, err)
		}
		// A request whose first commit comes after the stop.
		_, err := w.Import(ctx, w.Mail, -1, contenttest.ReaderFunc(func(p []byte) (int, error) {
			if _, err := w.StopImport(ctx, w.Mail, "late"); err != nil {
				return 0, err
			}
			return copy(p, mboxtest.Ann+"\nx\n"), io.EOF
		}), content.ImportOptions{Name: "late"})
		wantCode(t, err, api.Conflict)
		if w.MustExport(t) != all {
			t.Error("it stored something")
		}
	})
}

// The state of an import in the database does not reveal its content: without the
// tenant's keys it cannot be compared with the hash of an mbox.
func TestTheHashOfAnImportIsKeyed(t *testing.T) {
	w := newFixture(t, storetest.One(t))
	all := contenttest.Mbox(5)
	if _, err := importNamed(t, w, "one", strings.NewReader(all)); err != nil {
		t.Fatal(err)
	}
	other := w.MustCreate(t, container.Mailbox, "bob@contoso.com")
	if _, err := w.Import(t.Context(), other, -1, strings.NewReader(all), content.ImportOptions{Name: "one"}); err != nil {
		t.Fatal(err)
	}
	var digests [][]byte
	must(t, w.DB.View(t.Context(), func(tx *store.Tx) (err error) {
		digests, err = store.Collect(t.Context(), tx, func(row store.Scanner) (b []byte, err error) {
			err = row.Scan(&b)
			return b, err
		}, `SELECT digest FROM mail_import`)
		return err
	}))
	if len(digests) != 2 || bytes.Equal(digests[0], digests[1]) || len(digests[0]) != 32 {
		t.Errorf("%x", digests)
	}
	plain := sha256.Sum256([]byte(all))
	for _, digest := range digests {
		if bytes.Equal(digest, plain[:]) {
			t.Error("it is that of the mbox")
		}
	}
}
