package node_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/longtest"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
)

// tenantOf makes a tenant as the operator and returns a World of its admin.
func tenantOf(t *testing.T, w *nodetest.World, name string) *nodetest.World {
	t.Helper()
	var in api.CreateTenantInput
	in.Body.Name = name
	made, err := w.Client.CreateTenant(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	return w.As(made.AdminToken)
}

// raw sends operations as plain requests, so that every operation is tested
// independently of the client.
type raw struct {
	t    *testing.T
	w    *nodetest.World
	http *http.Client
}

func newRaw(t *testing.T, w *nodetest.World) raw {
	t.Helper()
	pem, err := os.ReadFile(w.Info.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	return raw{t, w, &http.Client{Transport: transport}}
}

// fieldValue returns a value for a field of an operation's input: that of names for its name,
// or else any valid value.
func fieldValue(f reflect.StructField, name string, names map[string]string) any {
	if value, ok := names[name]; ok {
		return value
	}
	if enum := f.Tag.Get("enum"); enum != "" {
		return strings.Split(enum, ",")[0]
	}
	switch t := f.Type; {
	case t == reflect.TypeFor[time.Time]():
		return time.Now().UTC()
	case t.Kind() == reflect.Struct:
		return jsonObject(t, names)
	case t.Kind() == reflect.Slice:
		return []any{"x", "y"}
	case t.Kind() == reflect.Bool:
		return false
	case t.Kind() == reflect.String:
		return "x"
	}
	return 0
}

// jsonObject fills the JSON object of a type; optional members are omitted, unless names has
// them.
func jsonObject(t reflect.Type, names map[string]string) map[string]any {
	o := map[string]any{}
	for _, f := range reflect.VisibleFields(t) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if _, named := names[name]; f.Anonymous || name == "" || !named && (strings.Contains(options, "omitempty") || f.Tag.Get("required") == "false") {
			continue
		}
		o[name] = fieldValue(f, name, names)
	}
	return o
}

// call sends an operation with all names in its input taken from names, and returns
// which of them it uses.
func (r raw) call(op api.Meta, names map[string]string) (status int, body string, named []string) {
	r.t.Helper()
	path, query := op.Path, url.Values{}
	var content io.Reader
	for _, f := range reflect.VisibleFields(op.In) {
		if name := f.Tag.Get("path"); name != "" {
			path = strings.Replace(path, "{"+name+"}", url.PathEscape(fmt.Sprint(fieldValue(f, name, names))), 1)
			named = append(named, name)
		} else if name := f.Tag.Get("query"); name != "" {
			if value, ok := names[name]; ok {
				query.Set(name, value)
				named = append(named, name)
			}
		} else if f.Name == "Body" {
			sent := jsonObject(f.Type, names)
			for name := range sent {
				if names[name] != "" {
					named = append(named, name)
				}
			}
			text, err := json.Marshal(sent)
			if err != nil {
				r.t.Fatal(err)
			}
			content = bytes.NewReader(text)
		}
	}
	if op.Sends == api.Bytes {
		content = strings.NewReader("From a@b Thu Jan  1 00:00:00 2026\n\nx\n")
	}
	req, err := http.NewRequestWithContext(r.t.Context(), op.Method, r.w.Info.URL+path+"?"+query.Encode(), content)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+r.w.Token)
	if op.Sends != api.NoBody {
		req.Header.Set("Content-Type", string(op.Sends))
	}
	resp, err := r.http.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, string(text), named
}

// changing matches the parts of a response that differ between equal requests.
var changing = regexp.MustCompile(`"request":"[^"]*"|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22,}|\d{4}-\d\d-\d\dT[0-9:.]+Z`)

// withoutName removes the requested name from a response.
func withoutName(body, name string) string {
	quoted, _ := json.Marshal(name)
	return strings.ReplaceAll(changing.ReplaceAllString(body, "~"), strings.Trim(string(quoted), `"`), "~")
}

// createNamedObjects gives a tenant one of everything that an operation can name, and returns the
// names.
func createNamedObjects(t *testing.T, w *nodetest.World, name, service string) map[string]string {
	t.Helper()
	names := map[string]string{"mailbox": "user@" + name + ".com", "site": "https://" + name + "-eu.sharepoint.com/sites/team", "geo": name + " in Europe",
		"policy": name + "_mailboxes", "container": "user@" + name + ".com", "tenant": name, "path": "plan.txt"}
	w.Vault(name+"-1", service)
	w.Vault(name+"-2", service)
	w.Script(fmt.Sprintf("New-DataEncryptionPolicy -Name %s -AzureKeyIDs %s, %s", names["policy"], w.KeyURI(name+"-1"), w.KeyURI(name+"-2")))
	w.Mailbox(names["mailbox"], names["policy"])
	w.Import(names["mailbox"], "From a@contoso.com Thu Jan  1 00:00:00 2026\nSubject: hello\n\nbody\n\n")
	var geo api.CreateGeoInput
	geo.Body.Name, geo.Body.Hosts = names["geo"], []string{name + "-eu.sharepoint.com"}
	if _, err := w.Client.CreateGeo(t.Context(), geo); err != nil {
		t.Fatal(err)
	}
	w.Site(names["site"])
	w.Put(names["site"], names["path"], []byte("content"))
	w.AddKey(name + "-1")
	w.Refresh(names["policy"], api.DepthPolicy)
	names["roll"] = w.FinishRoll(names["policy"]).ID
	messages, err := w.Client.ListMessages(t.Context(), api.ListMailboxItems{MailboxInput: api.MailboxInput{Mailbox: names["mailbox"]}})
	if err != nil {
		t.Fatal(err)
	}
	names["message"] = messages.Items[0].ID
	return names
}

