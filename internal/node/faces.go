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
	// trouble, nil but in tests, says whether it answered in place of the faces.
	trouble func(w http.ResponseWriter, r *http.Request) bool
}

func (f faces) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	first, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	_, notTenant := uuid.Parse(first)
	switch {
	case f.trouble != nil && f.trouble(w, r):
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
