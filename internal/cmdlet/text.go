package cmdlet

import (
	"bytes"
	"encoding/binary"
	"strings"
	"unicode/utf16"

	"keyroll/api"
	"keyroll/internal/fail"
)

// DecodeText returns the text of a file as PowerShell reads it: by its byte order
// mark UTF-16, as Windows PowerShell writes files, or UTF-8, and UTF-8 without one.
// The mark is not part of the text.
func DecodeText(raw []byte) (string, error) {
	if text, ok := bytes.CutPrefix(raw, []byte("\xef\xbb\xbf")); ok {
		return string(text), nil
	}
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(raw, []byte("\xff\xfe\x00\x00")), bytes.HasPrefix(raw, []byte("\x00\x00\xfe\xff")):
		return "", notText("UTF-32")
	case bytes.HasPrefix(raw, []byte("\xff\xfe")):
		order = binary.LittleEndian
	case bytes.HasPrefix(raw, []byte("\xfe\xff")):
		order = binary.BigEndian
	case len(raw) > 1 && (raw[0] == 0) != (raw[1] == 0): // a NUL in every second byte
		return "", notText("UTF-16 without a byte order mark")
	default:
		return string(raw), nil
	}
	raw = raw[2:]
	if len(raw)%2 != 0 {
		return "", fail.New(api.InvalidArgument, "the text is in UTF-16, and its last character is incomplete").WithHint("save it as UTF-8")
	}
	units := make([]uint16, 0, len(raw)/2)
	for ; len(raw) > 0; raw = raw[2:] {
		units = append(units, order.Uint16(raw))
	}
	var text strings.Builder
	for i := 0; i < len(units); i++ {
		r := rune(units[i])
		if utf16.IsSurrogate(r) {
			if i+1 < len(units) {
				r = utf16.DecodeRune(r, rune(units[i+1]))
			}
			if i++; utf16.IsSurrogate(r) || r == 0xfffd {
				return "", fail.New(api.InvalidArgument, "the text is in UTF-16, and its character number %d is half of one", i).WithHint("save it as UTF-8")
			}
		}
		text.WriteRune(r)
	}
	return text.String(), nil
}

func notText(encoding string) error {
	return fail.New(api.InvalidArgument, "the text is in %s, which is not supported", encoding).WithHint("save it as UTF-8, or as UTF-16 with a byte order mark")
}
