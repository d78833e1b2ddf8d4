package content_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/content"
	"keyroll/internal/content/contenttest"
	"keyroll/internal/items"
	"keyroll/internal/mbox/mboxtest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

func TestExportReturnsTheImportedMail(t *testing.T) {
	w := newFixture(t, storetest.One(t))
	rapid.Check(t, func(rt *rapid.T) {
		w.Mail = w.MustCreate(t, container.Mailbox, fmt.Sprintf("m%d@contoso.com", store.NewID()))
		mbox := mboxtest.Mailboxes().Draw(rt, "mbox")
		done := w.MustImport(t, mbox)
		if want := len(mboxtest.Split(mbox)); done.Messages != int64(want) || done.Bytes != int64(len(mbox)) {
			rt.Fatalf("imported %+v, want %d messages of %d bytes", done, want, len(mbox))
		}
		if got := w.MustExport(t); got != mbox {
			rt.Fatalf("%d bytes exported, %d imported", len(got), len(mbox))
		}
		var items, size int64
		err := w.DB.ViewOnce(t.Context(), func(tx *store.Tx) (err error) {
			items, size, err = w.Totals(t.Context(), tx, w.Mail)
			return err
		})
		if err != nil || items != done.Messages || size != done.Bytes {
			rt.Fatalf("totals %d, %d, %v", items, size, err)
		}
	})
	w.WantHealthy(t, true)
}

func TestMailOnBothDatabases(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		if got := w.MustExport(t); got != "" {
			t.Errorf("an empty mailbox exports %q", got)
		}
		if done := w.MustImport(t, ""); done != (content.Imported{}) {
			t.Errorf("an empty mbox: %+v", done)
		}
		w.DB.SetForTests(store.ForTests{}) // what runs in a transaction is counted
		const n = 23                       // in batches of 4, pages of 8
		all := contenttest.Mbox(n)
		var steps []content.Imported
		audited := 0
		done, err := w.Import(t.Context(), w.Mail, -1, iotest.HalfReader(strings.NewReader(all)), content.ImportOptions{Progress: func(p content.Imported) { steps = append(steps, p) }}, func(*store.Tx) error { audited++; return nil })
		must(t, err)
		if done.Messages != n || len(steps) != 6 || steps[0].Messages != 4 || steps[5] != done || audited != 1 {
			t.Errorf("imported %+v in steps %+v, audited %d times", done, steps, audited)
		}
		if w.MustExport(t) != all {
			t.Error("the export is not what was imported")
		}
		list := w.MustMessages(t)
		if len(list) != n {
			t.Fatalf("%d messages", len(list))
		}
		for i, m := range list {
			var body bytes.Buffer
			must(t, w.Message(t.Context(), w.Mail, m.ID, &body))
			want := fmt.Sprintf("Subject: message %d\n\n>From here\nbody %d\n", i, i)
			if m.Subject != fmt.Sprintf("message %d", i) || body.String() != want || m.Size != int64(len(want)) {
				t.Errorf("message %d: %+v, %q", i, m, body.String())
			}
		}
		// In parts.
		var parts []content.Message
		for after := int64(0); ; {
			part, err := w.Messages(t.Context(), w.Mail, after, 4)
			must(t, err)
			if len(part) == 0 {
				break
			}
			parts = append(parts, part...)
			after = part[len(part)-1].ID
		}
		if fmt.Sprint(parts) != fmt.Sprint(list) {
			t.Error("the parts are not the whole")
		}
		w.WantHealthy(t, true)
		before := w.Pages(t)
		if merged, err := w.Renewer.Fold(t.Context(), w.Mail); err != nil || merged == 0 || w.Pages(t) != before-merged {
			t.Errorf("folded %d of %d pages to %d, %v", merged, before, w.Pages(t), err)
		}
		if w.MustExport(t) != all {
			t.Error("after a fold the export is not what was imported")
		}
		w.WantHealthy(t, true)
	})
}

func TestAnImportCommitsLargeMessagesSooner(t *testing.T) {
	w := newFixture(t, storetest.One(t))
	w.Sizes = items.Sizes{Blob: items.BlobSize, Batch: 512, Part: 512}
	w.Reopen(t)
	message := mboxtest.Ann + "\n" + strings.Repeat("x", 6<<20) + "\n\n"
	var steps []int64
	_, err := w.Import(t.Context(), w.Mail, -1, strings.NewReader(strings.Repeat(message, 4)), content.ImportOptions{Progress: func(p content.Imported) { steps = append(steps, p.Messages) }})
	must(t, err)
	if fmt.Sprint(steps) != "[3 4]" {
		t.Errorf("commits after messages %v, want after 3 (18 MiB) and 4", steps)
	}
}

