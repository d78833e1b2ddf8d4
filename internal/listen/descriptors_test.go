package listen

import (
	"strings"
	"testing"
)

func TestLimitsFitTheDescriptors(t *testing.T) {
	for _, row := range []struct{ descriptors, connections, requests int }{
		{minimum, 32, 8},
		{300, 118, 29},
		{1024, 480, 120},
		{1 << 20, maxConnections, maxRequests},
	} {
		connections, requests := affordable(row.descriptors)
		if connections != row.connections || requests != row.requests {
			t.Errorf("%d descriptors: %d connections, %d requests", row.descriptors, connections, requests)
		}
		if reserved+connections+requests*perRequest > row.descriptors {
			t.Errorf("%d descriptors are not enough for %d connections and %d requests", row.descriptors, connections, requests)
		}
	}
	for _, row := range []struct {
		have   int
		limits Limits
		fine   bool
	}{
		{minimum, Limits{}, true},
		{minimum - 1, Limits{}, false},
		{300, Limits{Connections: 200}, true},
		{300, Limits{Connections: 300}, false},
	} {
		err := checkDescriptors(row.limits, row.have)
		if (err == nil) != row.fine || err != nil && !strings.Contains(err.Error(), "open") {
			t.Errorf("%d descriptors, %d connections: %v", row.have, row.limits.Connections, err)
		}
	}
}
