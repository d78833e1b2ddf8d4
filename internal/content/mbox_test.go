package content_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"keyroll/api"
	"keyroll/internal/content"
	"keyroll/internal/fail"
)

// split reads an mbox to its end, each message with reads of size bytes.
func split(r io.Reader, format api.MailFormat, size int) (messages []string, m *content.Mbox, err error) {
	m = content.NewMbox(r, format)
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

const bom = "\xef\xbb\xbf"

var (
	asctime = regexp.MustCompile(`^From .*(Mon|Tue|Wed|Thu|Fri|Sat|Sun) (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) +\d+ \d\d:\d\d:\d\d( [+]\d+)? \d{4}\r?\n?$`)
	field   = regexp.MustCompile(`^[!-9;-~]{1,99}[ \t]*:`)
)

// splitLines is a second implementation of the format auto, over all lines at once and
// without Content-Length.
func splitLines(mbox string) (messages []string) {
	lines := slices.Collect(strings.Lines(mbox))
	from := func(i int) bool { return strings.HasPrefix(strings.TrimPrefix(lines[i], bom), "From ") }
	dated := func(i int) bool { // in a line of at most 1,000 bytes
		line := strings.TrimPrefix(lines[i], bom)
		return len(line) <= 1000 && asctime.MatchString(line)
	}
	first := 0
	for first < len(lines) && strings.Trim(strings.TrimPrefix(lines[first], bom), "\r\n") == "" {
		first++
	}
	header := true
	for i, line := range lines {
		empty := i > first && strings.Trim(lines[i-1], "\r\n") == "" && !strings.HasPrefix(lines[i-1], "\r\r")
		fieldFollows := i+1 < len(lines) && field.MatchString(lines[i+1])
		switch {
		case i == 0, i > first && from(i) && (dated(i) && (empty || !header && fieldFollows) || !dated(i) && empty && fieldFollows && !dated(first)):
			messages = append(messages, "")
			header = true
		case i > first && !(field.MatchString(line) || from(i) && !strings.HasPrefix(line, bom) || strings.HasPrefix(line, ">From ") || strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t")):
			header = false
		}
		messages[len(messages)-1] += line
	}
	return messages
}

// mboxes generates mboxes with many irregularities.
func mboxes() *rapid.Generator[string] {
	line := rapid.OneOf(
		rapid.SampledFrom([]string{"\n", "\n", "\n", "\r\n", "\r\n", "\r", "From ", "From a@b Mon Jan  1 00:00:00 2024\n", "From - Mon Jan 01 00:00:00 2024\r\n", "From x\r\n", "From where I stand\n",
			">From y\n", ">>From z\n", "from x\n", " From x\n", "Subject: s\n", "Subject: =?utf-8?q?caf=C3=A9?=\r\n\tfolded\r\n", "Status: RO\n", "body\n", "\x00\n", "\xff\xfe\n", "no end", bom,
			"From 12@xxx Mon Jan 01 00:00:00 +0000 2024\nTo: x\n",
			"\n\nFrom " + strings.Repeat("h", 960) + " Mon Jan  1 00:00:00 2024\n", "\n\nFrom " + strings.Repeat("h", 980) + " Mon Jan  1 00:00:00 2024\n"}),
		rapid.Custom(func(t *rapid.T) string { return string(rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "junk")) }),
		// Filler that makes the next lines cross the end of the reader's buffer.
		rapid.Custom(func(t *rapid.T) string {
			return strings.Repeat("h", rapid.IntRange(65_400, 65_560).Draw(t, "long")) + rapid.SampledFrom([]string{"", "\n", "\r\n", "\n\n", "\r\n\r\n"}).Draw(t, "end")
		}),
	)
	return rapid.Custom(func(t *rapid.T) string {
		lines := rapid.SliceOfN(line, 0, 40).Draw(t, "lines")
		begin := rapid.SampledFrom([]string{"From ", "From a@b Mon Jan  1 00:00:00 2024\n", bom + "From ", "\n\r\nFrom ", bom + "\nFrom - Mon Jan  1 00:00:00 2024\nX: y\n"}).Draw(t, "begin")
		return begin + strings.Join(lines, "")
	})
}

func TestAnMboxYieldsItsMessagesInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mbox := mboxes().Draw(t, "mbox")
		want := splitLines(mbox)
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
	ann = "From ann@contoso.com Mon Jan  5 10:00:00 2026\n"
	bob = "From bob@contoso.com Tue Jan  6 11:00:00 2026\n"
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
			if want := (content.MboxCount{Messages: int64(len(got)), NoEmptyLine: test.noEmpty, FromText: test.in}); content.CountOf(m) != want {
				t.Errorf("counted %+v, want %+v", content.CountOf(m), want)
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
	if c := content.CountOf(m); c.NoEmptyLine != 3 || c.FromText != 0 {
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
	m := content.NewMbox(strings.NewReader(ann+"\n"+strings.Repeat("x\n", 100_000)+"\n"+bob+"\ny\n"), api.AutoFormat)
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

// endless returns the same line over and over.
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

func TestMemoryDoesNotGrowWithTheSizeOfAMessage(t *testing.T) {
	buf := make([]byte, 32<<10)
	for _, line := range []string{"a line\n", "\n", "no line end at all"} {
		allocs := testing.AllocsPerRun(1, func() {
			m := content.NewMbox(io.MultiReader(strings.NewReader("From a\n"), &endless{line, 1 << 20}), api.AutoFormat)
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
		if strings.Join(messages, "") != string(mbox) || content.CountOf(m).Messages != int64(len(messages)) {
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
	mbox := strings.Repeat(ann+"Subject: x\n\n"+strings.Repeat("a line of some length, as mail has them\n", 100)+"\n", 250)
	buf := make([]byte, 64<<10)
	b.SetBytes(int64(len(mbox)))
	for b.Loop() {
		m := content.NewMbox(strings.NewReader(mbox), api.AutoFormat)
		for m.Next() == nil {
			if _, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{m}, buf); err != nil {
				b.Fatal(err)
			}
		}
	}
}
