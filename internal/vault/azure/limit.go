package azure

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"keyroll/api"
	"keyroll/internal/admit"
	"keyroll/internal/fail"
)

// The documented limits of Azure Key Vault, in requests to one vault within ten
// seconds (Key Vault REST API, error codes, 429).
const (
	limitTime        = 10 * time.Second
	generalLimit     = 4000
	hsmLimit         = 2000 // operations with keys of an HSM
	creationLimit    = 10
	rememberedVaults = 10_000
)

// Limits enforces the documented limits; nil enforces none, and keyroll's own calls
// are never limited. Each node counts on its own.
type Limits struct {
	now    func() time.Time
	mu     sync.Mutex
	vaults map[int64]*[3]*rate.Limiter
}

// NewLimits returns the limits of all vaults.
func NewLimits(now func() time.Time) *Limits {
	return &Limits{now: now, vaults: map[int64]*[3]*rate.Limiter{}}
}

// General refuses a request above the limit for all requests to a vault.
func (l *Limits) General(ctx context.Context, vault int64) error { return l.reserve(ctx, vault, 0) }

// HSM refuses an operation above the limit for keys of an HSM.
func (l *Limits) HSM(ctx context.Context, vault int64) error { return l.reserve(ctx, vault, 1) }

// Creation refuses a request above the limit for creating keys.
func (l *Limits) Creation(ctx context.Context, vault int64) error { return l.reserve(ctx, vault, 2) }

func (l *Limits) reserve(ctx context.Context, vault int64, which int) error {
	if l == nil || admit.IsOwn(ctx) {
		return nil
	}
	reservation := l.limitersOf(vault)[which].ReserveN(l.now(), 1)
	wait := reservation.DelayFrom(l.now())
	if wait == 0 {
		return nil
	}
	reservation.CancelAt(l.now())
	e := fail.New(api.TooManyRequests, "the vault received more requests than Key Vault's limits allow")
	e.RetryAfter = max(wait, time.Second)
	return e
}

func (l *Limits) limitersOf(vault int64) *[3]*rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if found := l.vaults[vault]; found != nil {
		return found
	}
	if len(l.vaults) >= rememberedVaults {
		clear(l.vaults)
	}
	made := &[3]*rate.Limiter{}
	for i, n := range []int{generalLimit, hsmLimit, creationLimit} {
		made[i] = rate.NewLimiter(rate.Limit(float64(n)/limitTime.Seconds()), n)
	}
	l.vaults[vault] = made
	return made
}
