package vault_test

import (
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/keyvault/armkeyvault"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"keyroll/internal/access"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// operations calls each operation of a vault, by the permission that it needs.
var operations = []struct {
	permission armkeyvault.KeyPermissions
	call       func(*azkeys.Client) error
}{
	{"create", func(c *azkeys.Client) error { _, err := c.CreateKey(ctx, "new", ec(), nil); return err }},
	{"get", func(c *azkeys.Client) error { _, err := c.GetKey(ctx, "k", "", nil); return err }},
	{"list", func(c *azkeys.Client) error { _, err := c.NewListKeyPropertiesPager(nil).NextPage(ctx); return err }},
	{"list", func(c *azkeys.Client) error {
		_, err := c.NewListKeyPropertiesVersionsPager("k", nil).NextPage(ctx)
		return err
	}},
	{"update", func(c *azkeys.Client) error {
		_, err := c.UpdateKey(ctx, "k", "", azkeys.UpdateKeyParameters{}, nil)
		return err
	}},
	{"wrapKey", func(c *azkeys.Client) error {
		_, err := c.WrapKey(ctx, "k", "", wrapParameters("RSA-OAEP-256", []byte("x")), nil)
		return err
	}},
	{"unwrapKey", func(c *azkeys.Client) error {
		_, err := c.UnwrapKey(ctx, "k", "", wrapParameters("RSA-OAEP-256", []byte("x")), nil)
		return err
	}},
	{"backup", func(c *azkeys.Client) error { _, err := c.BackupKey(ctx, "k", nil); return err }},
	{"restore", func(c *azkeys.Client) error {
		_, err := c.RestoreKey(ctx, azkeys.RestoreKeyParameters{KeyBackup: []byte("x")}, nil)
		return err
	}},
	{"delete", func(c *azkeys.Client) error { _, err := c.DeleteKey(ctx, "k", nil); return err }},
	{"list", func(c *azkeys.Client) error {
		_, err := c.NewListDeletedKeyPropertiesPager(nil).NextPage(ctx)
		return err
	}},
	{"get", func(c *azkeys.Client) error { _, err := c.GetDeletedKey(ctx, "k", nil); return err }},
	{"recover", func(c *azkeys.Client) error { _, err := c.RecoverDeletedKey(ctx, "k", nil); return err }},
	{"purge", func(c *azkeys.Client) error { _, err := c.PurgeDeletedKey(ctx, "k", nil); return err }},
}

// denied reports whether err is the vault's refusal for lack of a permission.
func denied(err error) bool {
	return err != nil && strings.Contains(err.Error(), "does not have the keys permission")
}

func TestEachOperationNeedsItsOwnPermission(t *testing.T) {
	n := contoso(t, sqlite(t))
	create(t, n.keys("contoso-A"), "k", ec())
	all := []armkeyvault.KeyPermissions{"get", "list", "create", "import", "update", "delete", "recover", "backup", "restore",
		"purge", "wrapKey", "unwrapKey", "encrypt", "decrypt", "sign", "verify", "release", "rotate"}
	c := n.keysAs("contoso-A", access.Exchange)
	for _, o := range operations {
		others := []armkeyvault.KeyPermissions{}
		for _, p := range all {
			if p != o.permission {
				others = append(others, p)
			}
		}
		n.grant("contoso-A", access.Exchange, others...)
		refused(t, o.call(c), 403, "Forbidden", "AccessDenied",
			"Office 365 Exchange Online", access.Exchange.String(), "contoso-A", `"`+string(o.permission)+`"`)
		n.grant("contoso-A", access.Exchange, o.permission)
		if err := o.call(c); denied(err) {
			t.Errorf("with the permission %s: %v", o.permission, err)
		}
	}
}

func TestRemovedPermissionTakesEffectAtOnce(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		n := contoso(t, db)
		create(t, n.keys("contoso-A"), "k", rsa2048())
		n.grant("contoso-A", access.Exchange, "get", "wrapKey", "unwrapKey")
		c := n.keysAs("contoso-A", access.Exchange)
		wrap := func() error {
			_, err := c.WrapKey(ctx, "k", "", wrapParameters("RSA-OAEP-256", []byte("x")), nil)
			return err
		}
		if err := wrap(); err != nil {
			t.Fatal(err)
		}
		n.policies(armkeyvault.AccessPolicyUpdateKindRemove, "contoso-A", access.Exchange, "wrapKey")
		if err := wrap(); !denied(err) {
			t.Errorf("after its removal: %v", err)
		}
		if _, err := c.GetKey(ctx, "k", "", nil); err != nil {
			t.Errorf("get, which was left: %v", err)
		}
		n.policies(armkeyvault.AccessPolicyUpdateKindAdd, "contoso-A", access.Exchange, "wrapKey")
		if err := wrap(); err != nil {
			t.Errorf("given again: %v", err)
		}
		n.policies(armkeyvault.AccessPolicyUpdateKindRemove, "contoso-A", access.Exchange)
		if _, err := c.GetKey(ctx, "k", "", nil); !denied(err) {
			t.Errorf("all removed: %v", err)
		}
		if _, err := n.keys("contoso-A").GetKey(ctx, "k", "", nil); err != nil {
			t.Errorf("another principal's permissions went too: %v", err)
		}
		n.grant("contoso-A", access.Exchange, "all")
		n.policies(armkeyvault.AccessPolicyUpdateKindRemove, "contoso-A", access.Exchange, "wrapKey")
		if err := wrap(); !denied(err) {
			t.Errorf("all but wrapKey: %v", err)
		}
		if _, err := c.GetKey(ctx, "k", "", nil); err != nil {
			t.Errorf("all but wrapKey, get: %v", err)
		}
	})
}