func TestExportJoinsImportsWithoutLosingAMessage(t *testing.T) {
	w := newFixture(t, storetest.One(t))
	for _, test := range []struct{ a, b, joined string }{
		{"From a\n\nx\n\n", "From b\n\ny\n", "From a\n\nx\n\nFrom b\n\ny\n"},
		{"From a\n\nx\n", "From b\n\ny", "From a\n\nx\n\nFrom b\n\ny"},
		{"From a\n\nx", "From b\n", "From a\n\nx\n\nFrom b\n"},
		{"From a\r\n\r\nx\r\n", "From b\r\n", "From a\r\n\r\nx\r\n\r\nFrom b\r\n"},
		{"From a\r\n\r\n", "From b\r\n", "From a\r\n\r\nFrom b\r\n"},
		{"From ", "From ", "From \n\nFrom "},
		// Nothing is added within one mbox, whatever its messages end with.
		{mboxtest.Ann + "A: b\n\nx\n" + mboxtest.Bob + "A: b\n\ny\n" + mboxtest.Ann + "A: b\n\nz", mboxtest.Bob + "A: b\n\nx\n" + mboxtest.Ann + "A: b\n\ny",
			mboxtest.Ann + "A: b\n\nx\n" + mboxtest.Bob + "A: b\n\ny\n" + mboxtest.Ann + "A: b\n\nz\n\n" + mboxtest.Bob + "A: b\n\nx\n" + mboxtest.Ann + "A: b\n\ny"},
	} {
		w.Mail = w.MustCreate(t, container.Mailbox, fmt.Sprintf("m%d@contoso.com", store.NewID()))
		w.MustImport(t, test.a)
		w.MustImport(t, test.b)
		if got := w.MustExport(t); got != test.joined {
			t.Errorf("%q and %q give %q, want %q", test.a, test.b, got, test.joined)
		}
		alice := w.Mail
		w.Mail = w.MustRestore(t, w.MustBackup(t, alice), fmt.Sprintf("m%d@contoso.com", store.NewID()))
		if got := w.MustExport(t); got != test.joined {
			t.Errorf("restored, %q and %q give %q, want %q", test.a, test.b, got, test.joined)
		}
	}
}

func TestAListShowsTheHeadersOfAMessage(t *testing.T) {
	w := newFixture(t, storetest.One(t))
	long := strings.Repeat("é", 2000)
	date := time.Date(2024, 2, 3, 3, 5, 6, 0, time.UTC)
	for name, test := range map[string]struct {
		header string
		want   content.Message
	}{
		"plain":           {"Subject: hello\nFrom: Alice <alice@contoso.com>\nDate: Sat, 3 Feb 2024 04:05:06 +0100\nStatus: RO\nX-Status: AF\n", content.Message{Subject: "hello", From: "Alice <alice@contoso.com>", Date: date, Flags: "ROAF"}},
		"CRLF":            {"Subject: hello\r\nDate: Sat, 3 Feb 2024 04:05:06 +0100\r\n", content.Message{Subject: "hello", Date: date}},
		"case":            {"SUBJECT: a\nsubject: b\n", content.Message{Subject: "a"}},
		"encoded":         {"Subject: =?utf-8?B?Y2Fmw6k=?= =?iso-8859-1?Q?_=FCber?=\n", content.Message{Subject: "café über"}},
		"other charset":   {"From: =?windows-1251?B?z/Do4uXy?= <a@b>\n", content.Message{From: "Привет <a@b>"}},
		"unknown charset": {"Subject: =?x-none?Q?a?= b\n", content.Message{Subject: "=?x-none?Q?a?= b"}},
		"folded":          {"Subject: one\n two\n\tthree\n", content.Message{Subject: "one two three"}},
		"8 bit":           {"Subject: a\xffb\n", content.Message{Subject: "a\uFFFDb"}},
		"controls":        {"Subject: a\x1b[31mb\x00\n", content.Message{Subject: "a\uFFFD[31mb\uFFFD"}},
		"long":            {"Subject: " + long + "\n", content.Message{Subject: long[:998]}},
		"no field":        {"this is no field\n: nor this\nSubject: s\n", content.Message{Subject: "s"}},
		"fold first":      {" fold of nothing\nSubject: s\n", content.Message{Subject: "s"}},
		"in the body":     {"To: x\n\nSubject: s\n", content.Message{}},
		"bad date":        {"Date: tomorrow\nSubject: s\n", content.Message{Subject: "s"}},
		"odd zone":        {"Date: Sat, 3 Feb 2024 03:05:06 +2400\n", content.Message{Date: date.Add(-24 * time.Hour)}},
		"nothing":         {"", content.Message{}},
		"far away":        {strings.Repeat("X-Filler: x\n", 6000) + "Subject: s\n", content.Message{}},
	} {
		t.Run(name, func(t *testing.T) {
			w.Mail = w.MustCreate(t, container.Mailbox, fmt.Sprintf("m%d@contoso.com", store.NewID()))
			w.MustImport(t, "From a\n"+test.header+"\nbody\n\n")
			got := w.MustMessages(t)[0]
			test.want.ID, test.want.Size = got.ID, got.Size
			if got != test.want {
				t.Errorf("%+v, want %+v", got, test.want)
			}
		})
	}
}

