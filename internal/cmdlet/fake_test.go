package cmdlet

import (
	"bytes"
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/fail"
)

// recorder is a Service and a Vaults that answers from small maps and records every call.
type recorder struct {
	check    api.KeyCheck
	calls    []string
	policies []api.Policy
	boxes    []api.Mailbox
	sites    []api.Site
	geos     []api.Geo
	usage    []api.KeyUsage
	vaults   []Vault
	versions []Key
	pages    int // mailboxes a page; 0 for all
	limit    string
	fail     map[string]error // by method
}

func (r *recorder) call(method, format string, args ...any) error {
	r.calls = append(r.calls, strings.TrimSpace(method+" "+fmt.Sprintf(format, args...)))
	return r.fail[method]
}

// changes returns the calls that change something.
func (r *recorder) changes() (all []string) {
	for _, c := range r.calls {
		if !strings.HasPrefix(c, "DryRun ") && !strings.HasPrefix(c, "CheckKeys") && !strings.HasPrefix(c, "List") && !strings.HasPrefix(c, "Show") && !strings.HasPrefix(c, "TestPolicy") {
			all = append(all, c)
		}
	}
	return all
}

var (
	day     = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	version = func(n int) string { return fmt.Sprintf("%032x", n) }
)

const (
	guid1 = "11111111-1111-1111-1111-111111111111"
	guid2 = "22222222-2222-2222-2222-222222222222"
	guid3 = "33333333-3333-3333-3333-333333333333"
	guid4 = "44444444-4444-4444-4444-444444444444"
	guid5 = "55555555-5555-5555-5555-555555555555"
)

func keyVersion(vault, key string, n int) api.KeyVersion {
	return api.KeyVersion{Vault: vault, Key: key, Version: version(n), URI: "https://" + vault + ".vault.azure.net/keys/" + key + "/" + version(n)}
}

func newRecorder() *recorder {
	box := func(name string, state api.MailboxState, policy string) api.Mailbox {
		return api.Mailbox{Name: name, Type: api.UserMailbox, State: state, Created: day, AssignedPolicy: policy, Items: 12, Bytes: 1234567,
			Protection: api.Protection{Policy: "USA_mailboxes", PolicyID: guid1, DataEncryptionPolicyID: guid2, Current: true, IsEncrypted: true}}
	}
	return &recorder{
		policies: []api.Policy{
			{ID: guid1, Name: "USA_mailboxes", Kind: api.MailboxPolicy, Description: "Root key", Enabled: true, State: api.Registered, PercentComplete: 100,
				Revision: guid2, Primary: keyVersion("vaultA1", "Key001", 1), Secondary: keyVersion("vaultA2", "Key002", 2), PrimaryHealth: &api.KeyHealth{State: api.Serves, Since: &day},
				SecondaryHealth: &api.KeyHealth{State: api.Refused, Since: &day, Reason: "the vault refused the service (403)"}, Created: day, Refreshed: day},
			{ID: guid3, Name: "Sites", Kind: api.SitePolicy, Geo: "default", Enabled: true, State: api.Rolling, PercentComplete: 37.5,
				Revision: guid3, Primary: keyVersion("stageRG3vault", "SPKey3", 3), Secondary: keyVersion("stageRG5vault", "SPKey5", 5), Created: day, Refreshed: day},
			{ID: guid4, Name: "Contoso_Global", Kind: api.MultiWorkloadPolicy, Enabled: true, Assigned: true, State: api.Registered, PercentComplete: 100,
				Revision: guid4, Primary: keyVersion("vaultA1", "Key001", 1), Secondary: keyVersion("vaultA2", "Key002", 2), Created: day, Refreshed: day},
			{ID: guid2, Name: "Service managed", Kind: api.ServiceManagedPolicy, Enabled: true, State: api.Registered},
		},
		boxes: []api.Mailbox{box("alice@contoso.com", api.Active, "USA_mailboxes"), box("bob@contoso.com", api.Inactive, "")},
		geos:  []api.Geo{{Name: "eur", Hosts: []string{"contosoeur.sharepoint.com"}}, {Name: "default", Default: true, Policy: "Sites", Created: day}},
		sites: []api.Site{
			{URL: "https://contoso.sharepoint.com/sites/a", Geo: "default", Created: day, Protection: api.Protection{PolicyID: guid3, DataEncryptionPolicyID: guid3, Current: true, IsEncrypted: true}},
			{URL: "https://contoso.sharepoint.com/sites/b", Geo: "default", Created: day, Protection: api.Protection{PolicyID: guid3, DataEncryptionPolicyID: guid2, IsEncrypted: true}},
		},
		vaults: []Vault{{Name: "Contoso-A", ResourceGroup: "rg", Location: "westus", SKU: "premium", PurgeProtection: true, RetentionDays: 90,
			ID: "/subscriptions/s/resourceGroups/rg/providers/Microsoft.KeyVault/vaults/Contoso-A", URI: "https://Contoso-A.vault.azure.net/",
			Access: []Access{{Principal: guid1, Keys: []string{"get", "wrapKey"}}}}},
		versions: []Key{
			{Vault: "Contoso-A", Name: "Key001", Version: version(2), ID: "https://contoso-a.vault.azure.net/keys/Key001/" + version(2), Enabled: true, Created: &day, Updated: &day, RecoveryLevel: "Recoverable"},
			{Vault: "Contoso-A", Name: "Key001", Version: version(1), ID: "https://contoso-a.vault.azure.net/keys/Key001/" + version(1), Created: &day, Updated: &day, RecoveryLevel: "Recoverable"},
		},
	}
}

