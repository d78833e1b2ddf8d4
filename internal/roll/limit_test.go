package roll

import (
	"testing"

	"golang.org/x/time/rate"
)

func TestPagesOfATransactionAreBoundedByTheRateLimit(t *testing.T) {
	for _, test := range []struct {
		node, roll int64 // containers a second; 0: no limit
		pages      int
	}{
		{0, 0, batchPages},
		{1, 0, 1},
		{0, 1, 1},
		{0, 102_400, 1},
		{0, 1_024_000, 10},
		{1_024_000, 0, 10},
		{1_024_000, 204_800, 2},
		{204_800, 1_024_000, 2},
		{1 << 40, 1 << 40, batchPages},
	} {
		r := &Roller{}
		if test.node != 0 {
			r.config.Limit = rate.NewLimiter(rate.Limit(test.node), 1)
		}
		if pages := r.batchSize(Roll{ContainersPerSecond: test.roll}); pages != test.pages {
			t.Errorf("limits %d of the node and %d of the roll: %d pages, not %d", test.node, test.roll, pages, test.pages)
		}
	}
}
