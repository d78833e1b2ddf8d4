package backup_test

import (
	"testing"

	"keyroll/api"
)

// The rows of a container are not cleared if the container exists.
func TestRowsOfAnExistingContainerAreNotDeleted(t *testing.T) {
	each(t, func(t *testing.T, w *fixture) {
		w.MustPut(t, "file", "content")
		w.Exec(t, `INSERT INTO unfinished (container, tenant, copying) VALUES (?1, ?2, 0)`, w.Site.ID, tenant)
		before := w.AllRows(t)
		wantCode(t, w.Backups.DeleteLeftoverRows(t.Context(), tenant), api.Damaged)
		if after := w.AllRows(t); after != before || w.MustGet(t, "file") != "content" {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
	})
}