func (r *recorder) CreateMailbox(_ context.Context, in api.CreateMailboxInput) (api.Mailbox, error) {
	m := api.Mailbox{Name: in.Body.Name, Type: in.Body.Type, ExternalAddress: in.Body.ExternalAddress, State: api.Active, Created: day}
	return m, r.change("CreateMailbox", in.Body.DryRun, "{Name:%s Type:%s ExternalAddress:%s Policy:%s}", in.Body.Name, in.Body.Type, in.Body.ExternalAddress, in.Body.Policy)
}

func (r *recorder) ListMailboxes(_ context.Context, in api.ListInput) (api.List[api.Mailbox], error) {
	err := r.call("ListMailboxes", "%+v", in.PageInput)
	if r.pages == 0 {
		return api.List[api.Mailbox]{Items: r.boxes}, err
	}
	first := 0
	for i, b := range r.boxes {
		if b.Name == in.After {
			first = i + 1
		}
	}
	last := min(first+r.pages, len(r.boxes))
	list := api.List[api.Mailbox]{Items: r.boxes[first:last]}
	if last < len(r.boxes) {
		list.Next = r.boxes[last-1].Name
	}
	return list, err
}

func (r *recorder) ShowMailbox(_ context.Context, in api.MailboxInput) (api.Mailbox, error) {
	if err := r.call("ShowMailbox", "%s", in.Mailbox); err != nil {
		return api.Mailbox{}, err
	}
	for _, b := range r.boxes {
		if b.Name == in.Mailbox {
			return b, nil
		}
	}
	return api.Mailbox{}, &api.Problem{Code: api.NotFound, Detail: fmt.Sprintf("mailbox %q does not exist", in.Mailbox), Hint: "keyroll mailbox list shows them"}
}

func (r *recorder) AssignMailbox(_ context.Context, in api.AssignMailboxInput) (api.Mailbox, error) {
	return api.Mailbox{}, r.change("AssignMailbox", in.Body.DryRun, "%s %q", in.Mailbox, in.Body.Policy)
}

func (r *recorder) CreateSite(_ context.Context, in api.CreateSiteInput) (api.Site, error) {
	return api.Site{URL: in.Body.URL, Created: day}, r.change("CreateSite", in.Body.DryRun, "%s", in.Body.URL)
}

func (r *recorder) ListSites(context.Context, api.ListInput) (api.List[api.Site], error) {
	return api.List[api.Site]{Items: r.sites}, r.call("ListSites", "")
}

