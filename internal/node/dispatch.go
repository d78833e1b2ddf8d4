package node

import (
	"net/http"
	"strings"

	"github.com/google/uuid"

	"keyroll/internal/access"
	"keyroll/internal/vault"
)

// dispatcher routes each request to its handler: embedded vaults by the host, vault
// management and the token endpoints by the path, all else to the service.
type dispatcher struct {
	vaults                             *vault.Vaults
	vault, management, tokens, service http.Handler
	// trouble, used only in tests, reports whether it has answered the request itself.
	trouble func(w http.ResponseWriter, r *http.Request) bool
}

func (f dispatcher) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	first, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	_, notTenant := uuid.Parse(first)
	switch {
	case f.trouble != nil && f.trouble(w, r):
	case f.vaults.Serves(r.Host):
		f.vault.ServeHTTP(w, r)
	case first == "subscriptions":
		f.management.ServeHTTP(w, r)
	case notTenant == nil, r.URL.Path == access.InstanceDiscovery:
		f.tokens.ServeHTTP(w, r)
	default:
		f.service.ServeHTTP(w, r)
	}
}
