package access

import (
	"errors"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

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
// /TENANT/oauth2/, /TENANT/v2.0/.well-known/ and /TENANT/discovery/v2.0/, and
// InstanceDiscovery, in the form that Azure's client libraries require.
func (d *Directory) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /{tenant}/oauth2/v2.0/token", d.serveToken)
	mux.HandleFunc("POST /{tenant}/oauth2/token", d.serveTokenV1)
	mux.HandleFunc("GET /{tenant}/v2.0/.well-known/openid-configuration", d.serveConfiguration)
	mux.HandleFunc("GET /{tenant}/discovery/v2.0/keys", d.serveKeys)
	mux.HandleFunc("GET "+InstanceDiscovery, d.serveInstance)
	return mux
}

// grant is a token that was issued, and for what.
type grant struct {
	token    string
	resource string // as the request names it
	issued   time.Time
}

func (d *Directory) serveToken(w http.ResponseWriter, r *http.Request) {
	g, err := d.grant(w, r, scopeResource)
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	seconds := int(tokenLifetime.Seconds())
	writeJSON(w, http.StatusOK, tokenAnswer{Type: "Bearer", ExpiresIn: seconds, ExtExpiresIn: seconds, Token: g.token})
}

// serveTokenV1 serves the older form of the request, with the field resource, whose
// answer has its numbers as text.
func (d *Directory) serveTokenV1(w http.ResponseWriter, r *http.Request) {
	g, err := d.grant(w, r, namedResource)
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	seconds := strconv.Itoa(int(tokenLifetime.Seconds()))
	writeJSON(w, http.StatusOK, tokenAnswerV1{
		Type: "Bearer", ExpiresIn: seconds, ExtExpiresIn: seconds,
		ExpiresOn: strconv.FormatInt(g.issued.Add(tokenLifetime).Unix(), 10), NotBefore: strconv.FormatInt(g.issued.Unix(), 10),
		Resource: g.resource, Token: g.token,
	})
}

type tokenAnswer struct {
	Type         string `json:"token_type"`
	ExpiresIn    int    `json:"expires_in"` // seconds
	ExtExpiresIn int    `json:"ext_expires_in"`
	Token        string `json:"access_token"`
}

type tokenAnswerV1 struct {
	Type         string `json:"token_type"`
	ExpiresIn    string `json:"expires_in"` // seconds
	ExtExpiresIn string `json:"ext_expires_in"`
	ExpiresOn    string `json:"expires_on"` // Unix time
	NotBefore    string `json:"not_before"`
	Resource     string `json:"resource"`
	Token        string `json:"access_token"`
}

// grant issues a token for the resource that resourceOf finds in the form.
func (d *Directory) grant(w http.ResponseWriter, r *http.Request, resourceOf func(url.Values) (resource, error)) (grant, error) {
	tenant, err := d.tenantOf(r)
	if err != nil {
		return grant{}, err
	}
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/x-www-form-urlencoded" {
		return grant{}, invalid(http.StatusBadRequest, "invalid_request", malformedRequest, "the body is not application/x-www-form-urlencoded")
	}
	if err := httpcheck.CheckCoding(r); err != nil {
		return grant{}, invalid(http.StatusUnsupportedMediaType, "invalid_request", malformedRequest, err.Error())
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return grant{}, invalid(http.StatusBadRequest, "invalid_request", malformedRequest, "the form cannot be read")
	}
	form := r.PostForm
	switch form.Get("grant_type") {
	case "client_credentials":
	case "":
		return grant{}, missing(http.StatusBadRequest, "unsupported_grant_type", "grant_type")
	default:
		return grant{}, invalid(http.StatusBadRequest, "unsupported_grant_type", unsupportedGrant, "grant_type is not client_credentials")
	}
	res, err := resourceOf(form)
	if err != nil {
		return grant{}, err
	}
	audience, ok := d.audience(res.uri, r.Host)
	if !ok {
		return grant{}, invalid(http.StatusBadRequest, res.unknown, unknownResource, "the requested resource is unknown in this tenant")
	}
	p, err := d.client(r, tenant)
	if err != nil {
		return grant{}, err
	}
	g := grant{resource: res.uri, issued: d.now()}
	g.token, err = d.issue(p, tenant.GUID, issuer(r, tenant), audience, g.issued)
	return g, err
}

// client returns the principal whose id and secret are in the form.
func (d *Directory) client(r *http.Request, tenant Tenant) (Principal, error) {
	given, secret := r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
	if given == "" {
		return Principal{}, missing(http.StatusBadRequest, "invalid_request", "client_id")
	}
	id, err := uuid.Parse(given)
	if err != nil {
		return Principal{}, invalid(http.StatusBadRequest, "invalid_request", unknownApplication, "client_id is not a GUID")
	}
	if secret == "" {
		return Principal{}, missing(http.StatusUnauthorized, "invalid_client", "client_secret")
	}
	p, err := d.checkSecret(r.Context(), tenant.ID, id, secret)
	if fail.Is(err, api.Unauthenticated) {
		admit.Refused(r.Context())
		number := wrongSecret
		if errors.Is(err, errExpired) {
			number = expiredSecret
		}
		return Principal{}, invalid(http.StatusUnauthorized, "invalid_client", number, err.Error())
	}
	return p, err
}

func (d *Directory) tenantOf(r *http.Request) (Tenant, error) {
	unknown := invalid(http.StatusBadRequest, "invalid_request", unknownTenant, "the path does not name a known tenant")
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

// resource is what a request asks a token for.
type resource struct {
	uri     string
	unknown string // the error if there is no such resource
}

// scopeResource returns the resource of a scope, which must name exactly one, as
// RESOURCE/.default.
func scopeResource(form url.Values) (resource, error) {
	scope := form.Get("scope")
	if scope == "" {
		return resource{}, missing(http.StatusBadRequest, "invalid_scope", "scope")
	}
	var resources []string
	for _, s := range strings.Fields(scope) {
		if resource, ok := strings.CutSuffix(s, "/.default"); ok {
			resources = append(resources, resource)
		}
	}
	if len(resources) != 1 {
		return resource{}, invalid(http.StatusBadRequest, "invalid_scope", invalidScope, "scope does not name exactly one RESOURCE/.default")
	}
	return resource{uri: resources[0], unknown: "invalid_scope"}, nil
}

// namedResource returns the resource of a request in the older form.
func namedResource(form url.Values) (resource, error) {
	uri := form.Get("resource")
	if uri == "" {
		return resource{}, missing(http.StatusBadRequest, "invalid_request", "resource")
	}
	return resource{uri: uri, unknown: "invalid_resource"}, nil
}

// audience returns the audience of a token for a resource: the vault domain, or the host
// of the request.
func (d *Directory) audience(resource, host string) (string, bool) {
	u, err := url.Parse(resource)
	if err != nil || u.Scheme != "https" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return "", false
	}
	if strings.EqualFold(u.Hostname(), d.vaultDomain) || strings.EqualFold(u.Hostname(), ManagedHSMDomain(d.vaultDomain)) {
		return VaultAudience(u.Host), true
	}
	return ServiceAudience, strings.EqualFold(u.Host, host)
}

// VaultAudience is the audience of tokens for the vaults under domain, which has the
// port of the request, if any.
func VaultAudience(domain string) string { return "https://" + strings.ToLower(domain) }

// ManagedHSMDomain is the domain under which the vaults of a vault domain are served as
// Managed HSMs. It differs in the first label.
func ManagedHSMDomain(vaultDomain string) string {
	return "managedhsm." + strings.TrimPrefix(vaultDomain, "vault.")
}