func TestPermissionAppliesToOneVaultOnly(t *testing.T) {
	n := contoso(t, sqlite(t))
	n.createVault("contoso-B", nil)
	create(t, n.keys("contoso-B"), "k", ec())
	n.grant("contoso-A", access.Exchange, "all")
	if _, err := n.keysAs("contoso-B", access.Exchange).GetKey(ctx, "k", "", nil); !denied(err) {
		t.Errorf("got %v", err)
	}
}

func TestAnotherTenantsTokensAreRefused(t *testing.T) {
	n := contoso(t, sqlite(t))
	create(t, n.keys("contoso-A"), "k", ec())
	other := n.testServer.tenant("fabrikam")
	path := n.url("contoso-A") + "/keys/k?api-version=7.4"
	var p problem
	status, header := other.callWith("GET", path, "", other.token, &p)
	if status != 401 || p.Error.Code != "Unauthorized" || !strings.Contains(header.Get("WWW-Authenticate"), n.GUID.String()) {
		t.Errorf("%d %+v", status, p)
	}
	// The same application id exists in both tenants; its token names its own.
	n.grant("contoso-A", access.Exchange, "all")
	if _, err := other.keysAs("contoso-A", access.Exchange).GetKey(ctx, "k", "", nil); err == nil {
		t.Error("another tenant's service principal read a key")
	}
	// A subscription of that id would be the other tenant's own: there is nothing in it.
	var list struct{ Value []any }
	status = other.call("GET", n.server.URL+"/subscriptions/"+n.subscription+"/providers/Microsoft.KeyVault/vaults?api-version=2024-11-01", "", &list)
	if status != 200 || len(list.Value) != 0 {
		t.Errorf("vaults: %d %v", status, list.Value)
	}
	for _, path := range []string{
		"/subscriptions/" + n.subscription + "/resourceGroups/rg1/providers/Microsoft.KeyVault/vaults/contoso-A",
		"/subscriptions/" + other.subscription + "/resourceGroups/rg1/providers/Microsoft.KeyVault/vaults/contoso-A",
	} {
		if status := other.call("GET", n.server.URL+path+"?api-version=2024-11-01", "", nil); status != 404 {
			t.Errorf("%s: %d", path, status)
		}
	}
	_, err := other.putVault("CONTOSO-a", nil)
	refused(t, err, 409, "VaultAlreadyExists", "")
}

