package vault

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"keyroll/api"
	"keyroll/internal/store"
	"keyroll/internal/vault/azure"
	"keyroll/internal/vault/material"
)

// key is a named key in a vault. Its versions have the material.
type key struct {
	id, tenant, vault int64
	name              string // as first given
	latest            int64  // number of the newest version
	deleted, purgeAt  int64  // Unix milliseconds, 0 for never
}

// version is one version of a key. Times are Unix milliseconds.
type version struct {
	id, tenant, key   int64
	number            int64  // counted from 1 inside its key
	version           string // 32 hex digits
	kind              string // RSA, RSA-HSM, EC, EC-HSM
	operations        []string
	enabled           bool
	notBefore, expire *int64
	tags              map[string]string
	created, updated  int64
	public            []byte // PKIX
	sealed            []byte // PKCS #8 under the seal
}

// attributes are those of a key version in the REST interface; times are Unix
// seconds. Members that only answers have are ignored in requests, because clients
// send back what they have read.
type attributes struct {
	Enabled         *bool  `json:"enabled,omitempty"`
	NotBefore       *int64 `json:"nbf,omitempty"`
	Expires         *int64 `json:"exp,omitempty"`
	Exportable      *bool  `json:"exportable,omitempty"`
	Created         int64  `json:"created,omitempty"`
	Updated         int64  `json:"updated,omitempty"`
	RecoveryLevel   string `json:"recoveryLevel,omitempty"`
	RecoverableDays int64  `json:"recoverableDays,omitempty"`
	HSMPlatform     string `json:"hsmPlatform,omitempty"`
}

// bundle is a key version as answers show it; the last three members belong to
// deleted keys.
type bundle struct {
	Key        material.WebKey   `json:"key"`
	Attributes attributes        `json:"attributes"`
	Tags       map[string]string `json:"tags,omitempty"`
	deletion
}

type deletion struct {
	RecoveryID     string `json:"recoveryId,omitempty"`
	DeletedDate    int64  `json:"deletedDate,omitempty"`        // Unix seconds
	ScheduledPurge int64  `json:"scheduledPurgeDate,omitempty"` // Unix seconds
}

func (c *call) keyID(name, version string) string {
	id := c.base + "/keys/" + name
	if version != "" {
		id += "/" + version
	}
	return id
}

func (c *call) attributes(v version) attributes {
	return attributes{
		Enabled: &v.enabled, NotBefore: toSeconds(v.notBefore), Expires: toSeconds(v.expire), Exportable: new(bool),
		Created: v.created / 1000, Updated: v.updated / 1000, HSMPlatform: platformOf(v.kind),
		RecoveryLevel: c.vault.recoveryLevel(), RecoverableDays: c.vault.retentionDays,
	}
}

// platformOf returns Azure's name of the platform that protects a key: "2" is its
// current hardware module, "0" software.
func platformOf(kind string) string {
	if strings.HasSuffix(kind, "-HSM") {
		return "2"
	}
	return "0"
}

func (c *call) bundle(k key, v version) (bundle, error) {
	public, err := material.ToWebKey(v.public)
	if err != nil {
		return bundle{}, err
	}
	public.ID, public.Type, public.Operations = c.keyID(k.name, v.version), v.kind, supported(v.kind, v.operations)
	c.used = v.version
	return bundle{Key: public, Attributes: c.attributes(v), Tags: v.tags, deletion: c.deletion(k)}, nil
}

// createRequest is the body of a create request.
type createRequest struct {
	Type       string            `json:"kty"`
	Size       *int              `json:"key_size"`
	Exponent   *int              `json:"public_exponent"`
	Curve      string            `json:"crv"`
	Operations []string          `json:"key_ops"`
	Attributes attributes        `json:"attributes"`
	Tags       map[string]string `json:"tags"`

	ReleasePolicy json.RawMessage `json:"release_policy"`
}

