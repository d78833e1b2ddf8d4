package depth_test

import (
	"fmt"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/roll"
	"keyroll/internal/store/storetest"
)

// A roll of depth content keeps to its limit of bytes per second.
func TestContentIsEncryptedNoFasterThanTheLimit(t *testing.T) {
	policytest.Bubble(t, func(t *testing.T) {
		w := newFixture(t, storetest.One(t)).With(func(c *roll.Config) { c.Now = time.Now })
		pol := w.MailboxPolicy("p")
		var boxes []container.Container
		bytes := 0
		for i := range 6 { // a unit each
			box := w.Mailbox(pol.ID, fmt.Sprint("m", i), 1)
			boxes, bytes = append(boxes, box), bytes+len(w.Wrote[box.ID])
		}
		const seconds = 12
		ro := w.Begin(pol, api.DepthContent, roll.Options{BytesPerSecond: int64(bytes / seconds)})
		began := time.Now()
		w.Finish(ro, api.RollFinished)
		if took := time.Since(began); took < 5*seconds/6*time.Second || took > 2*seconds*time.Second {
			t.Errorf("%d bytes took %v", bytes, took)
		}
		w.WantMail(boxes...)
	})
}