func TestServicePrincipalsReadVaultsAndOnlyAdminsManageThem(t *testing.T) {
	n := contoso(t, sqlite(t))
	secret, err := n.dir.ClientSecret(ctx, n.ID, access.Exchange)
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Token string `json:"access_token"`
	}
	form := "grant_type=client_credentials&client_id=" + access.Exchange.String() + "&client_secret=" + secret +
		"&scope=" + n.server.URL + "/.default"
	response, err := n.http.Post(n.server.URL+"/"+n.GUID.String()+"/oauth2/v2.0/token", "application/x-www-form-urlencoded", strings.NewReader(form))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	decodeJSON(t, response.Body, &answer)
	var p problem
	in := "/subscriptions/" + n.subscription
	group := in + "/resourceGroups/rg1/providers/Microsoft.KeyVault/vaults"
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/subscriptions", 200},
		{"GET", in + "/providers/Microsoft.KeyVault/vaults", 200},
		{"GET", group, 200},
		{"GET", group + "/contoso-A", 200},
		{"PUT", group + "/contoso-B", 403},
		{"PATCH", group + "/contoso-A", 403},
		{"DELETE", group + "/contoso-A", 403},
		{"PUT", group + "/contoso-A/accessPolicies/add", 403},
		{"GET", in + "/providers/Microsoft.KeyVault/deletedVaults", 403},
		{"GET", in + "/providers/Microsoft.KeyVault/locations/eastus/deletedVaults/contoso-A", 403},
		{"POST", in + "/providers/Microsoft.KeyVault/locations/eastus/deletedVaults/contoso-A/purge", 403},
		{"GET", in + "/providers/Microsoft.Features/providers/Microsoft.Resources/features/mandatoryRetentionPeriodEnabled", 403},
		{"POST", in + "/providers/Microsoft.Features/providers/Microsoft.Resources/features/mandatoryRetentionPeriodEnabled/register", 403},
		{"GET", in + "/providers/Microsoft.KeyVault", 403},
		{"POST", in + "/providers/Microsoft.KeyVault/register", 403},
		{"GET", "/subscriptions/x/y/z", 403},
	} {
		p := problem{}
		status, _ := n.callWith(c.method, n.server.URL+c.path+"?api-version=2024-11-01", "{}", answer.Token, &p)
		if status != c.status || status == 403 && (p.Error.Code != "AuthorizationFailed" || !strings.Contains(p.Error.Message, access.Exchange.String())) {
			t.Errorf("%s %s: %d %+v", c.method, c.path, status, p)
		}
	}
	status, header := n.callWith("GET", n.server.URL+"/subscriptions?api-version=2022-12-01", "", "", &p)
	if status != 401 || header.Get("WWW-Authenticate") == "" {
		t.Errorf("without a token: %d", status)
	}
	// A token for vaults is not valid for their management.
	var vaultToken struct {
		Token string `json:"access_token"`
	}
	form = strings.Replace(form, n.server.URL+"/.default", strings.Replace(n.url("x"), "x.", "", 1)+"/.default", 1)
	response, err = n.http.Post(n.server.URL+"/"+n.GUID.String()+"/oauth2/v2.0/token", "application/x-www-form-urlencoded", strings.NewReader(form))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	decodeJSON(t, response.Body, &vaultToken)
	if status, _ := n.callWith("GET", n.server.URL+"/subscriptions?api-version=2022-12-01", "", vaultToken.Token, &p); status != 401 || vaultToken.Token == "" {
		t.Errorf("with a vault's token: %d", status)
	}
}

// beforeBody is the body of a request that is read once something has happened.
type beforeBody struct {
	io.Reader
	happen func()
}

func (b *beforeBody) Read(p []byte) (int, error) {
	if b.happen != nil {
		b.happen()
		b.happen = nil
	}
	return b.Reader.Read(p)
}

// A request whose body comes late is decided by what holds then.
func TestRequestThatWaitedIsDecidedByWhatHoldsThen(t *testing.T) {
	n := contoso(t, sqlite(t))
	n.vaults.AlwaysRead()
	c := n.keys("contoso-A")
	create(t, c, "k", rsa2048())
	wrapped, err := c.WrapKey(ctx, "k", "", wrapParameters("RSA-OAEP-256", []byte("x")), nil)
	if err != nil {
		t.Fatal(err)
	}
	execute := func(statement string) func() {
		return func() {
			if err := n.db.InTx(ctx, func(tx *store.Tx) error { _, err := tx.Exec(ctx, statement); return err }); err != nil {
				t.Error(err)
			}
		}
	}
	body := `{"alg":"RSA-OAEP-256","value":"` + base64.RawURLEncoding.EncodeToString(wrapped.Result) + `"}`
	for _, row := range []struct {
		happen, undo func()
		status       int
		word         string
	}{
		{func() {}, func() {}, http.StatusOK, ""},
		{execute(`UPDATE vault_key_version SET enabled = 0`), execute(`UPDATE vault_key_version SET enabled = 1`), http.StatusForbidden, "KeyDisabled"},
		{execute(`UPDATE vault_key SET deleted = 1`), execute(`UPDATE vault_key SET deleted = 0`), http.StatusNotFound, "KeyNotFound"},
		{execute(`UPDATE vault_permission SET permissions = 'wrapKey'`), execute(`UPDATE vault_permission SET permissions = 'all'`), http.StatusForbidden, "AccessDenied"},
		{execute(`UPDATE vault SET deleted = 1`), execute(`UPDATE vault SET deleted = 0`), http.StatusNotFound, "VaultNotFound"},
		{execute(`DELETE FROM principal`), func() {}, http.StatusUnauthorized, "Unauthorized"},
	} {
		r := httptest.NewRequest("POST", n.url("contoso-A")+"/keys/k/unwrapkey?api-version=7.4", &beforeBody{strings.NewReader(body), row.happen})
		r.Header.Set("Authorization", "Bearer "+n.token)
		answer := httptest.NewRecorder()
		n.vaults.Handler().ServeHTTP(answer, r)
		if answer.Code != row.status || !strings.Contains(answer.Body.String(), row.word) {
			t.Errorf("%d %s, not %d %s", answer.Code, answer.Body, row.status, row.word)
		}
		row.undo()
	}
}
