package keywork_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"keyroll/internal/keywork"
	"keyroll/internal/lease"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

func TestPassIsMadeDailyAndSoonerAfterAFailure(t *testing.T) {
	policytest.Bubble(t, func(t *testing.T) {
		begin := time.Now()
		var at []time.Duration
		pass := keywork.Pass{Name: "work", Logger: slog.New(slog.DiscardHandler), Work: func(context.Context) error {
			at = append(at, time.Since(begin))
			if len(at) == 2 {
				return errors.New("failed")
			}
			return nil
		}}
		ctx, cancel := context.WithCancel(t.Context())
		go keywork.Daily(ctx, pass)
		time.Sleep(50 * time.Hour)
		cancel()
		synctest.Wait()
		if got := fmt.Sprint(at); got != "[0s 24h0m0s 25h0m0s 49h0m0s]" {
			t.Errorf("looked at %s", got)
		}
	})
}

// While one node makes passes, the others check that it is live; when it dies, another
// one takes over within seconds.
func TestAnotherNodeContinuesPassesWithinSeconds(t *testing.T) {
	policytest.Bubble(t, func(t *testing.T) {
		w := policytest.New(t, storetest.One(t))
		w.InTx(func(tx *store.Tx) error {
			_, _, err := lease.Take(w.Ctx, tx, "work", "dead", time.Hour)
			return err
		})
		var looked atomic.Int64
		pass := keywork.Pass{Name: "work", Logger: slog.New(slog.DiscardHandler), Leases: lease.New(w.DB, "alive", lease.Term),
			Work: func(context.Context) error { looked.Add(1); return nil }}
		ctx, cancel := context.WithCancel(t.Context())
		go keywork.Daily(ctx, pass)
		time.Sleep(time.Minute)
		if n := looked.Load(); n > 0 {
			t.Errorf("looked at %d times beside the node that does", n)
		}
		w.InTx(func(tx *store.Tx) error { return lease.End(w.Ctx, tx, "dead") })
		time.Sleep(3 * time.Second)
		if n := looked.Load(); n != 1 {
			t.Errorf("looked at %d times since it died", n)
		}
		cancel()
		synctest.Wait()
	})
}
