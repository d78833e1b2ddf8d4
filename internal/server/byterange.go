package server

import (
	"fmt"
	"strconv"
	"strings"

	"keyroll/api"
	"keyroll/internal/fail"
)

// byteRange is the part of a file that is sent.
type byteRange struct {
	off, length int64
	partial     bool // the response is a range (206)
}

func (b byteRange) contentRange(size int64) string {
	return fmt.Sprintf("bytes %d-%d/%d", b.off, b.off+b.length-1, size)
}

// parseRange parses a Range header for content of size bytes (RFC 9110, section
// 14.1.2). For a unit other than bytes, or several ranges, it returns the whole
// content, as that section allows; a malformed header is fail InvalidArgument.
func parseRange(header string, size int64) (byteRange, error) {
	whole := byteRange{length: size}
	unit, spec, _ := strings.Cut(header, "=")
	if !strings.EqualFold(strings.TrimSpace(unit), "bytes") || strings.Contains(spec, ",") {
		return whole, nil
	}
	malformed := fail.New(api.InvalidArgument, "header Range: is not of the form bytes=FIRST-LAST, bytes=FIRST- or bytes=-COUNT")
	beyond := fail.New(api.RangeNotSatisfiable, "the range is outside the %d bytes of the file", size)
	first, last, ok := strings.Cut(strings.TrimSpace(spec), "-")
	if !ok {
		return whole, malformed
	}
	if first == "" {
		count, err := position(last)
		if err != nil {
			return whole, malformed
		}
		if count == 0 {
			return whole, beyond
		}
		if size == 0 {
			return whole, nil // satisfiable, but Content-Range cannot express it
		}
		count = min(count, size)
		return byteRange{size - count, count, true}, nil
	}
	from, err := position(first)
	if err != nil {
		return whole, malformed
	}
	to := size - 1
	if last != "" {
		end, err := position(last)
		if err != nil || end < from {
			return whole, malformed
		}
		to = min(to, end)
	}
	if from >= size {
		return whole, beyond
	}
	return byteRange{from, to - from + 1, true}, nil
}

// position parses digits only; a number above the largest int64 becomes that.
func position(s string) (int64, error) {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, strconv.ErrSyntax
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil && s != "" {
		return 1<<63 - 1, nil
	}
	return n, err
}
