package server_test

import (
	"net/http"
	"testing"

	"keyroll/api"
	"keyroll/client"
)

func TestRequestIsLimitedToTheTenantThatItNames(t *testing.T) {
	both(t, func(t *testing.T, w *testServer) {
		for header, code := range map[string]api.Code{
			"":                         "",
			"contoso%20&%20s%C3%B6hne": "",
			"contoso":                  api.Forbidden,
			"contoso%20&%20s%C3%B6hn":  api.Forbidden,
			"contoso%2":                api.InvalidArgument,
		} {
			before := len(w.service.calls)
			resp, body := w.raw(http.MethodGet, "/v1/policies", "", api.TenantHeader, header)
			if code == "" {
				if resp.StatusCode != http.StatusOK {
					t.Errorf("%q: %d %s", header, resp.StatusCode, body)
				}
			} else if problemIn(t, resp, body).Code != code || len(w.service.calls) != before {
				t.Errorf("%q: %s", header, body)
			}
		}
		c, err := client.New(client.Options{URL: w.http.URL, Token: "good", CA: w.ca(), Tenant: "contoso & söhne"})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.ListPolicies(background, api.ListInput{}); err != nil {
			t.Error(err)
		}
	})
}
