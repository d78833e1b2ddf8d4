package vault

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/admit"
	"keyroll/internal/fail"
	"keyroll/internal/httpcheck"
	"keyroll/internal/store"
)

const (
	maxBody = 64 << 10
	// maxBackup bounds a restore request: it is enough for 500 versions of RSA 4096
	// in two layers of base64.
	maxBackup = 4 << 20
)

// call is one authenticated request to a vault.
type call struct {
	vault  vault
	tenant access.Tenant
	who    access.Principal
	base   string // https://NAME.DOMAIN[:PORT], the beginning of ids in answers
	query  url.Values
	path   map[string]string // name, version
	body   io.Reader
	used   string // the key version that was used, for the log
}

// route is one operation of the REST interface.
type route struct {
	method     string
	path       string // {name} and {version} stand for one segment, {version?} for one that may be empty or missing
	permission string // that the vault's access policy must give
	maxBody    int64
	act        func(*Vaults, context.Context, *call) (answer any, err error)
}

// routes has all operations of a vault, as in the Key Vault REST API.
var routes = []route{
	{"GET", "keys", "list", maxBody, (*Vaults).listKeys},
	{"POST", "keys/restore", "restore", maxBackup, (*Vaults).restoreKey},
	{"POST", "keys/{name}/create", "create", maxBody, (*Vaults).createKey},
	{"POST", "keys/{name}/backup", "backup", maxBody, (*Vaults).backupKey},
	{"POST", "keys/{name}/wrapkey", "wrapKey", maxBody, (*Vaults).wrapKey},
	{"POST", "keys/{name}/unwrapkey", "unwrapKey", maxBody, (*Vaults).unwrapKey},
	{"POST", "keys/{name}/{version?}/wrapkey", "wrapKey", maxBody, (*Vaults).wrapKey},
	{"POST", "keys/{name}/{version?}/unwrapkey", "unwrapKey", maxBody, (*Vaults).unwrapKey},
	{"GET", "keys/{name}/versions", "list", maxBody, (*Vaults).listVersions},
	{"PUT", "keys/{name}", "import", maxBody, (*Vaults).importKey},
	{"DELETE", "keys/{name}", "delete", maxBody, (*Vaults).deleteKey},
	{"GET", "keys/{name}/{version?}", "get", maxBody, (*Vaults).getKey},
	{"PATCH", "keys/{name}/{version?}", "update", maxBody, (*Vaults).updateKey},
	{"GET", "deletedkeys", "list", maxBody, (*Vaults).listDeletedKeys},
	{"GET", "deletedkeys/{name}", "get", maxBody, (*Vaults).getDeletedKey},
	{"DELETE", "deletedkeys/{name}", "purge", maxBody, (*Vaults).purgeKey},
	{"POST", "deletedkeys/{name}/recover", "recover", maxBody, (*Vaults).recoverKey},
}

// Handler serves requests to hosts of the form NAME.DOMAIN[:PORT], which are those for
// which Serves returns true.
func (v *Vaults) Handler() http.Handler { return http.HandlerFunc(v.serve) }

func (v *Vaults) serve(w http.ResponseWriter, r *http.Request) {
	id := requestID(w, r)
	w.Header().Set("X-Ms-Keyvault-Service-Version", serviceVersion)
	c, err := v.authenticate(w, r)
	if err != nil {
		v.logInternal(r.Context(), id, err)
		writeError(w, err)
		return
	}
	operation := "unknown"
	answer, err := v.dispatch(w, r, c, &operation)
	v.logInternal(r.Context(), id, err)
	v.log.InfoContext(r.Context(), "vault operation", "operation", operation,
		"vault", c.vault.name, "key", c.path["name"], "version", c.used,
		"principal", c.who.ID, "tenant", c.tenant.GUID, "request", id, "result", outcome(err))
	switch {
	case err != nil:
		writeError(w, err)
	case answer == nil:
		w.WriteHeader(http.StatusNoContent)
	default:
		writeJSON(w, http.StatusOK, answer)
	}
}