func TestAMessageIsTheTextBetweenItsFromLines(t *testing.T) {
	w := newFixture(t, storetest.One(t))
	for mbox, want := range map[string]string{
		"From a":               "",
		"From a\n":             "",
		"From a\n\n":           "",
		"From a\r\n\r\n":       "",
		"From a\nx":            "x",
		"From a\nx\n":          "x\n",
		"From a\nx\n\n":        "x\n",
		"From a\r\nx\r\n\r\n":  "x\r\n",
		"From a\nx\n\n\n":      "x\n\n",
		"From a\n>From b\n\n":  ">From b\n",
		"From a\n\x00\xff\n\n": "\x00\xff\n",
	} {
		w.Mail = w.MustCreate(t, container.Mailbox, fmt.Sprintf("m%d@contoso.com", store.NewID()))
		w.MustImport(t, mbox)
		m := w.MustMessages(t)[0]
		var got bytes.Buffer
		must(t, w.Message(t.Context(), w.Mail, m.ID, &got))
		if got.String() != want || m.Size != int64(len(want)) {
			t.Errorf("%q: %q of %d bytes, want %q", mbox, got.String(), m.Size, want)
		}
	}
}

func TestATruncatedImportKeepsWholeMessagesAndReportsTheirNumber(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		broken := errors.New("broken")
		all := contenttest.Mbox(23)
		cut := all[:len(all)*3/4] // in the 18th message: four batches of four are kept
		for name, test := range map[string]struct {
			run  func() (content.Imported, error)
			code api.Code
		}{
			"early end of a stated length": {func() (content.Imported, error) {
				return w.Import(t.Context(), w.Mail, int64(len(all)), strings.NewReader(cut), content.ImportOptions{})
			}, api.Truncated},
			"connection lost": {func() (content.Imported, error) {
				return w.Import(t.Context(), w.Mail, -1, iotest.TimeoutReader(strings.NewReader(cut)), content.ImportOptions{})
			}, api.Internal},
			"audit fails": {func() (content.Imported, error) {
				return w.Import(t.Context(), w.Mail, -1, strings.NewReader(cut), content.ImportOptions{}, func(*store.Tx) error { return broken })
			}, api.Internal},
			"more than stated": {func() (content.Imported, error) {
				return w.Import(t.Context(), w.Mail, int64(len(all)), strings.NewReader(all+"x"), content.ImportOptions{})
			}, api.InvalidArgument},
		} {
			w.Mail = w.MustCreate(t, container.Mailbox, strings.ReplaceAll(name, " ", ".")+"@contoso.com")
			done, err := test.run()
			wantCode(t, err, test.code)
			want := mboxtest.Split(all)[:done.Messages]
			if done.Messages%4 != 0 || w.MustExport(t) != strings.Join(want, "") {
				t.Errorf("%s: %+v, but the mailbox has something else", name, done)
			}
			if done.Messages > 0 && !strings.Contains(err.Error(), fmt.Sprintf("its first %d messages were kept", done.Messages)) {
				t.Errorf("%s: %v", name, err)
			}
			w.WantHealthy(t, true)
		}
		w.Mail = w.MustCreate(t, container.Mailbox, "none@contoso.com")
		_, err := w.Import(t.Context(), w.Mail, -1, strings.NewReader("PK\x03\x04"), content.ImportOptions{})
		wantCode(t, err, api.InvalidArgument)
		if err.Error() != `import mail: this is not an mbox: its first line begins with "PK\x03\x04", not with "From "` {
			t.Error(err)
		}
		w.WantHealthy(t, true)
	})
}

func TestMailOfAnotherMailboxOrTenantIsNotFound(t *testing.T) {
	w := newFixture(t, storetest.One(t))
	w.MustImport(t, contenttest.Mbox(1))
	id := w.MustMessages(t)[0].ID
	file := w.MustPut(t, "file", "x")
	other := w.MustCreate(t, container.Mailbox, "bob@contoso.com")
	foreign := w.Mail
	foreign.Tenant++
	for _, c := range []container.Container{other, foreign, w.Site} {
		err := w.Message(t.Context(), c, id, new(bytes.Buffer))
		wantCode(t, err, api.NotFound)
	}
	for _, c := range []container.Container{w.Mail, other} {
		wantCode(t, w.Get(t.Context(), c, file.Path, 0, -1, new(bytes.Buffer)), api.NotFound)
	}
	if list, err := w.Messages(t.Context(), w.Site, 0, 10); err != nil || len(list) != 0 {
		t.Errorf("messages of a site: %v, %v", list, err)
	}
}
