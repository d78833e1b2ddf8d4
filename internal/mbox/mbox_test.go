package mbox_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/mbox"
	"keyroll/internal/mbox/mboxtest"
)

// split reads an mbox to its end, each message with reads of size bytes.
func split(r io.Reader, format api.MailFormat, size int) (messages []string, m *mbox.Reader, err error) {
	m = mbox.New(r, format)
	for {
		err := m.Next()
		if err == io.EOF {
			return messages, m, nil
		}
		if err != nil {
			return messages, m, err
		}
		var message bytes.Buffer
		if _, err := io.CopyBuffer(&message, struct{ io.Reader }{m}, make([]byte, size)); err != nil {
			return messages, m, err
		}
		messages = append(messages, message.String())
	}
}

func TestAnMboxYieldsItsMessagesInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mbox := mboxtest.Mailboxes().Draw(t, "mbox")
		want := mboxtest.Split(mbox)
		reader := rapid.SampledFrom([]func(io.Reader) io.Reader{
			func(r io.Reader) io.Reader { return r }, iotest.HalfReader, iotest.DataErrReader, iotest.OneByteReader,
		}).Draw(t, "reader")
		size := rapid.SampledFrom([]int{1, 2, 5, 7, 4096, 64 << 10, 1 << 20}).Draw(t, "size")
		got, _, err := split(reader(strings.NewReader(mbox)), api.AutoFormat, size)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want) {
			t.Fatalf("%d messages, want %d", len(got), len(want))
		}
		for i := range want {
			if got[i] != want[i] {
				t.Fatalf("message %d: %d bytes, want %d", i, len(got[i]), len(want[i]))
			}
		}
	})
}

const (
	ann = mboxtest.Ann
	bob = mboxtest.Bob
	bom = mboxtest.ByteOrderMark
)

