package access

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/admit"
	"keyroll/internal/fail"
	"keyroll/internal/httpcheck"
	"keyroll/internal/store"
)

// maxForm bounds the body of a token request.
const maxForm = 64 << 10

// Handler serves the token endpoint (OAuth 2.0 client credentials, RFC 6749
// 4.4) and its discovery documents (OpenID Connect Discovery 1.0) under
// /TENANT/oauth2/v2.0/, /TENANT/v2.0/.well-known/ and /TENANT/discovery/v2.0/,
// in the form that Azure's client libraries require.
func (d *Directory) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /{tenant}/oauth2/v2.0/token", d.serveToken)
	mux.HandleFunc("GET /{tenant}/v2.0/.well-known/openid-configuration", d.serveConfiguration)
	mux.HandleFunc("GET /{tenant}/discovery/v2.0/keys", d.serveKeys)
	return mux
}

// oauthError is an error response (RFC 6749, 5.2).
type oauthError struct {
	status      int
	Code        string `json:"error"`
	Description string `json:"error_description"`
}

func (e *oauthError) Error() string { return e.Description }

func invalid(status int, code, description string) *oauthError {
	return &oauthError{status, code, description}
}

func (d *Directory) serveToken(w http.ResponseWriter, r *http.Request) {
	answer, err := d.token(w, r)
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, answer)
}

func (d *Directory) refuse(w http.ResponseWriter, r *http.Request, err error) {
	var e *oauthError
	if !errors.As(err, &e) {
		if !fail.Abandoned(r.Context(), err) {
			d.log.Error("token endpoint failed", "error", err)
		}
		e = invalid(http.StatusInternalServerError, "server_error", "keyroll failed to issue a token")
	}
	writeJSON(w, e.status, e)
}

type tokenAnswer struct {
	Type      string `json:"token_type"`
	ExpiresIn int    `json:"expires_in"` // seconds
	Token     string `json:"access_token"`
}

func (d *Directory) token(w http.ResponseWriter, r *http.Request) (*tokenAnswer, error) {
	tenant, err := d.tenantOf(r)
	if err != nil {
		return nil, err
	}
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/x-www-form-urlencoded" {
		return nil, invalid(http.StatusBadRequest, "invalid_request", "the body is not application/x-www-form-urlencoded")
	}
	if err := httpcheck.CheckCoding(r); err != nil {
		return nil, invalid(http.StatusUnsupportedMediaType, "invalid_request", err.Error())
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return nil, invalid(http.StatusBadRequest, "invalid_request", "the form cannot be read")
	}
	if r.PostForm.Get("grant_type") != "client_credentials" {
		return nil, invalid(http.StatusBadRequest, "unsupported_grant_type", "grant_type is not client_credentials")
	}
	audience, err := d.audience(r.PostForm.Get("scope"), r.Host)
	if err != nil {
		return nil, err
	}
	id, err := uuid.Parse(r.PostForm.Get("client_id"))
	if err != nil {
		return nil, invalid(http.StatusBadRequest, "invalid_request", "client_id is not a GUID")
	}
	p, err := d.checkSecret(r.Context(), tenant.ID, id, r.PostForm.Get("client_secret"))
	if fail.Is(err, api.Unauthenticated) {
		admit.Refused(r.Context())
		return nil, invalid(http.StatusUnauthorized, "invalid_client", err.Error())
	}
	if err != nil {
		return nil, err
	}
	token, err := d.issue(p, tenant.GUID, issuer(r, tenant), audience)
	return &tokenAnswer{"Bearer", int(tokenLifetime.Seconds()), token}, err
}

func (d *Directory) tenantOf(r *http.Request) (Tenant, error) {
	unknown := invalid(http.StatusBadRequest, "invalid_request", "the path does not name a known tenant")
	guid, err := uuid.Parse(r.PathValue("tenant"))
	if err != nil {
		return Tenant{}, unknown
	}
	var t Tenant
	err = d.db.View(r.Context(), func(tx *store.Tx) (err error) {
		t, err = d.findByGUID(r.Context(), tx, guid)
		return err
	})
	if fail.Is(err, api.NotFound) {
		return Tenant{}, unknown
	}
	return t, err
}

// audience returns the audience of a token for scope. The scope must name exactly one
// resource, as RESOURCE/.default: the vault domain, or the host of the request.
func (d *Directory) audience(scope, host string) (string, error) {
	var resources []string
	for _, s := range strings.Fields(scope) {
		if resource, ok := strings.CutSuffix(s, "/.default"); ok {
			resources = append(resources, resource)
		}
	}
	if len(resources) != 1 {
		return "", invalid(http.StatusBadRequest, "invalid_scope", "scope does not name exactly one RESOURCE/.default")
	}
	u, err := url.Parse(resources[0])
	if err == nil && u.Scheme == "https" && u.User == nil && strings.Trim(u.Path, "/") == "" && u.RawQuery == "" {
		if strings.EqualFold(u.Hostname(), d.vaultDomain) || strings.EqualFold(u.Hostname(), ManagedHSMDomain(d.vaultDomain)) {
			return VaultAudience(u.Host), nil
		}
		if strings.EqualFold(u.Host, host) {
			return ServiceAudience, nil
		}
	}
	return "", invalid(http.StatusBadRequest, "invalid_scope", "the resource in scope is unknown")
}

// VaultAudience is the audience of tokens for the vaults under domain, which has the
// port of the request, if any.
func VaultAudience(domain string) string { return "https://" + strings.ToLower(domain) }

// ManagedHSMDomain is the domain under which the vaults of a vault domain are served as
// Managed HSMs. It differs in the first label.
func ManagedHSMDomain(vaultDomain string) string {
	return "managedhsm." + strings.TrimPrefix(vaultDomain, "vault.")
}

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

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}