// TestATenantCannotAccessOrDiscoverAnother calls every operation with the token of
// one tenant's admin and with one name at a time that belongs to another tenant. The
// response equals that for a name that does not exist.
func TestATenantCannotAccessOrDiscoverAnother(t *testing.T) {
	t.Parallel()
	const exchange = "00000002-0000-0ff1-ce00-000000000000"
	w := nodetest.Start(t, node.Options{})
	a, b := tenantOf(t, w, "contoso"), tenantOf(t, w, "fabrikam")
	foreign, own := createNamedObjects(t, a, "contoso", exchange), createNamedObjects(t, b, "fabrikam", exchange)
	shown, err := a.Client.ShowPolicy(t.Context(), api.PolicyInput{Policy: foreign["policy"]})
	if err != nil {
		t.Fatal(err)
	}
	unknown := map[string]string{"mailbox": "unknown@contoso.com", "site": "https://contoso.sharepoint.com/sites/nothing", "geo": "Asia",
		"policy": "No_such_policy", "container": "unknown@contoso.com", "tenant": "unknown", "roll": "71", "message": "72"}
	asked := map[string]int{}
	r := newRaw(t, b)
	for _, op := range api.Operations() {
		_, _, named := r.call(op, unknown)
		for _, what := range named {
			if unknown[what] == "" {
				continue // a name within what is asked for, or that of another part of the contract
			}
			values := []string{foreign[what]}
			if what == "policy" {
				values = append(values, shown.ID, shown.Revision)
			}
			for _, value := range values {
				with := func(name string) (int, string) {
					names := maps.Clone(own)
					names[what] = name
					status, body, _ := r.call(op, names)
					return status, withoutName(body, name)
				}
				status, body := with(value)
				wantStatus, want := with(unknown[what])
				if status != wantStatus || body != want || status/100 == 2 {
					t.Errorf("%s tells another tenant's %s %q from one that does not exist: %d %s, %d %s", op.Name, what, value, status, body, wantStatus, want)
				}
				asked[what]++
			}
		}
		if len(named) == 0 {
			_, body, _ := r.call(op, own)
			for what, value := range foreign {
				if what != "path" && strings.Contains(body, value) {
					t.Errorf("%s tells another tenant's %s: %s", op.Name, what, body)
				}
			}
		}
	}
	for what := range unknown {
		if asked[what] == 0 && what != "container" {
			t.Errorf("no operation was asked for another's %s", what)
		}
	}
	// The requests are valid: the owner's succeed.
	r = newRaw(t, a)
	for _, op := range []api.Meta{api.ShowMailbox.Meta, api.ReadMessage.Meta, api.ShowSite.Meta, api.GetFile.Meta, api.ShowPolicy.Meta, api.ShowRoll.Meta, api.Verify.Meta, api.ListFiles.Meta} {
		if status, body, _ := r.call(op, foreign); status != http.StatusOK {
			t.Errorf("%s of its own: %d %s", op.Name, status, body)
		}
	}
	a.VerifyClean()
	b.VerifyClean()
}

