package content_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"keyroll/api"
	"keyroll/internal/content"
	"keyroll/internal/fail"
)

// split reads an mbox to its end, each message by reads of size bytes.
func split(r io.Reader, size int) (messages []string, err error) {
	m := content.NewMbox(r)
	for {
		err := m.Next()
		if err == io.EOF {
			return messages, nil
		}
		if err != nil {
			return messages, err
		}
		var message bytes.Buffer
		if _, err := io.CopyBuffer(&message, struct{ io.Reader }{m}, make([]byte, size)); err != nil {
			return messages, err
		}
		messages = append(messages, message.String())
	}
}

// splitLines is the rule written down once more, over all bytes at once.
func splitLines(mbox string) (messages []string) {
	before := "\n"
	for line := range strings.Lines(mbox) {
		if strings.HasPrefix(line, "From ") && (before == "\n" || before == "\r\n") {
			messages = append(messages, "")
		}
		messages[len(messages)-1] += line
		before = line
	}
	return messages
}

// mboxes generates mboxes with much of what could go wrong in them.
func mboxes() *rapid.Generator[string] {
	line := rapid.OneOf(
		rapid.SampledFrom([]string{"\n", "\n", "\n", "\r\n", "\r\n", "\r", "From ", "From a@b Mon Jan  1 00:00:00 2024\n", "From x\r\n", ">From y\n", ">>From z\n",
			"from x\n", " From x\n", "Subject: s\n", "Subject: =?utf-8?q?caf=C3=A9?=\r\n\tfolded\r\n", "Status: RO\n", "body\n", "\x00\n", "\xff\xfe\n", "no end"}),
		rapid.Custom(func(t *rapid.T) string { return string(rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "junk")) }),
		// What makes the next lines straddle the end of the reader's buffer.
		rapid.Custom(func(t *rapid.T) string {
			return strings.Repeat("h", rapid.IntRange(65_500, 65_560).Draw(t, "long")) + rapid.SampledFrom([]string{"", "\n", "\r\n", "\n\n", "\r\n\r\n"}).Draw(t, "end")
		}),
	)
	return rapid.Custom(func(t *rapid.T) string {
		lines := rapid.SliceOfN(line, 0, 40).Draw(t, "lines")
		return "From " + strings.Join(lines, "")
	})
}

func TestAnMboxIsItsMessagesInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mbox := mboxes().Draw(t, "mbox")
		want := splitLines(mbox)
		reader := rapid.SampledFrom([]func(io.Reader) io.Reader{
			func(r io.Reader) io.Reader { return r }, iotest.HalfReader, iotest.DataErrReader, iotest.OneByteReader,
		}).Draw(t, "reader")
		size := rapid.SampledFrom([]int{1, 2, 5, 7, 4096, 64 << 10, 1 << 20}).Draw(t, "size")
		got, err := split(reader(strings.NewReader(mbox)), size)
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

func TestMessagesBeginAtFromLinesAfterEmptyLines(t *testing.T) {
	for name, test := range map[string]struct {
		mbox string
		want []string
	}{
		"nothing":            {"", nil},
		"LF":                 {"From a\n\nx\n\nFrom b\n\ny\n", []string{"From a\n\nx\n\n", "From b\n\ny\n"}},
		"CRLF":               {"From a\r\n\r\nx\r\n\r\nFrom b\r\n", []string{"From a\r\n\r\nx\r\n\r\n", "From b\r\n"}},
		"mixed":              {"From a\n\r\nFrom b\r\n\nFrom c", []string{"From a\n\r\n", "From b\r\n\n", "From c"}},
		"no empty line":      {"From a\nFrom b\n", []string{"From a\nFrom b\n"}},
		"quoted":             {"From a\n\n>From b\n", []string{"From a\n\n>From b\n"}},
		"no space":           {"From a\n\nFrom: b\n", []string{"From a\n\nFrom: b\n"}},
		"lower case":         {"From a\n\nfrom b\n", []string{"From a\n\nfrom b\n"}},
		"a space is a line":  {"From a\n \nFrom b\n", []string{"From a\n \nFrom b\n"}},
		"a bare CR is none":  {"From a\n\rFrom b\n", []string{"From a\n\rFrom b\n"}},
		"two CRs are a line": {"From a\n\r\r\nFrom b\n", []string{"From a\n\r\r\nFrom b\n"}},
		"cut From":           {"From a\n\nFrom", []string{"From a\n\nFrom"}},
		"several empty":      {"From a\n\n\n\nFrom b\n", []string{"From a\n\n\n\n", "From b\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := split(strings.NewReader(test.mbox), 100)
			if err != nil || len(got) != len(test.want) {
				t.Fatalf("%q, %v; want %q", got, err, test.want)
			}
			for i := range got {
				if got[i] != test.want[i] {
					t.Errorf("message %d is %q, want %q", i, got[i], test.want[i])
				}
			}
		})
	}
}

