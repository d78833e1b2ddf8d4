package node_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"testing"

	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
)

func TestInstanceDiscoveryNeedsNoToken(t *testing.T) {
	w := nodetest.Start(t, node.Options{})
	query := url.Values{"api-version": {"1.1"}, "authorization_endpoint": {w.Info.URL + "/" + w.Info.TenantID + "/oauth2/v2.0/authorize"}}
	ask := func(method string) *http.Response {
		r, err := http.NewRequest(method, w.Info.URL+"/common/discovery/instance?"+query.Encode(), nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := w.HTTP().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { answer.Body.Close() })
		return answer
	}
	var found struct {
		Next string `json:"tenant_discovery_endpoint"`
	}
	answer := ask(http.MethodGet)
	if err := json.NewDecoder(answer.Body).Decode(&found); err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("discovery: %s, %v", answer.Status, err)
	}
	next, err := w.HTTP().Get(found.Next)
	if err != nil || next.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v, %v", found.Next, next, err)
	}
	next.Body.Close()
	if answer := ask(http.MethodPost); answer.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %s", answer.Status)
	}
}