// authenticate finds the vault and the caller. Without a token that is valid for this
// vault the answer has a challenge, which says where to get one.
func (v *Vaults) authenticate(w http.ResponseWriter, r *http.Request) (*call, error) {
	name, domain := v.splitHost(r.Host)
	if !vaultName.MatchString(name) {
		return nil, vaultNotFound(name)
	}
	c := &call{query: r.URL.Query(), body: r.Body}
	err := v.db.View(r.Context(), func(tx *store.Tx) (err error) {
		if c.vault, err = findVault(r.Context(), tx, name); err != nil {
			return err
		}
		if c.vault.deleted != 0 || c.vault.sku != premium && v.isManagedHSM(domain) {
			return vaultNotFound(name)
		}
		c.tenant, err = v.directory.Tenant(r.Context(), tx, c.vault.tenant)
		return err
	})
	if err != nil {
		return nil, err
	}
	resource := access.VaultAudience(domain)
	challenge := fmt.Sprintf("Bearer authorization=%q, resource=%q", v.authority+"/"+c.tenant.GUID.String(), resource)
	bearer := httpcheck.Bearer(r)
	if bearer == "" {
		w.Header().Set("WWW-Authenticate", challenge)
		return nil, fail.New(api.Unauthenticated, "the request has no bearer token")
	}
	c.who, err = v.directory.AuthenticateFor(r.Context(), bearer, resource)
	if err == nil && c.who.Tenant != c.vault.tenant {
		err = fail.New(api.Unauthenticated, "the token belongs to another tenant than vault %q", c.vault.name)
	}
	if fail.Is(err, api.Unauthenticated) {
		w.Header().Set("WWW-Authenticate", challenge+`, error="invalid_token"`)
	}
	if err != nil {
		return nil, err
	}
	w.Header().Set("X-Ms-Keyvault-Region", c.vault.location)
	c.base = "https://" + c.vault.name + "." + domain
	return c, admit.Authenticated(r.Context(), c.vault.tenant)
}

func (v *Vaults) dispatch(w http.ResponseWriter, r *http.Request, c *call, operation *string) (any, error) {
	if operation := notOfferedOn(r.URL.EscapedPath()); operation != "" {
		return nil, notOffered(operation)
	}
	for _, route := range routes {
		path, ok := matchPath(route.path, r.URL.EscapedPath())
		if !ok || route.method != r.Method || !hasValidVersion(path) && allowedOn(r.URL.EscapedPath()) != nil {
			continue
		}
		c.path = path
		*operation = route.method + " " + route.path
		if err := v.checkPermission(r.Context(), c, route.permission); err != nil {
			return nil, err
		}
		if err := checkVersion(c.query, dataVersion); err != nil {
			return nil, err
		}
		if err := httpcheck.CheckCoding(r); err != nil {
			return nil, err
		}
		if err := checkNames(c.path); err != nil {
			return nil, err
		}
		if err := v.limits.general(r.Context(), c.vault.id); err != nil {
			return nil, err
		}
		c.body = http.MaxBytesReader(w, r.Body, route.maxBody)
		return route.act(v, r.Context(), c)
	}
	return nil, noRoute(w, r)
}

// matchPath compares a path with a route's, ignoring the case of fixed words, and
// returns the values of the segments in braces.
func matchPath(pattern, path string) (map[string]string, bool) {
	got := strings.Split(strings.Trim(path, "/"), "/")
	want := strings.Split(pattern, "/")
	if len(got) == len(want)-1 && strings.HasSuffix(pattern, "?}") {
		got = append(got, "")
	}
	if len(got) != len(want) || !strings.HasPrefix(path, "/") {
		return nil, false
	}
	values := map[string]string{}
	for i, word := range want {
		name, variable := strings.CutPrefix(word, "{")
		if !variable {
			if !strings.EqualFold(word, got[i]) {
				return nil, false
			}
			continue
		}
		name, optional := strings.CutSuffix(strings.TrimSuffix(name, "}"), "?")
		if got[i] == "" && !optional {
			return nil, false
		}
		values[name] = got[i]
	}
	return values, true
}

// keyName and keyVersion are Azure's rules for names, with the underscore of the
// documentation's own example key, Key_01. Versions are printed in lower case and
// accepted in either.
var (
	keyName    = regexp.MustCompile(`^[0-9A-Za-z_-]{1,127}$`)
	keyVersion = regexp.MustCompile(`^[0-9a-f]{32}$`)
)

