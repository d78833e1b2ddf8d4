package server

import (
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

func FuzzRangeIsWithinTheContent(f *testing.F) {
	for _, s := range []string{"", "bytes=0-0", "bytes=-5", "bytes=5-", "bytes=9-3", "bytes=0-1,2-3", "bytes=-", "bytes=--", "bytes=99999999999999999999-", "lines=1-2", "bytes"} {
		f.Add(s, int64(10))
		f.Add(s, int64(0))
	}
	f.Fuzz(func(t *testing.T, header string, size int64) {
		size &= 1<<63 - 1
		r, err := parseRange(header, size)
		if err != nil {
			return
		}
		if r.off < 0 || r.length < 0 || r.off > size-r.length {
			t.Fatalf("%q of %d bytes is %+v", header, size, r)
		}
		if !r.partial && (r.off != 0 || r.length != size) || r.partial && r.length == 0 {
			t.Fatalf("%q of %d bytes is %+v", header, size, r)
		}
		if r.partial && !strings.HasSuffix(r.contentRange(size), "/"+strconv.FormatInt(size, 10)) {
			t.Fatal(r.contentRange(size))
		}
	})
}

func FuzzLocationIsShortAndPrintable(f *testing.F) {
	for _, s := range []string{"body.name", "query.\x00", "body." + strings.Repeat("ä", 200), "\xff", "\u202e", `"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := location(s)
		if len(got) > 10*80 || !utf8.ValidString(got) {
			t.Fatalf("%q", got)
		}
		for _, r := range got {
			if !strconv.IsGraphic(r) {
				t.Fatalf("%q holds %U", got, r)
			}
		}
	})
}