func (r createRequest) material() material.Request {
	return material.Request{Type: r.Type, Size: r.Size, Exponent: r.Exponent, Curve: r.Curve}
}

// createKey creates a key, or a new version of the key of that name.
func (v *Vaults) createKey(ctx context.Context, c *call) (any, error) {
	var request createRequest
	if err := azure.Decode(c.body, &request); err != nil {
		return nil, err
	}
	made, err := v.newVersion(c, request)
	if err != nil {
		return nil, err
	}
	if err := v.limits.Creation(ctx, c.vault.id); err != nil {
		return nil, err
	}
	// Material is generated outside any transaction: RSA 4096 takes seconds.
	private, public, err := v.generate(ctx, c.vault.tenant, request)
	if err != nil {
		return nil, err
	}
	return v.addVersion(ctx, c, made, private, public)
}

// addVersion stores a version with its material, which it zeroes.
func (v *Vaults) addVersion(ctx context.Context, c *call, made version, private, public []byte) (any, error) {
	defer clear(private)
	made.public = public
	var k key
	err := v.inLockedVault(ctx, c.vault, func(tx *store.Tx) (err error) {
		k, err = nextVersion(ctx, tx, c.vault, c.path["name"])
		if err != nil {
			return err
		}
		made.key, made.number = k.id, k.latest
		made.sealed = v.sealKey(c.vault.id, made, private)
		return insertVersion(ctx, tx, made)
	})
	if err != nil {
		return nil, err
	}
	return c.bundle(k, made)
}

// newVersion checks a create request and returns the requested version without its
// material.
func (v *Vaults) newVersion(c *call, r createRequest) (version, error) {
	now := v.now().UnixMilli()
	made := version{
		id: store.NewID(), tenant: c.vault.tenant, version: newVersionID(), kind: r.Type,
		operations: r.Operations, enabled: true, created: now, updated: now,
	}
	if r.ReleasePolicy != nil {
		return version{}, notOffered("release")
	}
	if err := r.material().Check(); err != nil {
		return version{}, err
	}
	if r.Operations == nil {
		made.operations = operationsOf(r.Type)
	}
	err := made.apply(r.Attributes, r.Operations, r.Tags)
	return made, err
}

// apply sets the given properties and keeps the others.
func (v *version) apply(a attributes, operations []string, tags map[string]string) error {
	if a.Exportable != nil && *a.Exportable {
		return azure.Invalid("keys of this vault are not exportable")
	}
	if a.Enabled != nil {
		v.enabled = *a.Enabled
	}
	for _, t := range []struct {
		name string
		from *int64
		to   **int64
	}{{"nbf", a.NotBefore, &v.notBefore}, {"exp", a.Expires, &v.expire}} {
		if t.from == nil {
			continue
		}
		if *t.from < 0 || *t.from > maxSeconds {
			return azure.Invalid("attribute %q is not a time between the years 1970 and 9999 in seconds", t.name)
		}
		milliseconds := *t.from * 1000
		*t.to = &milliseconds
	}
	if v.notBefore != nil && v.expire != nil && *v.expire <= *v.notBefore {
		return azure.Invalid("attribute \"exp\" is not after \"nbf\"")
	}
	if operations != nil {
		if err := checkOperations(v.kind, operations); err != nil {
			return err
		}
		v.operations = operations
	}
	if tags != nil {
		if err := checkTags(tags); err != nil {
			return err
		}
		v.tags = tags
	}
	return nil
}

// maxSeconds is the end of the year 9999.
var maxSeconds = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).Unix()

func toSeconds(milliseconds *int64) *int64 {
	if milliseconds == nil {
		return nil
	}
	seconds := *milliseconds / 1000
	return &seconds
}

