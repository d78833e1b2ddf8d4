package backup_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"keyroll/internal/backup"
	"keyroll/internal/container"
	"keyroll/internal/content"
	"keyroll/internal/content/contenttest"
	"keyroll/internal/longtest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// model is the expected content of sites and their backups after any sequence of acts.
type model struct {
	*fixture
	t       testing.TB
	sites   []*modelSite
	backups []*modelBackup
	readers []*modelReader
	made    int
}

type modelSite struct {
	container.Container
	files map[string]string
}

type modelBackup struct {
	backup.Backup
	files map[string]string
}

type modelReader struct {
	*content.Reader
	want string
}

// TestAnySequenceOfBackupsKeepsEveryItemAndNoOtherBlob compares all content, and the
// blobs in the blob store, with the model after each act. Some acts die at a fault
// point.
func TestAnySequenceOfBackupsKeepsEveryItemAndNoOtherBlob(t *testing.T) {
	contenttest.FewChecks(t, longtest.Of(3, 40))
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newFixture(t, db)
		made := 0
		rapid.Check(t, func(r *rapid.T) {
			m := &model{fixture: w, t: t, made: made}
			defer func() { m.removeBackups(); made = m.made }()
			m.site(r)
			r.Repeat(map[string]func(*rapid.T){
				"site": m.site, "put": m.put, "backup": m.backupAny, "restore": m.restoreAny, "expire": m.expireAny,
				"read": m.read, "close": m.close, "die": m.crash, "fold": m.fold, "collect": func(*rapid.T) { m.fixture.MustCollect(m.t, 0) }, "compact": m.compact, "": m.check,
			})
		})
	})
}

func (m *model) url() string {
	m.made++
	return fmt.Sprintf("https://contoso.sharepoint.com/sites/m%d", m.made)
}

// compact moves blobs, and deletes the objects that they leave.
func (m *model) compact(*rapid.T) {
	m.fixture.MustCompact(m.t)
	m.fixture.MustCollect(m.t, 0)
}

func (m *model) site(r *rapid.T) {
	if len(m.sites) < 3 {
		m.sites = append(m.sites, &modelSite{m.MustCreate(m.t, container.Site, m.url()), map[string]string{}})
	}
}

// drawOne draws one of the model's objects, and skips the act if there is none.
func drawOne[T any](r *rapid.T, all []T) (int, T) {
	if len(all) == 0 {
		r.Skip("there is none")
	}
	i := rapid.IntRange(0, len(all)-1).Draw(r, "which")
	return i, all[i]
}

func (m *model) put(r *rapid.T) {
	_, s := drawOne(r, m.sites)
	m.made++
	path, text := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(r, "path"), contenttest.RandomContent(m.made, rapid.SampledFrom([]int{0, 10, blobSize + 1}).Draw(r, "size"))
	must(m.t, errorOf(m.Put(context.Background(), s.Container, path, -1, strings.NewReader(text))))
	s.files[path] = text
}

func (m *model) backupAny(r *rapid.T) {
	_, s := drawOne(r, m.sites)
	m.backups = append(m.backups, &modelBackup{m.MustBackup(m.t, s.Container), maps.Clone(s.files)})
}

func (m *model) restoreAny(r *rapid.T) {
	_, b := drawOne(r, m.backups)
	m.sites = append(m.sites, &modelSite{m.MustRestore(m.t, b.Backup, m.url()), maps.Clone(b.files)})
}

func (m *model) expireAny(r *rapid.T) {
	i, b := drawOne(r, m.backups)
	m.MustExpire(m.t, b.Backup)
	m.backups = append(m.backups[:i], m.backups[i+1:]...)
}

func (m *model) read(r *rapid.T) {
	_, s := drawOne(r, m.sites)
	text, found := s.files["a"]
	if !found {
		r.Skip("there is none")
	}
	reader, err := m.Open(context.Background(), s.Container, "a")
	must(m.t, err)
	m.readers = append(m.readers, &modelReader{reader, text})
}

func (m *model) close(r *rapid.T) {
	i, reader := drawOne(r, m.readers)
	m.finish(reader)
	m.readers = append(m.readers[:i], m.readers[i+1:]...)
}

// finish reads a file that was opened earlier, whatever happened in the meantime.
func (m *model) finish(r *modelReader) {
	var out bytes.Buffer
	must(m.t, r.WriteRange(context.Background(), 0, -1, &out))
	if out.String() != r.want {
		m.t.Errorf("a reader has read something else")
	}
	must(m.t, r.Close())
}

func (m *model) fold(r *rapid.T) {
	_, s := drawOne(r, m.sites)
	must(m.t, errorOf(m.Renewer.Fold(context.Background(), s.Container)))
}

// crash kills one of the acts before it is done, and restarts the process.
func (m *model) crash(r *rapid.T) {
	_, s := drawOne(r, m.sites)
	point := rapid.SampledFrom([]string{"copy.begun", "copy.part-stored", "create.before-commit", "put.before-commit", "expire.before-commit"}).Draw(r, "point")
	for _, reader := range m.readers {
		m.finish(reader)
	}
	m.readers = nil
	if point == "expire.before-commit" {
		_, b := drawOne(r, m.backups)
		contenttest.DieAt(point, 1, func() { m.MustExpire(m.t, b.Backup) })
	} else if point == "put.before-commit" {
		contenttest.DieAt(point, 1, func() { _, _ = m.Put(context.Background(), s.Container, "a", -1, strings.NewReader("lost")) })
		m.MustCollect(m.t, 0) // what the upload had stored
	} else if !contenttest.DieAt(point, 1, func() { m.MustBackup(m.t, s.Container) }) { // no part: an empty site
		m.backups = append(m.backups, &modelBackup{m.AllBackups(m.t)[len(m.AllBackups(m.t))-1], maps.Clone(s.files)})
	}
	m.Reopen(m.t)
}

func (m *model) check(*rapid.T) {
	m.TidyUp(m.t)
	for _, s := range m.sites {
		m.wantFiles(s.Container, s.files)
	}
	if got := len(m.AllBackups(m.t)); got != len(m.backups) {
		m.t.Errorf("%d backups, not %d", got, len(m.backups))
	}
	for _, b := range m.backups {
		m.wantFiles(b.Container, b.files)
	}
	if len(m.readers) == 0 {
		m.WantExactRows(m.t)
	}
}

func (m *model) wantFiles(c container.Container, want map[string]string) {
	if !maps.Equal(m.FilesOf(m.t, c), want) {
		m.t.Errorf("%s %d has other files than it should", c.Kind, c.ID)
	}
}

// removeBackups leaves only sites to the next sequence.
func (m *model) removeBackups() {
	for _, r := range m.readers {
		m.finish(r)
	}
	for _, b := range m.backups {
		m.MustExpire(m.t, b.Backup)
	}
	m.TidyUp(m.t)
}
