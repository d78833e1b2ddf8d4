package depth_test

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/depth"
	"keyroll/internal/policy"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/roll"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// A roll of depth content keeps to its limit of bytes per second.
func TestContentIsEncryptedNoFasterThanTheLimit(t *testing.T) {
	policytest.Bubble(t, func(t *testing.T) {
		w := newWorld(policytest.New(t, storetest.One(t)), filepath.Join(t.TempDir(), "blobs"))
		w.roller = roll.New(roll.Config{DB: w.DB, Policies: w.Policies, Now: time.Now, Logger: slog.New(slog.DiscardHandler),
			Deep: depth.New(w.DB, w.containers, w.contents), Settled: func(int64, int64) {}})
		pol := w.MailboxPolicy("p")
		var boxes []container.Container
		bytes := 0
		for i := range 6 { // a unit each
			box := w.mailbox(pol.ID, fmt.Sprint("m", i), 1)
			boxes, bytes = append(boxes, box), bytes+len(w.wrote[box.ID])
		}
		const seconds = 12
		var ro roll.Roll
		w.Refresh(pol, api.DepthContent, false, func(tx *store.Tx, c policy.Change) error {
			mark, err := depth.NewWatermark(w.Ctx, tx)
			if err != nil {
				return err
			}
			ro, err = roll.Begin(w.Ctx, tx, w.Policies, roll.Start{Policy: c.Policy, Revision: c.Revision.GUID, Depth: api.DepthContent, Watermark: mark,
				Options: roll.Options{BytesPerSecond: int64(bytes / seconds)}}, time.Now())
			return err
		})
		began := time.Now()
		w.finish(ro, api.RollFinished)
		if took := time.Since(began); took < 5*seconds/6*time.Second || took > 2*seconds*time.Second {
			t.Errorf("%d bytes took %v", bytes, took)
		}
		w.wantContent(boxes...)
	})
}