func TestMessagesBeginWhereMuttAndMailboxFindThem(t *testing.T) {
	crlf := func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }
	dash := func(s string) string { return "From - " + s + " 2022\n" }
	for name, test := range map[string]struct {
		messages    []string
		noEmpty, in int64 // separators without an empty line, "From " lines in text
	}{
		"nothing":                  {nil, 0, 0},
		"quoted":                   {[]string{ann + "Subject: a\n\n>From where I am\n\n", bob + "Subject: b\n\ny\n"}, 0, 0},
		"CRLF":                     {[]string{crlf(ann + "Subject: a\n\nx\n\n"), crlf(bob + "Subject: b\n\ny\n")}, 0, 0},
		"mixed line ends":          {[]string{ann + "\r\n", crlf(bob) + "\n", ann[:len(ann)-1]}, 0, 0},
		"no end":                   {[]string{ann + "A: b\n\nx\n\n", bob + "A: b\n\ny"}, 0, 0},
		"several empty lines":      {[]string{ann + "\n\n\n", bob}, 0, 0},
		"empty lines first":        {[]string{"\n\r\n" + ann + "A: b\n\nx\n\n", bob + "A: b\n\ny\n"}, 0, 0},
		"byte order mark":          {[]string{bom + ann + "A: b\n\nx\n\n", bom + bob + "A: b\n\ny\n"}, 0, 0},
		"mark and empty lines":     {[]string{bom + "\n" + ann + "A: b\n\nx\n\n", bob}, 0, 0},
		"no empty line":            {[]string{ann + "A: b\n\nx\n", bob + "A: b\n\ny\n", ann + "A: b\n\nz\n"}, 2, 0},
		"CRLF without one":         {[]string{crlf(ann + "A: b\n\nx\n"), crlf(bob + "A: b\n\ny\n")}, 1, 0},
		"text":                     {[]string{ann + "A: b\n\nx\n\nFrom where I stand, it rains.\n\nFrom Monday on\nnot\n\n", bob + "A: b\n\n"}, 0, 2},
		"dates in text":            {[]string{ann + "A: b\n\nx\n" + bob + "is how it began\n\n", bob + "A: b\n\n"}, 0, 1},
		"a date mentioned in text": {[]string{ann + "A: b\n\n\nFrom what I know it was Mon Jan  5 10:00:00 2026 when\nX: y\n"}, 0, 1},
		"in a header":              {[]string{ann + "A: b\n" + bob + "C: d\n\nx\n\n", bob + "A: b\n\n"}, 0, 1},
		"after a broken header":    {[]string{ann + "A: b\nthis is text\n", bob + "C: d\n\n"}, 1, 0},
		"Thunderbird":              {[]string{dash("Mon Jul 04 09:00:00") + "A: b\n\nx\n", dash("Tue Jul  5 9:00:00") + "A: b\n\nFrom here\n\n"}, 1, 1},
		"Gmail":                    {[]string{"From 1234567@xxx Mon Jan 05 10:00:00 +0000 2026\nA: b\n\nx\n", "From 1234568@xxx Mon Jan 05 10:00:00 +0000 2026\nA: b\n\n"}, 1, 0},
		"pipermail":                {[]string{"From ann at contoso.com  Mon Jan  5 10:00:00 2026\nA: b\n\nx\n", "From bob.b at contoso.com  Mon Jan  5 10:00 2026\nA: b\n\n"}, 1, 0},
		"a sender of many words":   {[]string{ann + "A: b\n\nx\n", "From Bob B. Mon Jan  5 10:00:00 2026\nA: b\n\n", "From \"Bob B.\"@contoso.com Mon Jan  5 10:00:00 2026 remote from x\nA: b\n\n"}, 1, 0},
		"zones":                    {[]string{ann + "A: b\n\nx\n", "From c Wed Aug  2 00:39:12 MET DST 1995\nA: b\n\nx\n", "From c Wed Aug  2 00:39:12 95\nA: b\n\nx\n", "From c Wed Aug  2 00:39:12 1995 +0200\nA: b\n\n"}, 3, 0},
		"no sender":                {[]string{ann + "A: b\n\nx\n", "From Mon Jan  5 10:00:00 2026\nA: b\n\n", "From mon Mon Jan  5 10:00:00 2026\nA: b\n\n"}, 1, 0},
		"no dates at all":          {[]string{"From ann\nA: b\n\nx\n\n", "From bob\nA: b\n\nFrom here\non\n\nFrom x\n"}, 0, 2},
		"a date of another form":   {[]string{"From ann Mon, 5 Jan 2026 10:00:00 +0100\nA: b\n\nx\n\n", "From bob Mon, 5 Jan 2026 10:00:00 +0100\nA: b\n\n"}, 0, 0},
		"no such day or time":      {[]string{ann + "A: b\n\nx\n\nFrom c Wed Aug 32 00:39:12 1995\nA: b\n\nFrom c Wed Aug  2 24:39:12 1995\nA: b\n"}, 0, 2},
		"no space, lower case":     {[]string{ann + "\n\nFrom: b Mon Jan  5 10:00:00 2026\n\nfrom b Mon Jan  5 10:00:00 2026\n"}, 0, 0},
		"what is not empty":        {[]string{ann + "A: b\n\n \n" + bob + "x\n\r\r\n" + bob + "x\n\r" + bob + "x\n"}, 0, 2},
		"cut":                      {[]string{ann + "\n\nFrom"}, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			got, m, err := split(strings.NewReader(strings.Join(test.messages, "")), api.AutoFormat, 100)
			if err != nil || !slices.Equal(got, test.messages) {
				t.Fatalf("%q, %v; want %q", got, err, test.messages)
			}
			if want := (mbox.Count{Messages: int64(len(got)), NoEmptyLine: test.noEmpty, FromText: test.in}); m.Count() != want {
				t.Errorf("counted %+v, want %+v", m.Count(), want)
			}
		})
	}
}

// sizedMessage makes a message of an mboxcl2 with a stated length, and n bytes of body.
func sizedMessage(from, body string, length int) string {
	return from + fmt.Sprintf("Subject: s\nContent-Length: %d\n\n", length) + body
}

