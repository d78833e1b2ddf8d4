package terminal

import (
	"bytes"
	"testing"
)

func TestSizesAreReadAndPrintedInBinaryUnits(t *testing.T) {
	for text, want := range map[string]struct {
		bytes   ByteSize
		printed string
	}{
		"1023":  {1023, "1023 B"},
		"64KiB": {64 << 10, "64.0 KiB"},
		"5MiB":  {5 << 20, "5.0 MiB"},
		"3GiB":  {3 << 30, "3.0 GiB"},
	} {
		var b ByteSize
		if err := b.UnmarshalText([]byte(text)); err != nil || b != want.bytes || Size(int64(b)) != want.printed {
			t.Errorf("%s: %d, %s, %v", text, b, Size(int64(b)), err)
		}
	}
	for _, text := range []string{"", "0", "-1", "KiB", "1kB", "9223372036854775807KiB"} {
		var b ByteSize
		if b.UnmarshalText([]byte(text)) == nil {
			t.Errorf("%q is read as %d bytes", text, b)
		}
	}
}

// A name that a caller chose cannot send control sequences to a terminal.
func TestControlCharactersAreNotPrinted(t *testing.T) {
	var out bytes.Buffer
	Fields(&out, "name", "a\x1b[2J\n")
	if err := NewEncoder(&out).Encode("\x7f\u009b"); err != nil {
		t.Fatal(err)
	}
	if err := Rows(Terminal{Out: &out}, "name", func(s string) []any { return []any{s} })([]string{"b\x07"}); err != nil {
		t.Fatal(err)
	}
	for _, r := range out.String() {
		if r != '\n' && (r < ' ' || r >= 0x7f && r < 0xa0) {
			t.Errorf("%q is printed in %q", r, out.String())
		}
	}
}