// checkTags enforces Azure's limits: 15 tags, names of up to 512 and values of up to
// 256 characters.
func checkTags(tags map[string]string) error {
	if len(tags) > 15 {
		return azure.Invalid("%d tags are given; a key has at most 15", len(tags))
	}
	for name, value := range tags {
		if name == "" || len([]rune(name)) > 512 || len([]rune(value)) > 256 {
			return azure.Invalid("a tag has a name of 1 to 512 and a value of at most 256 characters")
		}
	}
	return nil
}

func newVersionID() string {
	b := make([]byte, 16)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// getKey returns the public part and the attributes of a version, by default the
// newest. The version may be disabled.
func (v *Vaults) getKey(ctx context.Context, c *call) (any, error) {
	k, found, err := v.findKeyVersion(ctx, c)
	if err != nil {
		return nil, err
	}
	return c.bundle(k, found)
}

// findKeyVersion returns the key and the version that the path names.
func (v *Vaults) findKeyVersion(ctx context.Context, c *call) (key, version, error) {
	if err := v.current(ctx, c); err != nil {
		return key{}, version{}, err
	}
	c.used = c.version.version
	return c.key, c.version, c.keyErr
}

type updateRequest struct {
	Operations []string          `json:"key_ops"`
	Attributes attributes        `json:"attributes"`
	Tags       map[string]string `json:"tags"`
}

// updateKey changes attributes, operations or tags of a version; the request may omit
// any of them. A time that was once set can be changed but not removed.
func (v *Vaults) updateKey(ctx context.Context, c *call) (any, error) {
	var request updateRequest
	if err := azure.Decode(c.body, &request); err != nil {
		return nil, err
	}
	var k key
	var changed version
	err := v.inLockedVault(ctx, c.vault, func(tx *store.Tx) (err error) {
		if k, err = liveKey(ctx, tx, c.vault, c.path["name"]); err != nil {
			return err
		}
		if changed, err = findVersion(ctx, tx, k, c.path["version"]); err != nil {
			return err
		}
		if err := changed.apply(request.Attributes, request.Operations, request.Tags); err != nil {
			return err
		}
		changed.updated = v.now().UnixMilli()
		return updateVersion(ctx, tx, changed)
	})
	if !changed.enabled {
		v.opened.Drop(changed.id) // also if the answer of the commit was lost
	}
	if err != nil {
		return nil, err
	}
	return c.bundle(k, changed)
}

// item is a key or a version in a list: without its public part.
type item struct {
	ID         string            `json:"kid"`
	Attributes attributes        `json:"attributes"`
	Tags       map[string]string `json:"tags,omitempty"`
	deletion
}

type page struct {
	Value []item  `json:"value"`
	Next  *string `json:"nextLink"`
}

const maxResults = 25 // of one page, as in Azure

// keyWithVersion is a key with one of its versions.
type keyWithVersion struct {
	key     key
	version version
}

// listKeys lists the vault's keys by name, each with its newest version's attributes.
func (v *Vaults) listKeys(ctx context.Context, c *call) (any, error) {
	return v.list(ctx, c, "keys", func(tx *store.Tx, after string, limit int) ([]keyWithVersion, error) {
		return selectKeys(ctx, tx, c.vault.id, after, limit)
	}, func(l keyWithVersion) (string, string) { return l.key.name, "" })
}

// listVersions lists a key's versions, the oldest first.
func (v *Vaults) listVersions(ctx context.Context, c *call) (any, error) {
	path := "keys/" + c.path["name"] + "/versions"
	return v.list(ctx, c, path, func(tx *store.Tx, after string, limit int) ([]keyWithVersion, error) {
		number, err := strconv.ParseInt("0"+after, 10, 64)
		if err != nil {
			return nil, azure.Invalid("the query parameter $skiptoken is not from a nextLink")
		}
		k, err := liveKey(ctx, tx, c.vault, c.path["name"])
		if err != nil {
			return nil, err
		}
		return selectVersions(ctx, tx, k, number, limit)
	}, func(l keyWithVersion) (string, string) {
		return strconv.FormatInt(l.version.number, 10), l.version.version
	})
}

// list returns one page. read returns the entries after a position; name returns the
// position of an entry and the version that its id names, if any.
func (v *Vaults) list(ctx context.Context, c *call, path string,
	read func(tx *store.Tx, after string, limit int) ([]keyWithVersion, error), name func(keyWithVersion) (place, version string),
) (any, error) {
	limit, after, err := c.paging()
	if err != nil {
		return nil, err
	}
	var found []keyWithVersion
	err = v.db.View(ctx, func(tx *store.Tx) (err error) {
		found, err = read(tx, after, limit+1)
		return err
	})
	if err != nil {
		return nil, err
	}
	answer := page{Value: []item{}}
	for _, l := range found[:min(limit, len(found))] {
		place, version := name(l)
		answer.Value = append(answer.Value, item{
			ID: c.keyID(l.key.name, version), Attributes: c.attributes(l.version), Tags: l.version.tags,
			deletion: c.deletion(l.key),
		})
		after = place
	}
	if len(found) > limit {
		next := c.base + "/" + path + "?api-version=" + c.query.Get("api-version") +
			"&maxresults=" + strconv.Itoa(limit) + "&$skiptoken=" + base64.RawURLEncoding.EncodeToString([]byte(after))
		answer.Next = &next
	}
	return answer, nil
}

// paging reads how many entries a page may have and after which it begins.
func (c *call) paging() (limit int, after string, err error) {
	limit = maxResults
	if text := c.query.Get("maxresults"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > maxResults {
			return 0, "", azure.Invalid("the query parameter maxresults is not a number from 1 to %d", maxResults)
		}
	}
	place, err := base64.RawURLEncoding.DecodeString(c.query.Get("$skiptoken"))
	if err != nil || len(place) > 0 && !keyName().Match(place) {
		return 0, "", azure.Invalid("the query parameter $skiptoken is not from a nextLink")
	}
	return limit, string(place), nil
}

// liveKey returns a key that is not deleted.
func liveKey(ctx context.Context, tx *store.Tx, vault vault, name string) (key, error) {
	k, ok, err := findKey(ctx, tx, vault.id, name)
	if err == nil && (!ok || k.deleted != 0) {
		err = keyNotFound(vault, name)
	}
	return k, err
}

func keyNotFound(vault vault, name string) error {
	return azure.Refuse(api.NotFound, "KeyNotFound", "", "key %q does not exist in vault %q", name, vault.name)
}

// nextVersion returns the key of that name with the number of its next version as
// latest. It creates the key if there is none.
func nextVersion(ctx context.Context, tx *store.Tx, vault vault, name string) (key, error) {
	k, ok, err := findKey(ctx, tx, vault.id, name)
	if err != nil {
		return key{}, err
	}
	if !ok {
		k = key{id: store.NewID(), tenant: vault.tenant, vault: vault.id, name: name, latest: 1}
		return k, insertKey(ctx, tx, k)
	}
	if k.deleted != 0 {
		return key{}, deletedButRecoverable(name)
	}
	k.latest++
	return k, setLatest(ctx, tx, k)
}

func deletedButRecoverable(name string) error {
	return azure.Refuse(api.Conflict, "Conflict", "ObjectIsDeletedButRecoverable",
		"key %q is deleted but recoverable; its name cannot be used again until it is recovered or purged", name)
}

func checkOperations(kind string, operations []string) error {
	may := operationsOf(kind)
	for i, o := range operations {
		switch {
		case slices.Contains(operations[:i], o):
			return azure.Invalid("key_ops names %q twice", o)
		case slices.Contains(may, o):
		case slices.Contains(operationsOf("RSA"), o):
			return azure.Invalid("operation %s is not possible with a key of type %s", o, kind)
		case slices.Contains(azureOperations, o):
			return notOffered(o)
		default:
			return azure.Invalid("%.40q is not a valid key operation; this vault offers wrapKey and unwrapKey", o)
		}
	}
	return nil
}
