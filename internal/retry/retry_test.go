package retry_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"keyroll/internal/retry"
)

// Pauses grow only while work is blocked, up to the longest, and are never shorter than
// work asks for.
func TestPausesGrowOnlyWhileWorkIsBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := []retry.Next{
			retry.Blocked(0), retry.Blocked(0), retry.Blocked(0), retry.Blocked(time.Minute), retry.Blocked(0),
			retry.After(time.Hour), retry.Blocked(0), retry.Done(),
		}
		var pauses []time.Duration
		last := time.Now()
		n := 0
		retry.Loop{First: time.Second, Longest: 4 * time.Second}.Run(t.Context(), func(context.Context) retry.Next {
			pauses = append(pauses, time.Since(last))
			last = time.Now()
			n++
			return answers[n-1]
		})
		want := []time.Duration{0, time.Second, 2 * time.Second, 4 * time.Second, time.Minute, 4 * time.Second, time.Hour, time.Second}
		if !slices.Equal(pauses, want) {
			t.Errorf("%v, want %v", pauses, want)
		}
	})
}

func TestWakingAndTheEndOfTheContextEndAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, next := range map[string]retry.Next{"idle": retry.Idle(), "after": retry.After(time.Hour), "blocked": retry.Blocked(time.Hour)} {
			ctx, stop := context.WithCancel(t.Context())
			wake := make(chan struct{}, 1)
			n := 0
			began := time.Now()
			retry.Loop{First: time.Second, Longest: time.Second, Wake: wake}.Run(ctx, func(context.Context) retry.Next {
				if n++; n == 1 {
					wake <- struct{}{}
				} else {
					stop()
				}
				return next
			})
			if n != 2 || time.Since(began) != 0 {
				t.Errorf("%s: %d times in %v", name, n, time.Since(began))
			}
		}
	})
}
