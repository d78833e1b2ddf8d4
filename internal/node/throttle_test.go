package node_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"keyroll/api"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
)

// throttling is the behaviour of overloaded vaults: they answer the first requests with
// 429, the next with 503, and then normally.
type throttling struct {
	on   atomic.Bool
	asks atomic.Int64
}

func (v *throttling) answers(w http.ResponseWriter, r *http.Request) bool {
	if !v.on.Load() || !strings.Contains(r.Host, ".vault.") {
		return false
	}
	status, code := http.StatusTooManyRequests, "Throttled"
	switch n := v.asks.Add(1); {
	case n > 8:
		return false
	case n > 2: // one each vault
		status, code = http.StatusServiceUnavailable, "ServiceUnavailable"
	default:
		w.Header().Set("Retry-After", "2") // more than the client itself waits
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, fmt.Sprintf(`{"error":{"code":%q,"message":"slow down"}}`, code))
	return true
}

// A vault that throttles or fails temporarily slows a roll down and does not make it
// fail. The availability key must not replace the keys of sites, so the roll waits for
// both vaults.
func TestThrottlingVaultsSlowARollDownButDoNotFailIt(t *testing.T) {
	t.Parallel()
	vaults := &throttling{}
	w := nodetest.StartUsing(t, node.Options{}, nodetest.StartOutside(t, node.Options{}.WithTrouble(vaults.answers)))
	w.StageSites()
	const site = "https://contoso.sharepoint.com/sites/throttled"
	w.Site(site)
	w.Put(site, "plan.txt", []byte("plan"))
	w.FinishRoll("Sites")
	w.Restart(func(o *node.Options) { o.Idle = true })
	w.UpdateSites()
	w.Stop() // the policy keys that it has in memory are gone
	vaults.on.Store(true)
	w.Restart(func(o *node.Options) { o.Idle = false })
	r := w.FinishRoll("Sites")
	if r.Retries == 0 || r.Message != "" || r.Done != 1 {
		t.Errorf("the roll: %+v", r)
	}
	if n := vaults.asks.Load(); n <= 8 {
		t.Errorf("the vaults were asked %d times: the roll did not need them", n)
	}
	if got := w.Get(site, "plan.txt"); string(got) != "plan" {
		t.Errorf("the file is %q", got)
	}
	w.VerifyClean()

	// A refresh fails with that error, and nothing is changed.
	before, err := w.Client.ShowPolicy(t.Context(), api.PolicyInput{Policy: "Sites"})
	if err != nil {
		t.Fatal(err)
	}
	vaults.asks.Store(0)
	update := api.UpdatePolicyInput{PolicyInput: api.PolicyInput{Policy: "Sites"}}
	update.Body.KeyType, update.Body.Key = "secondary", before.Secondary
	_, err = w.Client.UpdatePolicy(t.Context(), update)
	refused(t, "an update while the vaults throttle", err, api.VaultUnavailable)
	if !strings.Contains(err.Error(), "too many requests") {
		t.Errorf("it says: %v", err)
	}
}