func TestWhatIsNoMboxIsNamed(t *testing.T) {
	for mbox, shown := range map[string]string{
		"\n":                        `""`,
		"From":                      `"From"`,
		"from a\n":                  `"from a"`,
		"\nFrom a\n":                `""`,
		"PK\x03\x04\x00\xff zip":    `"PK\x03\x04\x00\xff zip"`,
		strings.Repeat("long ", 99): `"long long long long long"`,
	} {
		_, err := split(strings.NewReader(mbox), 100)
		if !fail.Is(err, api.InvalidArgument) || !strings.Contains(err.Error(), "line 1 begins with "+strings.TrimSuffix(shown, `"`)) {
			t.Errorf("%.20q: %v", mbox, err)
		}
	}
}

func TestAnMboxThatFailsToReadTellsWhy(t *testing.T) {
	broken := errors.New("broken")
	mbox := "From a\n\nx\n\nFrom b\n\ny\n"
	for n := range len(mbox) {
		r := io.MultiReader(strings.NewReader(mbox[:n]), iotest.ErrReader(broken))
		if _, err := split(r, 100); !errors.Is(err, broken) && !(n < 5 && n > 0 && fail.Is(err, api.InvalidArgument)) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}

func TestSkippedMessagesAreNotReadTwice(t *testing.T) {
	m := content.NewMbox(strings.NewReader("From a\n\n" + strings.Repeat("x\n", 100_000) + "\nFrom b\n\ny\n"))
	for range 2 {
		if err := m.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := io.ReadAll(m); err != nil || string(got) != "From b\n\ny\n" {
		t.Errorf("%q, %v", got, err)
	}
	if err := m.Next(); err != io.EOF {
		t.Error(err)
	}
}

// endless delivers the same line over and over.
type endless struct {
	line string
	left int
}

func (e *endless) Read(p []byte) (int, error) {
	if e.left <= 0 {
		return 0, io.EOF
	}
	n := copy(p, e.line)
	e.left -= n
	return n, nil
}

func TestAMessageOfAnySizeTakesNoMoreMemory(t *testing.T) {
	buf := make([]byte, 32<<10)
	for _, line := range []string{"a line\n", "\n", "no line end at all"} {
		allocs := testing.AllocsPerRun(1, func() {
			m := content.NewMbox(io.MultiReader(strings.NewReader("From a\n"), &endless{line, 1 << 20}))
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
	for _, seed := range []string{"", "From ", "From a\n\nx\n\nFrom b\n\ny\n", "From a\r\n\r\n\r\nFrom b", "From a\n\n>From b\n\nFrom", "From \x00\xff\n\n\nFrom \r\n\r\nFrom "} {
		f.Add([]byte(seed), uint8(3))
	}
	f.Fuzz(func(t *testing.T, mbox []byte, size uint8) {
		messages, err := split(iotest.HalfReader(bytes.NewReader(mbox)), int(size)+1)
		if len(mbox) > 0 && !bytes.HasPrefix(mbox, []byte("From ")) {
			if !fail.Is(err, api.InvalidArgument) {
				t.Fatalf("no mbox: %v", err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if strings.Join(messages, "") != string(mbox) {
			t.Fatal("the messages are not the mbox")
		}
		for i, m := range messages {
			if !strings.HasPrefix(m, "From ") {
				t.Fatalf("message %d does not begin one", i)
			}
		}
	})
}

func BenchmarkMbox(b *testing.B) {
	mbox := strings.Repeat("From a\nSubject: x\n\n"+strings.Repeat("a line of some length, as mail has them\n", 100)+"\n", 250)
	buf := make([]byte, 64<<10)
	b.SetBytes(int64(len(mbox)))
	for b.Loop() {
		m := content.NewMbox(strings.NewReader(mbox))
		for m.Next() == nil {
			if _, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{m}, buf); err != nil {
				b.Fatal(err)
			}
		}
	}
}
