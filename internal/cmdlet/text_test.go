package cmdlet

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"keyroll/api"
	"keyroll/internal/fail"
)

// inUTF16 is text with a byte order mark.
func inUTF16(order binary.AppendByteOrder, text string) (raw []byte) {
	for _, unit := range utf16.Encode([]rune("\ufeff" + text)) {
		raw = order.AppendUint16(raw, unit)
	}
	return raw
}

func TestByteOrderMarkSelectsTheEncoding(t *testing.T) {
	const text = "New-Mailbox 'zoë 𝄞'\r\n"
	for name, raw := range map[string][]byte{"plain": []byte(text), "UTF-8": []byte("\ufeff" + text), "little": inUTF16(binary.LittleEndian, text), "big": inUTF16(binary.BigEndian, text)} {
		if got, err := DecodeText(raw); err != nil || got != text {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for want, raw := range map[string]string{
		"its last character is incomplete": "\xff\xfea\x00b",
		"character number 2 is half":       "\xff\xfea\x00\x00\xd8b\x00",
		"character number 1 is half":       "\xfe\xff\xd8\x00",
		"UTF-16 without a byte order mark": "G\x00e\x00",
		"in UTF-32":                        "\xff\xfe\x00\x00G\x00\x00\x00",
	} {
		if _, err := DecodeText([]byte(raw)); !fail.Is(err, api.InvalidArgument) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", raw, err)
		}
	}
	if got, err := DecodeText(nil); got != "" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestStandardInputMayBeUTF16(t *testing.T) {
	path := filepath.Join(t.TempDir(), "script.ps1")
	if err := os.WriteFile(path, inUTF16(binary.BigEndian, "New-Mailbox a\r\n(Get-Mailbox).Count\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out, errOut bytes.Buffer
	o := newRecorder().options(&out, &errOut)
	o.JSON = true
	if err := Interact(context.Background(), f, o); err != nil || !strings.HasSuffix(out.String(), "\n2\n") {
		t.Errorf("%v, %q", err, out.String())
	}
}

func FuzzDecodeText(f *testing.F) {
	f.Add([]byte("\xff\xfea\x00"))
	f.Fuzz(func(t *testing.T, raw []byte) { _, _ = DecodeText(raw) })
}