func (r *recorder) ShowSite(_ context.Context, in api.SiteInput) (api.Site, error) {
	for _, s := range r.sites {
		if s.URL == in.Site {
			return s, r.call("ShowSite", "%s", in.Site)
		}
	}
	return api.Site{}, &api.Problem{Code: api.NotFound, Detail: "site does not exist"}
}

func (r *recorder) CreatePolicy(_ context.Context, in api.CreatePolicyInput) (api.Policy, error) {
	return r.policies[0], r.change("CreatePolicy", in.Body.DryRun, "{Kind:%s Name:%s Description:%s Keys:%v}", in.Body.Kind, in.Body.Name, in.Body.Description, in.Body.Keys)
}

// change records a change or a dry run.
func (r *recorder) change(name string, dryRun bool, format string, args ...any) error {
	if err := r.fail[name]; !dryRun || err != nil {
		return r.call(name, format, args...)
	}
	return r.call("DryRun "+name, format, args...)
}

func (r *recorder) CheckKeys(_ context.Context, in api.CheckKeysInput) (api.KeyCheck, error) {
	return r.check, r.call("CheckKeys", "%s %v", in.Body.Kind, in.Body.Keys)
}

func (r *recorder) RegisterSites(_ context.Context, in api.RegisterSitesInput) (api.Policy, error) {
	return r.policies[1], r.change("RegisterSites", in.Body.DryRun, "%s %+v %+v", in.Body.Geo, in.Body.Primary, in.Body.Secondary)
}

func (r *recorder) ListPolicies(context.Context, api.ListInput) (api.List[api.Policy], error) {
	return api.List[api.Policy]{Items: r.policies}, r.call("ListPolicies", "")
}

func (r *recorder) ShowPolicy(_ context.Context, in api.PolicyInput) (api.Policy, error) {
	err := r.call("ShowPolicy", "%s", in.Policy)
	p, refusal := r.policy(in)
	return p, errors.Join(err, refusal)
}

// policy finds a policy as the service does.
func (r *recorder) policy(in api.PolicyInput) (api.Policy, error) {
	for _, p := range r.policies {
		switch {
		case in.Policy != p.Name && in.Policy != p.ID && in.Policy != p.Revision:
		case in.Kind != "" && in.Kind != p.Kind:
			return api.Policy{}, &api.Problem{Code: api.NotFound, Detail: fmt.Sprintf("no %s policy is named %q: that is a %s policy", in.Kind, in.Policy, p.Kind),
				Hint: fmt.Sprintf("Get-DataEncryptionPolicy shows the %s policies", in.Kind)}
		default:
			return p, nil
		}
	}
	return api.Policy{}, &api.Problem{Code: api.NotFound, Detail: fmt.Sprintf("policy %q does not exist", in.Policy)}
}

func (r *recorder) RefreshPolicy(_ context.Context, in api.RefreshPolicyInput) (api.Refreshed, error) {
	p, err := r.policy(in.PolicyInput)
	if err != nil {
		return api.Refreshed{}, err
	}
	return api.Refreshed{Policy: p, Limit: r.limit}, r.change("RefreshPolicy", in.Body.DryRun, "%s {Depth:%s AllGenerations:%v}", in.Policy, in.Body.Depth, in.Body.AllGenerations)
}

func (r *recorder) UpdatePolicy(_ context.Context, in api.UpdatePolicyInput) (api.Refreshed, error) {
	return api.Refreshed{Policy: r.policies[1]}, r.change("UpdatePolicy", in.Body.DryRun, "%s %s %+v", in.Policy, in.Body.KeyType, in.Body.Key)
}

func (r *recorder) SetPolicy(_ context.Context, in api.SetPolicyInput) (api.Policy, error) {
	dryRun := in.Body.DryRun
	in.Body.DryRun = false
	raw, _ := json.Marshal(in.Body)
	p, err := r.policy(in.PolicyInput)
	if err != nil {
		return p, err
	}
	return p, r.change("SetPolicy", dryRun, "%s %s", in.Policy, raw)
}