func checkNames(path map[string]string) error {
	if name, ok := path["name"]; ok && !keyName.MatchString(name) {
		return invalid("a key's name has 1 to 127 letters, digits, hyphens and underscores")
	}
	path["version"] = strings.ToLower(path["version"])
	if version := path["version"]; version != "" && !keyVersion.MatchString(version) {
		return invalid("a key's version has 32 hexadecimal digits")
	}
	return nil
}

// Versions of the interfaces by their form: numbered up to 7.6, dated since.
var (
	dataVersion       = regexp.MustCompile(`^(7\.[4-9]|202[5-9]-\d\d-\d\d|20[3-9]\d-\d\d-\d\d)(-preview(\.\d)?)?$`)
	managementVersion = regexp.MustCompile(`^20\d\d-\d\d-\d\d(-preview)?$`)
)

func checkVersion(query url.Values, supported *regexp.Regexp) error {
	version := query.Get("api-version")
	if version == "" {
		return invalid("the query parameter api-version is missing")
	}
	if !supported.MatchString(version) {
		return invalid("api-version %.20q is not supported", version).WithHint("vaults support 7.4 and later")
	}
	return nil
}

// decode reads a body that is one JSON object. As in Azure, unknown members are
// ignored.
func decode(body io.Reader, into any) error { return decodeWith(body, into, func(*json.Decoder) {}) }

// decodeKnown is decode that refuses unknown members, as Azure's management of vaults
// does.
func decodeKnown(body io.Reader, into any) error {
	return decodeWith(body, into, (*json.Decoder).DisallowUnknownFields)
}

func decodeWith(body io.Reader, into any, set func(*json.Decoder)) error {
	data, err := io.ReadAll(body)
	if err == nil {
		if err := httpcheck.CheckJSON(data); err != nil {
			return err
		}
		decoder := json.NewDecoder(bytes.NewReader(data))
		set(decoder)
		err = decoder.Decode(into)
		if err == nil {
			if _, err = decoder.Token(); err == io.EOF {
				return nil
			} else if err == nil {
				err = errors.New("more than one value")
			}
		}
	}
	var tooLarge *http.MaxBytesError
	var wrongType *json.UnmarshalTypeError
	switch {
	case errors.As(err, &tooLarge):
		return fail.New(api.TooLarge, "the body has more than %d bytes", tooLarge.Limit)
	case err == io.EOF:
		return invalid("the body is empty")
	case errors.As(err, &wrongType):
		return invalid("property %q is of the wrong type: a JSON %s", wrongType.Field, wrongType.Value)
	}
	if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return invalid("property %.64s is not supported", field)
	}
	return invalid("the body is not a single JSON object").Because(err)
}

// decodeBytes reads base64url with or without padding (RFC 7515, 2).
func decodeBytes(property, text string) ([]byte, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimRight(text, "="))
	if err != nil {
		return nil, invalid("property %q is not base64url", property)
	}
	return b, nil
}

// serviceVersion is the version of the interface in answers, in the form of Azure's.
const serviceVersion = "1.9.0.0"

// maxClientID bounds a client's own id of a request.
const maxClientID = 128

// requestID makes an id for a request and returns it to the client, together with the
// client's own id if the client requests that (Azure REST API guidelines).
func requestID(w http.ResponseWriter, r *http.Request) string {
	id := uuid.NewString()
	client := r.Header.Get("X-Ms-Client-Request-Id")
	if client != "" && len(client) <= maxClientID && strings.EqualFold(r.Header.Get("X-Ms-Return-Client-Request-Id"), "true") {
		w.Header().Set("X-Ms-Client-Request-Id", client)
	}
	w.Header().Set("X-Ms-Request-Id", id)
	w.Header().Set("Cache-Control", "no-store")
	return id
}

// logInternal logs the cause of an internal error, which the client does not get.
func (v *Vaults) logInternal(ctx context.Context, request string, err error) {
	if fail.Abandoned(ctx, err) {
		return
	}
	if fail.Is(err, api.Internal) || fail.Is(err, api.Damaged) {
		v.log.ErrorContext(ctx, "vault failed", "request", request, "error", err, "cause", errors.Unwrap(err))
	}
}
