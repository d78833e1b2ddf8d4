package azure

import (
	"context"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/admit"
	"keyroll/internal/fail"
)

func TestKeyVaultLimitsApplyToEachVault(t *testing.T) {
	now := time.Unix(0, 0)
	l := NewLimits(func() time.Time { return now })
	for name, c := range map[string]struct {
		take func(context.Context, int64) error
		most int
	}{
		"general":  {l.General, 4000},
		"hsm":      {l.HSM, 2000},
		"creation": {l.Creation, 10},
	} {
		ctx := t.Context()
		for i := range c.most {
			if err := c.take(ctx, 1); err != nil {
				t.Fatalf("%s: request %d: %v", name, i, err)
			}
		}
		err := c.take(ctx, 1)
		if !fail.Is(err, api.TooManyRequests) || fail.RetryAfter(err) < time.Second {
			t.Errorf("%s: one more than allowed: %v", name, err)
		}
		if err := c.take(admit.Own(ctx), 1); err != nil {
			t.Errorf("%s: keyroll's own call: %v", name, err)
		}
		if err := c.take(ctx, 2); err != nil {
			t.Errorf("%s: another vault: %v", name, err)
		}
		now = now.Add(fail.RetryAfter(err))
		if err := c.take(ctx, 1); err != nil {
			t.Errorf("%s: when it may: %v", name, err)
		}
	}
	if err := (*Limits)(nil).Creation(t.Context(), 1); err != nil {
		t.Errorf("without the option: %v", err)
	}
}