func (r *recorder) ReplacePolicyKeys(_ context.Context, in api.ReplacePolicyKeysInput) (api.Refreshed, error) {
	p, err := r.policy(in.PolicyInput)
	if err != nil {
		return api.Refreshed{}, err
	}
	return api.Refreshed{Policy: p, Limit: r.limit}, r.change("ReplacePolicyKeys", in.Body.DryRun, "%s %v %s", in.Policy, in.Body.Keys, in.Body.Depth)
}

func (r *recorder) LeavePolicy(_ context.Context, in api.LeavePolicyInput) (api.Refreshed, error) {
	return api.Refreshed{}, r.change("LeavePolicy", in.DryRun, "%s", in.Policy)
}

const secretText = "S3cretOfPayroll"

func (r *recorder) CreateApplication(_ context.Context, in api.CreateApplicationInput) (api.CreatedApplication, error) {
	made := api.CreatedApplication{ApplicationInfo: api.ApplicationInfo{ID: guid5, Name: in.Body.Name, Created: day, Secrets: []api.Credential{{ID: guid2, Created: day, Expires: in.Body.Expires}}}}
	if !in.Body.DryRun {
		made.Secret = secretText
	}
	return made, r.change("CreateApplication", in.Body.DryRun, "%s %s", in.Body.Name, in.Body.Expires.Format(time.DateOnly))
}

func (r *recorder) ListApplications(context.Context, api.None) (api.List[api.ApplicationInfo], error) {
	return api.List[api.ApplicationInfo]{Items: []api.ApplicationInfo{
		{ID: guid5, Name: "Payroll", Created: day, Secrets: []api.Credential{{ID: guid2, Created: day, Expires: day.AddDate(1, 0, 0)}, {ID: guid3, Created: day, Expires: day.AddDate(2, 0, 0)}}},
		{ID: guid4, Name: "Archive", Created: day, Secrets: []api.Credential{}},
	}}, r.call("ListApplications", "")
}

func (r *recorder) RemoveApplication(_ context.Context, in api.RemoveApplicationInput) (api.None, error) {
	return api.None{}, r.change("RemoveApplication", in.DryRun, "%s", in.Application)
}

func (r *recorder) AddApplicationCredential(_ context.Context, in api.AddApplicationCredentialInput) (api.CreatedCredential, error) {
	made := api.CreatedCredential{Credential: api.Credential{ID: guid4, Created: day, Expires: in.Body.Expires}}
	if !in.Body.DryRun {
		made.Secret = secretText
	}
	return made, r.change("AddApplicationCredential", in.Body.DryRun, "%s %s", in.Application, in.Body.Expires.Format(time.DateOnly))
}

func (r *recorder) RemoveApplicationCredential(_ context.Context, in api.RemoveApplicationCredentialInput) (api.None, error) {
	return api.None{}, r.change("RemoveApplicationCredential", in.DryRun, "%s %s", in.Application, in.Credential)
}

func (r *recorder) TestPolicy(_ context.Context, in api.PolicyInput) (api.List[api.Probe], error) {
	return api.List[api.Probe]{Items: []api.Probe{
		{Root: "primary", Key: "https://vaultA1.vault.azure.net/keys/Key001/" + version(1), Wraps: true, Unwraps: true, Milliseconds: 1.5},
		{Root: "secondary", Key: "https://vaultA2.vault.azure.net/keys/Key002/" + version(2), Detail: "the key is disabled"},
	}}, r.call("TestPolicy", "%s", in.Policy)
}

func (r *recorder) AssignPolicy(_ context.Context, in api.AssignPolicyInput) (api.Policy, error) {
	return api.Policy{}, r.change("AssignPolicy", in.Body.DryRun, "%s", in.Body.Policy)
}

func (r *recorder) ShowAssignment(context.Context, api.None) (api.Policy, error) {
	for _, p := range r.policies {
		if p.Assigned {
			return p, r.call("ShowAssignment", "")
		}
	}
	return api.Policy{}, errors.Join(r.call("ShowAssignment", ""), &api.Problem{Code: api.NotFound, Detail: "no policy is assigned"})
}