func TestAContentLengthIsUsedIfItEndsAtAMessage(t *testing.T) {
	forwarded := "see:\n\n" + bob + "Subject: forwarded\n\nFrom x\n"
	long := forwarded + strings.Repeat("a line of the body\n", 450_000)
	n := len(forwarded)
	for name, test := range map[string]struct {
		messages []string
		cl2      bool // whether the format mboxcl2 takes it
	}{
		"right":                  {[]string{sizedMessage(ann, forwarded+"\n", n), sizedMessage(bob, "y\n", 2)}, true},
		"to the end":             {[]string{sizedMessage(ann, forwarded, n)}, true},
		"without the line's end": {[]string{sizedMessage(ann, forwarded+"\n", n-1), sizedMessage(bob, "y\n", 1)}, true},
		"with the empty line":    {[]string{sizedMessage(ann, forwarded+"\n", n+1), sizedMessage(bob, "y\n", 2)}, true},
		"no empty line":          {[]string{sizedMessage(ann, forwarded, n), sizedMessage(bob, "y\n", 2)}, true},
		"to a line of any form":  {[]string{sizedMessage(ann, "x\n\n", 2), sizedMessage("From b\n", "y", 1)}, true},
		"too long":               {[]string{sizedMessage(ann, "x\n\n", 200), sizedMessage(bob, "y\n\n", 2), sizedMessage(ann, "z\n", 2)}, false},
		"too short":              {[]string{sizedMessage(ann, "xxxxxxxx\n\n", 3), sizedMessage(bob, "y\n\n", 2)}, false},
		"into the middle":        {[]string{sizedMessage(ann, "see:\n\n", n-3), bob + "Subject: forwarded\n\nFrom x\n\n", sizedMessage(bob, "y\n", 2)}, false},
		"past the end":           {[]string{sizedMessage(ann, "x\n\n", 1<<40), sizedMessage(bob, "y\n", 2)}, false},
		"not a number":           {[]string{ann + "Content-Length: many\n\nx\n\n", bob + "content-length: -3\n\ny\n"}, true},
		"in the body":            {[]string{ann + "A: b\n\nContent-Length: 500\n\n", bob + "A: b\n\n" + strings.Repeat("x", 500)}, true},
		"twice":                  {[]string{ann + "Content-Length: 2\nContent-Length: 400\n\nx\n\n", bob + "A: b\n\n"}, true},
		"large":                  {[]string{sizedMessage(ann, long+"\n", len(long)), sizedMessage(bob, "y\n", 2)}, true},
	} {
		t.Run(name, func(t *testing.T) {
			mbox := strings.Join(test.messages, "")
			for _, format := range []api.MailFormat{api.AutoFormat, api.MboxCL2} {
				got, _, err := split(strings.NewReader(mbox), format, 4096)
				if format == api.MboxCL2 && !test.cl2 {
					if !fail.Is(err, api.InvalidArgument) || !strings.Contains(err.Error(), "the Content-Length of message ") {
						t.Errorf("%s: %q, %v", format, got, err)
					}
					continue
				}
				want := test.messages
				if name == "large" && format == api.AutoFormat { // further than is looked ahead
					want = []string{mbox[:strings.Index(mbox, bob)], mbox[strings.Index(mbox, bob):strings.LastIndex(mbox, bob)], test.messages[1]}
				}
				if err != nil || !slices.Equal(got, want) {
					t.Errorf("%s: %.200q, %v", format, got, err)
				}
			}
		})
	}
}

func TestMboxrdEndsAMessageAtEachFromLine(t *testing.T) {
	want := []string{"From x\n\nFromage\n>From z\n", "From y\n", ann + "Content-Length: 1000\n", bob + "\n", "From "}
	got, m, err := split(strings.NewReader(strings.Join(want, "")), api.MboxRD, 100)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	if c := m.Count(); c.NoEmptyLine != 3 || c.FromText != 0 {
		t.Errorf("counted %+v", c)
	}
}

func TestErrorShowsTheBeginningOfATextThatIsNotAnMbox(t *testing.T) {
	for mbox, shown := range map[string]string{
		"\n":                          `""`,
		"From":                        `"From"`,
		"from a\n":                    `"from a"`,
		"\nfrom a\n":                  `"from a"`,
		bom + "x: y\n":                `"x: y"`,
		"PK\x03\x04\x00\xff zip":      `"PK\x03\x04\x00\xff zip"`,
		strings.Repeat("long ", 99):   `"long long long long long"`,
		strings.Repeat("\n", 100_000): `""`,
	} {
		_, _, err := split(strings.NewReader(mbox), api.AutoFormat, 100)
		if !fail.Is(err, api.InvalidArgument) || !strings.Contains(err.Error(), "its first line begins with "+strings.TrimSuffix(shown, `"`)) {
			t.Errorf("%.20q: %v", mbox, err)
		}
	}
}

