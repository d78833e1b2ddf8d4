package node

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"keyroll/internal/policy/policytest"
)

func TestDailyUpkeepIsQueuedEveryDay(t *testing.T) {
	policytest.Bubble(t, func(t *testing.T) {
		queued := 0
		w := &workers{base: &foundation{}, maintain: func() { queued++ }}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); w.maintainDaily(ctx) }()
		time.Sleep(3*24*time.Hour + time.Minute) // of the bubble's clock
		synctest.Wait()
		if queued != 3 {
			t.Errorf("it was queued %d times in three days", queued)
		}
		stop()
		<-ended
	})
}