// TestVaultsBelongToOneTenant looks at the vaults of one tenant from another.
func TestVaultsBelongToOneTenant(t *testing.T) {
	t.Parallel()
	w := nodetest.Start(t, node.Options{})
	a, b := tenantOf(t, w, "contoso"), tenantOf(t, w, "fabrikam")
	a.StageMail()
	if list := b.Script("Get-AzKeyVault"); strings.Contains(list, "Contoso") {
		t.Errorf("another tenant lists %s", list)
	}
	for _, line := range []string{
		"Get-AzKeyVaultKey -VaultName " + nodetest.VaultA1 + " -Name " + nodetest.KeyOf(nodetest.VaultA1),
		"Add-AzKeyVaultKey -VaultName " + nodetest.VaultA1 + " -Name other -Destination Software",
		"Set-AzKeyVaultAccessPolicy -VaultName " + nodetest.VaultA1 + " -PermissionsToKeys wrapKey,unwrapKey,get -ServicePrincipalName 00000002-0000-0ff1-ce00-000000000000",
		"Remove-AzKeyVaultKey -VaultName " + nodetest.VaultA1 + " -Name " + nodetest.KeyOf(nodetest.VaultA1) + " -Confirm:$false",
		fmt.Sprintf("New-DataEncryptionPolicy -Name Stolen -AzureKeyIDs %s, %s", b.KeyURI(nodetest.VaultA1), b.KeyURI(nodetest.VaultA2)),
	} {
		if out, err := b.TryScript(line); err == nil {
			t.Errorf("%s printed %s", line, out)
		}
	}
	// Each has its own service principals and its own mailbox of one name.
	b.Vault("Fabrikam-V1", "00000002-0000-0ff1-ce00-000000000000")
	b.Vault("Fabrikam-V2", "00000002-0000-0ff1-ce00-000000000000")
	b.Script(fmt.Sprintf("New-DataEncryptionPolicy -Name %s -AzureKeyIDs %s, %s", nodetest.MailboxPolicy, b.KeyURI("Fabrikam-V1"), b.KeyURI("Fabrikam-V2")))
	for _, of := range []*nodetest.World{a, b} {
		of.Mailbox("alice@contoso.com", nodetest.MailboxPolicy)
		of.VerifyClean()
	}
	for _, vault := range []string{nodetest.VaultA1, nodetest.VaultA2} {
		a.Script("Remove-AzKeyVaultAccessPolicy -VaultName " + vault + " -ServicePrincipalName 00000002-0000-0ff1-ce00-000000000000 -Confirm:$false")
	}
	w.Node.Policies.Close()
	if v := a.Verify(); len(v.Closed) == 0 {
		t.Error("nothing of the tenant that withdrew its keys is closed")
	}
	b.VerifyClean()
}

// TestManyTenantsInOneServer makes many tenants (a thousand in make test-long),
// restarts, lists them in pages and checks each of them.
func TestManyTenantsInOneServer(t *testing.T) {
	t.Parallel()
	w := nodetest.Start(t, node.Options{})
	many := longtest.Of(200, 1000)
	tokens := make([]string, many-1) // beside the first one
	var operators errgroup.Group
	operators.SetLimit(8)
	for i := range tokens {
		operators.Go(func() error {
			var in api.CreateTenantInput
			in.Body.Name = fmt.Sprintf("tenant %03d", i)
			made, err := w.Client.CreateTenant(t.Context(), in)
			tokens[i] = made.AdminToken
			return err
		})
	}
	if err := operators.Wait(); err != nil {
		t.Fatal(err)
	}
	w.Restart(nil)
	var names []string
	for page := (api.PageInput{Limit: 77}); ; {
		l, err := w.Client.ListTenants(t.Context(), api.ListInput{PageInput: page})
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range l.Items {
			names = append(names, one.Name)
		}
		if page.After = l.Next; page.After == "" {
			break
		}
	}
	want := []string{"default"}
	for i := range tokens {
		want = append(want, fmt.Sprintf("tenant %03d", i))
	}
	if slices.Sort(names); !slices.Equal(names, want) {
		t.Errorf("%d tenants are listed: %v", len(names), names)
	}
	for _, i := range []int{0, many / 2, many - 2} {
		name, one := fmt.Sprintf("tenant %03d", i), w.As(tokens[i])
		one.Mailbox("alice@contoso.com", "")
		one.Import("alice@contoso.com", "From a@contoso.com Thu Jan  1 00:00:00 2026\n\n"+name+"\n\n")
		if mail := one.Export("alice@contoso.com"); !strings.Contains(mail, name) {
			t.Errorf("%s reads %q", name, mail)
		}
		one.VerifyClean()
	}
}

// TestATokenIsValidOnlyForTheTenantThatTheRequestNames sends the header that names a tenant.
func TestATokenIsValidOnlyForTheTenantThatTheRequestNames(t *testing.T) {
	w := nodetest.Start(t, node.Options{})
	b := tenantOf(t, w, "Contoso & Söhne")
	pem, err := os.ReadFile(w.Info.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	as := func(token, tenant string) error {
		k, err := client.New(client.Options{URL: w.Info.URL, Token: token, CA: pem, Tenant: tenant})
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		_, err = k.ListPolicies(t.Context(), api.ListInput{})
		return err
	}
	for _, own := range []string{"", "Contoso & Söhne"} {
		if err := as(b.Token, own); err != nil {
			t.Errorf("%q: %v", own, err)
		}
	}
	if err := as(w.Token, strings.ToUpper(w.Info.TenantID)); err != nil {
		t.Error(err)
	}
	var refusals []string
	for _, other := range []string{"default", "unknown", w.Info.TenantID} {
		err := as(b.Token, other)
		if p, ok := err.(*api.Problem); !ok || p.Code != api.Forbidden {
			t.Errorf("%q: %v", other, err)
			continue
		}
		refusals = append(refusals, err.Error())
	}
	if len(slices.Compact(refusals)) != 1 {
		t.Errorf("refusals differ: %q", refusals)
	}
}
