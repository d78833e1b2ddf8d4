package node

import (
	"net/http"
	"strings"

	"github.com/google/uuid"

	"keyroll/internal/vault"
)

// faces hands each request to the one that it is for: an embedded vault by the
// host, vault management and the token endpoints by the path, and the service.
type faces struct {
	vaults                             *vault.Vaults
	vault, management, tokens, service http.Handler
	outage                             func(host string) bool // nil but in tests
}

func (f faces) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	first, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	_, notTenant := uuid.Parse(first)
	switch {
	case f.outage != nil && f.outage(r.Host):
		panic(http.ErrAbortHandler)
	case f.vaults.Serves(r.Host):
		f.vault.ServeHTTP(w, r)
	case first == "subscriptions":
		f.management.ServeHTTP(w, r)
	case notTenant == nil:
		f.tokens.ServeHTTP(w, r)
	default:
		f.service.ServeHTTP(w, r)
	}
}
