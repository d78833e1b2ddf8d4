package service_test

import (
	"bytes"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"keyroll/api"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// Each transaction of a small read or write costs more than its cryptography.
func TestAReadAndAWriteNeedFewTransactions(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		var begun atomic.Int64
		db.SetForTests(store.ForTests{Observe: func(statement string) {
			if statement == "BEGIN" {
				begun.Add(1)
			}
		}})
		w := newTestService(policytest.New(t, db))
		at := api.FileInput{SiteInput: api.SiteInput{Site: team}, Path: "a/b.txt"}
		w.Must(e(w.CreateSite(w.ctx, newSite(team))))
		put := func() error { return e(w.PutFile(w.ctx, at, 5, strings.NewReader("hello"))) }
		w.Must(put())
		w.tidy()
		for name, test := range map[string]struct {
			do    func() error
			limit int64
		}{
			// A snapshot, and the audit entry.
			"get of a file": {func() error {
				var to bytes.Buffer
				return w.GetFile(w.ctx, at, func(f api.File) (int64, int64, error) { return 0, f.Bytes, nil }, &to)
			}, 2},
			"get of a file that does not exist": {func() error {
				in := at
				in.Path = "other"
				policytest.Refuses(t, w.GetFile(w.ctx, in, nil, io.Discard), api.NotFound)
				return nil
			}, 2},
			// The site is found, its key is opened before the content is read and after that, and all is committed.
			"put of a file": {put, 4},
		} {
			begun.Store(0)
			w.Must(test.do())
			if got := begun.Load(); got > test.limit {
				t.Errorf("%s: %d transactions, want at most %d", name, got, test.limit)
			}
		}
	})
}
