package blob_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"keyroll/internal/blob"
	"keyroll/internal/files"
	"keyroll/internal/files/filestest"
)

// kept is the expected content of a store in a folder.
type kept struct {
	identity string
	offered  map[string]string // what a name may lead to
	durable  map[string]bool   // the names that have to
	deleted  map[string]bool   // names whose deletion began
}

func (k *kept) put(s blob.Store, name string) {
	k.recordOffered(name)
	if _, err := s.PutIfAbsent(context.Background(), name, strings.NewReader(k.offered[name])); err == nil {
		k.durable[name] = true
	}
}

func (k *kept) recordOffered(name string) {
	if k.offered == nil {
		k.offered, k.durable, k.deleted = map[string]string{}, map[string]bool{}, map[string]bool{}
	}
	k.offered[name] = strings.Repeat(name+" ", 50)
}

func (k *kept) putBatch(s blob.Store, names ...string) {
	batch := s.Batch()
	defer batch.Discard()
	for _, name := range names {
		k.recordOffered(name)
		if _, err := batch.Put(context.Background(), name, strings.NewReader(k.offered[name])); err != nil {
			return
		}
	}
	if batch.Commit(context.Background()) == nil {
		for _, name := range names {
			k.durable[name] = true
		}
	}
}

func (k *kept) delete(s blob.Store, name string) {
	k.deleted[name] = true
	delete(k.durable, name)
	_ = s.Delete(context.Background(), name)
}

const durableRoot = "/srv/keyroll/blobs"

func (k *kept) open(f files.FS) (blob.Store, error) {
	s, err := blob.OpenFolderOn(f, durableRoot)
	if err == nil && k.identity == "" {
		k.identity = s.Identity()
	}
	return s, err
}

// check opens the store and compares its content. Except the first time, it then puts
// one more blob.
func (k *kept) check(t testing.TB, f files.FS, nth int) {
	s, err := k.open(f)
	if err != nil {
		t.Fatal(err)
	}
	if s.Identity() != k.identity {
		t.Errorf("the store has become another one")
	}
	found := map[string]bool{}
	err = s.List(context.Background(), "", func(name string, size int64) error {
		found[name] = true
		r, err := s.GetRange(context.Background(), name, 0, -1)
		if err != nil {
			return err
		}
		defer r.Close()
		body, err := io.ReadAll(r)
		if string(body) != k.offered[name] || size != int64(len(body)) {
			t.Errorf("blob %s is torn: %q of %d bytes", name, body, size)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	for name := range k.durable {
		if !found[name] {
			t.Errorf("blob %s was durable, and is not there", name)
		}
	}
	if nth > 0 {
		more := fmt.Sprintf("cc/%x", nth)
		if k.put(s, more); !k.durable[more] {
			t.Error("nothing can be put any more")
		}
	}
	for name := range f.(*filestest.FS).Files() {
		if strings.Contains(name, "/tmp/") && !strings.HasSuffix(name, "/lock") {
			t.Errorf("%s was left", name)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestBlobsSurviveAPowerCutAtEveryFileOperation(t *testing.T) {
	filestest.Run(t, filestest.Scenario[kept]{
		Begin: func(t testing.TB, f files.FS, k *kept) {
			s, err := k.open(f)
			if err != nil {
				t.Fatal(err)
			}
			k.put(s, "aa/1")
			k.put(s, "aa/2")
			if len(k.durable) != 2 {
				t.Fatal("nothing can be put")
			}
		},
		Act: func(f files.FS, k *kept) {
			s, err := k.open(f)
			if err != nil {
				return
			}
			k.put(s, "bb/cc/3")
			k.putBatch(s, "aa/4", "dd/ee/5", "dd/6")
			k.putBatch(s, "aa/7", "bb/cc/3") // is refused
			k.delete(s, "aa/1")
			_ = s.Close()
		},
		Check: func(t testing.TB, f files.FS, k *kept, nth int) { k.check(t, f, nth) },
	})
}

func TestANewBlobStoreSurvivesAPowerCutAtEveryFileOperation(t *testing.T) {
	filestest.Run(t, filestest.Scenario[kept]{
		Act: func(f files.FS, k *kept) {
			if s, err := k.open(f); err == nil {
				k.putBatch(s, "aa/1")
				_ = s.Close()
			}
		},
		Check: func(t testing.TB, f files.FS, k *kept, nth int) { k.check(t, f, nth) },
	})
}
