package profiles_test

import (
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/profiles"
	"keyroll/internal/rootkey"
)

// The table of the design, row by row. A rule is identified by the function that makes
// it.
func TestProfilesMatchTheDesign(t *testing.T) {
	const active, sites, workloads = envelope.ClassActive, envelope.ClassSite, envelope.ClassWorkload
	want := []struct {
		kind        api.PolicyKind
		keys        int
		versionless bool
		identity    rootkey.Identity
		rule        string
		cache       time.Duration
		fallback    bool
		rolls       []envelope.Class
		oneRoll     bool
		mostActive  int
		oneAGeo     bool
		defaultFor  []string
		forTenant   bool
		fixed       bool
	}{
		{"mailbox", 2, true, "exchange", "RandomThenOther", 5 * time.Minute, true, []envelope.Class{active}, false, 50, false, nil, false, false},
		{"site", 2, false, "sharepoint", "Hedged", 4 * time.Hour, false, []envelope.Class{sites}, true, 1, true, []string{"site"}, false, true},
		{"multi-workload", 2, true, "data-at-rest-encryption", "RandomThenOther", 5 * time.Minute, true, []envelope.Class{active, workloads}, false, 50, false, []string{"mailbox", "workload"}, true, false},
		{"service-managed", 0, false, "", "", 0, false, []envelope.Class{active, sites, workloads}, false, 1, false, nil, false, true},
	}
	if len(profiles.All) != len(want) {
		t.Fatalf("%d profiles, want %d", len(profiles.All), len(want))
	}
	for _, w := range want {
		p := profiles.Of(w.kind)
		got := fmt.Sprint(p.Keys, p.Versionless, p.Identity, p.CacheLifetime, p.AutomaticFallback, p.Rolls, p.SingleRoll, p.MaxActive, p.OnePerGeo, p.DefaultFor, p.ForTenant, p.Fixed)
		if expect := fmt.Sprint(w.keys, w.versionless, w.identity, w.cache, w.fallback, w.rolls, w.oneRoll, w.mostActive, w.oneAGeo, w.defaultFor, w.forTenant, w.fixed); got != expect {
			t.Errorf("%s: %s, want %s", w.kind, got, expect)
		}
		name := ""
		if p.Rule != nil {
			name = runtime.FuncForPC(reflect.ValueOf(p.Rule).Pointer()).Name()
		}
		if (w.rule == "") != (name == "") || !strings.Contains(name, w.rule) {
			t.Errorf("%s: rule is %q, want %q", w.kind, name, w.rule)
		}
	}
}