func TestAReadErrorOfAnMboxIsReturned(t *testing.T) {
	broken := errors.New("broken")
	mbox := ann + "\nx\n\n" + bob + "\ny\n"
	for n := range len(mbox) {
		r := io.MultiReader(strings.NewReader(mbox[:n]), iotest.ErrReader(broken))
		if _, _, err := split(r, api.AutoFormat, 100); !errors.Is(err, broken) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}

func TestSkippedMessagesAreNotReadTwice(t *testing.T) {
	m := mbox.New(strings.NewReader(ann+"\n"+strings.Repeat("x\n", 100_000)+"\n"+bob+"\ny\n"), api.AutoFormat)
	for range 2 {
		if err := m.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := io.ReadAll(m); err != nil || string(got) != bob+"\ny\n" {
		t.Errorf("%q, %v", got, err)
	}
	if err := m.Next(); err != io.EOF {
		t.Error(err)
	}
}

func TestMemoryDoesNotGrowWithTheSizeOfAMessage(t *testing.T) {
	buf := make([]byte, 32<<10)
	for _, line := range []string{"a line\n", "\n", "no line end at all"} {
		allocs := testing.AllocsPerRun(1, func() {
			m := mbox.New(io.MultiReader(strings.NewReader("From a\n"), &mboxtest.Endless{Line: line, Left: 1 << 20}), api.AutoFormat)
			if err := m.Next(); err != nil {
				t.Fatal(err)
			}
			n, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{m}, buf)
			if err != nil || n < 1<<20 {
				t.Fatalf("%d bytes, %v", n, err)
			}
		})
		if allocs > 20 {
			t.Errorf("%q: %v allocations for 1 MiB", line, allocs)
		}
	}
}

func FuzzMbox(f *testing.F) {
	for _, seed := range []string{"", "From ", ann + "A: b\n\nx\n\n" + bob + "A: b\n\ny\n", "From a\r\n\r\n\r\nFrom b", "\n" + ann + "\n>From b\n\nFrom", "From \x00\xff\n\n\nFrom \r\n\r\nFrom ",
		bom + sizedMessage(ann, "x\n"+bob+"A: b\n", 60) + sizedMessage(bob, "x\n\n", 2) + ann, sizedMessage(ann, "x", 9)} {
		f.Add([]byte(seed), uint8(3), uint8(0))
	}
	formats := []api.MailFormat{api.AutoFormat, api.MboxRD, api.MboxCL2}
	f.Fuzz(func(t *testing.T, mbox []byte, size, format uint8) {
		messages, m, err := split(iotest.HalfReader(bytes.NewReader(mbox)), formats[int(format)%len(formats)], int(size)+1)
		if !bytes.HasPrefix(bytes.TrimLeft(bytes.TrimPrefix(mbox, []byte(bom)), "\r\n"), []byte("From ")) && len(mbox) > 0 {
			if !fail.Is(err, api.InvalidArgument) {
				t.Fatalf("not an mbox: %v", err)
			}
			return
		}
		if formats[int(format)%len(formats)] == api.MboxCL2 && fail.Is(err, api.InvalidArgument) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if strings.Join(messages, "") != string(mbox) || m.Count().Messages != int64(len(messages)) {
			t.Fatal("the messages are not the mbox")
		}
		for i, message := range messages[min(1, len(messages)):] {
			if !strings.HasPrefix(strings.TrimPrefix(message, bom), "From ") {
				t.Fatalf("message %d does not begin one", i+1)
			}
		}
	})
}

func BenchmarkMbox(b *testing.B) {
	all := strings.Repeat(ann+"Subject: x\n\n"+strings.Repeat("a line of some length, as mail has them\n", 100)+"\n", 250)
	buf := make([]byte, 64<<10)
	b.SetBytes(int64(len(all)))
	for b.Loop() {
		m := mbox.New(strings.NewReader(all), api.AutoFormat)
		for m.Next() == nil {
			if _, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{m}, buf); err != nil {
				b.Fatal(err)
			}
		}
	}
}
