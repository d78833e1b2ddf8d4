package main

import (
	"bytes"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/terminal"
)

// A list of several pages is printed page by page, in the columns of the first one, and as
// one sequence of JSON objects.
func TestListPrintsEachPageBeforeItReadsTheNext(t *testing.T) {
	pages := map[string]api.List[api.File]{
		"":  {Items: []api.File{{Path: "a", Bytes: 1}, {Path: "ü", Bytes: 22}}, Next: "2"},
		"2": {Items: []api.File{{Path: "c", Bytes: 333333}}, Next: "3"},
		"3": {Items: []api.File{{Path: "d\x1b", Bytes: 4}}},
	}
	for _, asJSON := range []bool{false, true} {
		var out bytes.Buffer
		var lines []int // printed before each page
		e := &env{Terminal: terminal.Terminal{Out: &out, JSON: asJSON}}
		err := listPages(e, "bytes path", func(f api.File) []any { return []any{f.Bytes, f.Path} }, func(in api.PageInput) (api.List[api.File], error) {
			lines = append(lines, strings.Count(out.String(), "\n"))
			return pages[in.After], nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if !asJSON {
			if want := "BYTES  PATH\n1      a\n22     ü\n333333  c\n4      d\\u001b\n"; out.String() != want {
				t.Errorf("%q, want %q", out.String(), want)
			}
			if lines[0] != 0 || lines[1] != 3 || lines[2] != 4 {
				t.Errorf("lines before each page: %v", lines)
			}
		} else if strings.Count(out.String(), `{"path":`) != 4 || lines[1] != 2 || lines[2] != 3 {
			t.Errorf("%s, lines before each page: %v", out.String(), lines)
		}
	}
}