func (r *recorder) RestoreSites(_ context.Context, in api.RestoreSitesInput) (api.Policy, error) {
	return r.policies[1], r.change("RestoreSites", in.Body.DryRun, "%s %+v %+v", in.Body.Geo, in.Body.Primary, in.Body.Secondary)
}

func (r *recorder) RequestPurge(_ context.Context, in api.RequestPurgeInput) (api.Purge, error) {
	p, err := r.policy(in.PolicyInput)
	if err != nil {
		return api.Purge{}, err
	}
	return api.Purge{Policy: p.Name, Limit: r.limit}, r.change("RequestPurge", in.Body.DryRun, "%s {Reason:%s Contact:%s Force:%v}", in.Policy, in.Body.Reason, in.Body.Contact, in.Body.Force)
}

func (r *recorder) ListGeos(context.Context, api.ListInput) (api.List[api.Geo], error) {
	return api.List[api.Geo]{Items: r.geos}, r.call("ListGeos", "")
}

func (r *recorder) ListKeyUsage(_ context.Context, in api.KeyUsageInput) (api.List[api.KeyUsage], error) {
	return api.List[api.KeyUsage]{Items: r.usage}, r.call("ListKeyUsage", "%s %s %s", in.Vault, in.Key, in.Version)
}

func (r *recorder) CreateVault(_ context.Context, v Vault) (Vault, error) {
	return v, r.call("CreateVault", "%s %s %s %s %v", v.Name, v.ResourceGroup, v.Location, v.SKU, v.PurgeProtection)
}

func (r *recorder) ShowVault(_ context.Context, name string) (Vault, error) {
	return r.vaults[0], r.call("ShowVault", "%s", name)
}

func (r *recorder) ListVaults(context.Context) ([]Vault, error) {
	return r.vaults, r.call("ListVaults", "")
}

func (r *recorder) SetAccess(_ context.Context, vault string, a Access) error {
	return r.call("SetAccess", "%s %s %v", vault, a.Principal+a.Name, a.Keys)
}

func (s KeySpec) String() string {
	text := fmt.Sprintf("%s %d %v", s.Type, s.Size, s.Operations)
	if s.Enabled != nil {
		text += fmt.Sprintf(" enabled=%v", *s.Enabled)
	}
	for name, t := range map[string]*time.Time{"nbf": s.NotBefore, "exp": s.Expires} {
		if t != nil {
			text += fmt.Sprintf(" %s=%s", name, t.Format(time.RFC3339))
		}
	}
	return text
}

func (r *recorder) CreateKey(_ context.Context, vault, name string, spec KeySpec) (Key, error) {
	k := Key{Vault: vault, Name: name, Version: version(7), ID: "https://" + strings.ToLower(vault) + ".vault.azure.net/keys/" + name + "/" + version(7),
		Type: spec.Type, Size: 2048, Operations: spec.Operations, Enabled: *spec.Enabled, NotBefore: spec.NotBefore, Created: &day, Updated: &day, RecoveryLevel: "Recoverable"}
	return k, r.call("CreateKey", "%s %s %s", vault, name, spec)
}

func (r *recorder) ShowKey(_ context.Context, vault, name, version string) (Key, error) {
	k := r.versions[0]
	k.Type, k.Size = "RSA-HSM", 2048
	return k, r.call("ShowKey", "%s %s %s", vault, name, version)
}

func (r *recorder) ListKeys(_ context.Context, vault string) ([]Key, error) {
	return r.versions[:1], r.call("ListKeys", "%s", vault)
}

func (r *recorder) ListKeyVersions(_ context.Context, vault, name string) ([]Key, error) {
	return r.versions, r.call("ListKeyVersions", "%s %s", vault, name)
}

func (r *recorder) UpdateKey(_ context.Context, vault, name, version string, spec KeySpec) (Key, error) {
	return r.versions[0], r.call("UpdateKey", "%s %s %s %s", vault, name, version, spec)
}

func (r *recorder) BackupKey(_ context.Context, vault, name string) ([]byte, error) {
	return []byte("sealed"), r.call("BackupKey", "%s %s", vault, name)
}

