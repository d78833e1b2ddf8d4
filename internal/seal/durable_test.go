package seal_test

import (
	"testing"

	"keyroll/internal/files"
	"keyroll/internal/files/filestest"
	"keyroll/internal/seal"
)

// A seal that was opened once, so that something may have been sealed, never changes;
// before that it may be absent.
func TestSealSurvivesAPowerCutAtEveryFileOperation(t *testing.T) {
	filestest.Run(t, filestest.Scenario[string]{
		Begin: func(t testing.TB, f files.FS, _ *string) {
			if err := files.MkdirAll(f, "/srv"); err != nil {
				t.Fatal(err)
			}
		},
		Act: func(f files.FS, id *string) {
			if s, err := seal.OpenOn(f, "/srv/seal"); err == nil {
				*id = s.ID()
			}
		},
		Check: func(t testing.TB, f files.FS, id *string, _ int) {
			s, err := seal.OpenOn(f, "/srv/seal")
			if err != nil {
				t.Fatal(err)
			}
			if *id != "" && *id != s.ID() {
				t.Errorf("seal %s has become %s", *id, s.ID())
			}
			*id = s.ID()
		},
	})
}
