package store_test

import (
	"reflect"
	"testing"

	"keyroll/internal/store"
)

func TestParametersOfSelectionsFollowThoseOfTheirStatement(t *testing.T) {
	in, args := store.Select(`SELECT id FROM page WHERE tenant = ?1 AND class = ?2`, "t", "c").In([]any{"u", "w"})
	if want := `(SELECT id FROM page WHERE tenant = ?3 AND class = ?4)`; in != want || !reflect.DeepEqual(args, []any{"u", "w", "t", "c"}) {
		t.Errorf("%s with %v", in, args)
	}
	in, args = store.Select(`SELECT id FROM box WHERE page IN `+in+` AND tenant = ?1 AND older < ?2`, args...).In([]any{"x"})
	want := `(SELECT id FROM box WHERE page IN (SELECT id FROM page WHERE tenant = ?4 AND class = ?5) AND tenant = ?2 AND older < ?3)`
	if in != want || !reflect.DeepEqual(args, []any{"x", "u", "w", "t", "c"}) {
		t.Errorf("%s with %v", in, args)
	}
}
