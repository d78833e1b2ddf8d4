package access

import (
	"crypto/ed25519"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
)

func issuer(r *http.Request, t Tenant) string { return authority(r, t) + "/v2.0" }

func authority(r *http.Request, t Tenant) string { return "https://" + r.Host + "/" + t.GUID.String() }

func (d *Directory) serveConfiguration(w http.ResponseWriter, r *http.Request) {
	t, err := d.tenantOf(r)
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	base := authority(r, t)
	writeJSON(w, http.StatusOK, map[string]any{
		"issuer":                                issuer(r, t),
		"authorization_endpoint":                base + "/oauth2/v2.0/authorize",
		"token_endpoint":                        base + "/oauth2/v2.0/token",
		"jwks_uri":                              base + "/discovery/v2.0/keys",
		"response_types_supported":              []string{"token"},
		"grant_types_supported":                 []string{"client_credentials"},
		"subject_types_supported":               []string{"public"},
		"token_endpoint_auth_methods_supported": []string{"client_secret_post"},
		"id_token_signing_alg_values_supported": []string{"EdDSA"},
	})
}

// serveKeys returns the public key of the tokens (RFC 8037).
func (d *Directory) serveKeys(w http.ResponseWriter, r *http.Request) {
	if _, err := d.tenantOf(r); err != nil {
		d.refuse(w, r, err)
		return
	}
	public := d.signer.Public().(ed25519.PublicKey)
	writeJSON(w, http.StatusOK, map[string]any{"keys": []map[string]string{{
		"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": d.signerID,
		"x": base64.RawURLEncoding.EncodeToString(public),
	}}})
}

// InstanceDiscovery is the path at which clients ask whether a host is one of Entra's.
const InstanceDiscovery = "/common/discovery/instance"

type instance struct {
	Network string   `json:"preferred_network"`
	Cache   string   `json:"preferred_cache"`
	Aliases []string `json:"aliases"`
}

// serveInstance confirms the host of the request, and only that one, as an authority:
// clients take the answer as permission to send their secrets there. Some clients leave
// out the port, so it is not compared.
func (d *Directory) serveInstance(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	asked := query.Get("authorization_endpoint")
	if asked == "" {
		d.refuse(w, r, missing(http.StatusBadRequest, "invalid_request", "authorization_endpoint"))
		return
	}
	u, err := url.Parse(asked)
	own := url.URL{Host: r.Host}
	if err != nil || u.Scheme != "https" || u.User != nil || !strings.EqualFold(u.Hostname(), own.Hostname()) {
		d.refuse(w, r, invalid(http.StatusBadRequest, "invalid_instance", unknownInstance, "authorization_endpoint is not at this host"))
		return
	}
	tenant, _, _ := strings.Cut(strings.TrimPrefix(u.EscapedPath(), "/"), "/")
	if tenant == "" {
		d.refuse(w, r, invalid(http.StatusBadRequest, "invalid_request", malformedRequest, "authorization_endpoint names no tenant"))
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"tenant_discovery_endpoint": "https://" + r.Host + "/" + tenant + "/v2.0/.well-known/openid-configuration",
		"api-version":               "1.1",
		"metadata":                  []instance{{Network: r.Host, Cache: r.Host, Aliases: []string{r.Host}}},
	})
}