func (r *recorder) RestoreKey(_ context.Context, vault string, backup []byte) (Key, error) {
	return r.versions[0], r.call("RestoreKey", "%s %s", vault, backup)
}

func (r *recorder) RemoveKey(_ context.Context, vault, name string) (Key, error) {
	return r.versions[0], r.call("RemoveKey", "%s %s", vault, name)
}

func (r *recorder) RecoverKey(_ context.Context, vault, name string) (Key, error) {
	return r.versions[0], r.call("RecoverKey", "%s %s", vault, name)
}

func (r *recorder) ImportKey(_ context.Context, vault, name string, private *rsa.PrivateKey, spec KeySpec) (Key, error) {
	return r.versions[0], r.call("ImportKey", "%s %s %d bits %s", vault, name, private.N.BitLen(), spec)
}

func (r *recorder) ListDeletedKeys(_ context.Context, vault string) ([]Key, error) {
	return r.versions[1:], r.call("ListDeletedKeys", "%s", vault)
}

func (r *recorder) ShowDeletedKey(_ context.Context, vault, name string) (Key, error) {
	return r.versions[1], r.call("ShowDeletedKey", "%s %s", vault, name)
}

func (r *recorder) PurgeKey(_ context.Context, vault, name string) error {
	return r.call("PurgeKey", "%s %s", vault, name)
}

func (r *recorder) ProtectVault(_ context.Context, name string) (Vault, error) {
	return r.vaults[0], r.call("ProtectVault", "%s", name)
}

func (r *recorder) RemoveVault(_ context.Context, name string) error {
	return r.call("RemoveVault", "%s", name)
}

func (r *recorder) ListDeletedVaults(context.Context) ([]Vault, error) {
	return []Vault{{Name: "Contoso-Gone", ResourceGroup: "rg", Location: "westus", Deleted: &day, ScheduledPurge: &day}}, r.call("ListDeletedVaults", "")
}

func (r *recorder) RecoverVault(_ context.Context, name string) (Vault, error) {
	return r.vaults[0], r.call("RecoverVault", "%s", name)
}

func (r *recorder) PurgeVault(_ context.Context, name string) error {
	return r.call("PurgeVault", "%s", name)
}

func (r *recorder) RegisterFeature(_ context.Context, subscription, namespace, name string) (Feature, error) {
	return Feature{namespace, name, "Registered"}, r.call("RegisterFeature", "%s %s %s", subscription, namespace, name)
}

func (r *recorder) ShowFeature(_ context.Context, subscription, namespace, name string) (Feature, error) {
	return Feature{namespace, name, "Registered"}, r.call("ShowFeature", "%s %s %s", subscription, namespace, name)
}

func (r *recorder) RegisterProvider(_ context.Context, subscription, namespace string) (string, error) {
	return "Registered", r.call("RegisterProvider", "%s %s", subscription, namespace)
}

// result is the outcome of a run.
type result struct {
	out, err string
	calls    []string
	failure  error
}

func (r *recorder) options(out, err *bytes.Buffer) Options {
	return Options{Service: r, Vaults: r, Out: out, Err: err, Now: func() time.Time { return day }}
}

func runWith(r *recorder, text string, change func(*Options)) result {
	var out, err bytes.Buffer
	o := r.options(&out, &err)
	if change != nil {
		change(&o)
	}
	failure := Run(context.Background(), text, o)
	return result{out.String(), err.String(), r.calls, failure}
}

func asJSON(o *Options) { o.JSON = true }

// mustRun runs a text that must succeed.
func mustRun(t *testing.T, text string, change func(*Options)) result {
	t.Helper()
	got := runWith(newRecorder(), text, change)
	if got.failure != nil {
		t.Errorf("%s: %v", text, got.failure)
	}
	return got
}

// refusal runs a text that must fail and returns error and hint.
func refusal(t *testing.T, r *recorder, text string) string {
	t.Helper()
	got := runWith(r, text, nil)
	if got.failure == nil {
		t.Errorf("%s: not refused", text)
		return ""
	}
	_, detail, hint := fail.Public(got.failure)
	if hint != "" {
		detail += " | " + hint
	}
	return detail
}
