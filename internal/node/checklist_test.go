package node_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
	"keyroll/internal/store"
)

// The rows of the documentation's checklist of capabilities, each a test of
// what keyroll answers, for all three kinds of policies. checklist_*_test.go
// have the rows; what they stand on is here.

// kind is one column of the checklist: a policy and one thing that it protects.
type kind struct {
	api.PolicyKind
	policy  string
	service string    // application id
	vaults  [2]string // of the primary and the secondary key
	unit    string    // name of the container
}

var (
	mailboxes = kind{api.MailboxPolicy, "USA_mailboxes", exchange, [2]string{"Contoso-EX-A1", "Contoso-EX-A2"}, "alice@contoso.com"}
	sites     = kind{api.SitePolicy, "Sites", sharePoint, [2]string{"Contoso-SP-A1", "Contoso-SP-A2"}, "https://contoso.sharepoint.com/sites/finance"}
	stores    = kind{api.MultiWorkloadPolicy, "Contoso_Global", workloads, [2]string{"Contoso-DAR-A1", "Contoso-DAR-A2"}, "chat-messages"}

	kinds     = []kind{mailboxes, sites, stores}
	versioned = []kind{mailboxes, stores} // those whose keys are named without a version
)

const (
	underTenant = "bob@contoso.com" // a mailbox without a policy of its own
	firstSub    = "11111111-1111-1111-1111-111111111111"
	secondSub   = "22222222-2222-2222-2222-222222222222"
	said        = "From a@contoso.com Thu Jan  1 00:00:00 2026\nSubject: hello\n\nbody of it all\n\n"
)

// tenancy is a tenant that has done what the set-up pages ask for: every kind
// of policy on two HSM keys in two vaults, in two subscriptions that cannot end
// early and two regions, and something under each.
type tenancy struct {
	*nodetest.World
	t     *testing.T
	clock *ahead
	*silence
}

// ahead is a clock that can be put forward.
type ahead struct{ by atomic.Int64 }

func (a *ahead) now() time.Time          { return time.Now().Add(time.Duration(a.by.Load())) }
func (a *ahead) advance(d time.Duration) { a.by.Add(int64(d)) }

// silence is which vaults break off what they are asked, and which one does not
// answer at all.
type silence struct {
	mu      sync.Mutex
	names   []string
	mute    string
	release chan struct{}
}

func (s *silence) hit(host string) bool {
	s.mu.Lock()
	vault, _, _ := strings.Cut(host, ".")
	is := func(name string) bool { return strings.EqualFold(name, vault) }
	mute, hit := is(s.mute), slices.ContainsFunc(s.names, is)
	s.mu.Unlock()
	if mute {
		<-s.release
	}
	return mute || hit
}

// hang makes a vault take requests and not answer them until the test ends.
func (x tenancy) hang(name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.mute, x.release = name, make(chan struct{})
	x.t.Cleanup(func() { close(x.release) })
}

// away makes these vaults, and no others, break off what they are asked.
func (s *silence) away(names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names = names
}

// staged is the data folder of the tenancy: made once, then every row begins
// with a copy.
var staged struct {
	once  sync.Once
	files map[string][]byte
}

// newTenancy starts a node on a copy of the tenancy.
func newTenancy(t *testing.T, o node.Options) tenancy {
	t.Parallel()
	staged.once.Do(func() { staged.files = stage(t) })
	o.Data = filepath.Join(t.TempDir(), "data")
	for name, content := range staged.files {
		path := filepath.Join(o.Data, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return start(t, o)
}

func start(t *testing.T, o node.Options) tenancy {
	x := tenancy{t: t, clock: &ahead{}, silence: &silence{}}
	x.World = nodetest.Start(t, o.WithOutage(x.hit).WithClock(x.clock.now))
	return x
}

// stage makes the tenancy and returns the files of its data folder.
func stage(t *testing.T) map[string][]byte {
	x := start(t, node.Options{})
	for _, sub := range []string{firstSub, secondSub} {
		x.Script("Set-AzContext -SubscriptionId "+sub,
			"Register-AzProviderFeature -FeatureName mandatoryRetentionPeriodEnabled -ProviderNamespace Microsoft.Resources")
	}
	for _, k := range kinds {
		for i, vault := range k.vaults {
			x.newVault(k, vault, i)
			x.newKey(vault, "Key001")
		}
		if _, err := x.create(k, k.policy, x.uri(k.vaults[0], "Key001"), x.uri(k.vaults[1], "Key001")); err != nil {
			t.Fatal(err)
		}
	}
	x.Mailbox(mailboxes.unit, mailboxes.policy)
	x.Mailbox(underTenant, "")
	x.Import(underTenant, said)
	x.Site(sites.unit)
	x.AssignTenant(stores.policy)
	for _, k := range kinds {
		x.write(k, said)
	}
	x.settle()
	x.Node.Upkeep.Wait()
	x.Stop()
	files := map[string][]byte{}
	err := filepath.WalkDir(x.Data, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(x.Data, path)
		if err == nil {
			files[name], err = os.ReadFile(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// newVault makes a vault as the set-up page has it, the first or the second of
// a pair, which the service of a kind may use.
func (x tenancy) newVault(k kind, name string, i int) {
	x.t.Helper()
	x.Script(fmt.Sprintf("New-AzKeyVault -VaultName %s -ResourceGroupName Contoso-CK -Location %s -SubscriptionId %s -Sku Premium -EnablePurgeProtection",
		name, []string{"westus", "northeurope"}[i], []string{firstSub, secondSub}[i]))
	x.grant(k, name, "wrapKey,unwrapKey,get")
}

func (x tenancy) grant(k kind, vault, permissions string) {
	x.t.Helper()
	x.Script(fmt.Sprintf("Set-AzKeyVaultAccessPolicy -VaultName %s -PermissionsToKeys %s -ServicePrincipalName %s", vault, permissions, k.service))
}

// revoke takes the permissions on both keys of a kind's policy away; the cache
// of opened policy keys is dropped.
func (x tenancy) revoke(k kind) {
	x.t.Helper()
	x.Revoke(k.service, k.vaults[:]...)
	x.forget()
}

// restore gives them back.
func (x tenancy) restore(k kind) {
	x.t.Helper()
	for _, vault := range k.vaults {
		x.grant(k, vault, "wrapKey,unwrapKey,get")
	}
	x.forget()
}

// forget drops what policy keys are open, so that the vaults are asked again.
func (x tenancy) forget() { x.Node.Policies.Close() }

// newKey makes a version of a key.
func (x tenancy) newKey(vault, key string) (version string) {
	x.t.Helper()
	return x.one(fmt.Sprintf("(Add-AzKeyVaultKey -VaultName %s -Name %s -Destination HSM -KeyOps wrapKey,unwrapKey).Version", vault, key))
}

// one runs lines that print one value.
func (x tenancy) one(lines ...string) string {
	x.t.Helper()
	return strings.TrimSpace(x.Script(lines...))
}

func (x tenancy) uri(vault, key string) string {
	return fmt.Sprintf("https://%s.%s/keys/%s", vault, x.Info.VaultDomain, key)
}

// create makes a policy of a kind. A site policy other than the staged one is
// that of a new geo of the name.
func (x tenancy) create(k kind, name, primary, secondary string) (api.Policy, error) {
	x.t.Helper()
	ctx := x.t.Context()
	if k.PolicyKind != api.SitePolicy {
		var in api.CreatePolicyInput
		in.Body.Kind, in.Body.Name, in.Body.Keys = k.PolicyKind, name, []string{primary, secondary}
		return x.Client.CreatePolicy(ctx, in)
	}
	var in api.RegisterSitesInput
	if name != k.policy {
		var geo api.CreateGeoInput
		geo.Body.Name, geo.Body.Hosts = name, []string{strings.ToLower(name) + ".sharepoint.com"}
		if _, err := x.Client.CreateGeo(ctx, geo); err != nil {
			x.t.Fatal(err)
		}
		in.Body.Geo = name
	}
	in.Body.Primary, in.Body.Secondary = x.newest(primary), x.newest(secondary)
	return x.Client.RegisterSites(ctx, in)
}

// newest is the newest version of a key.
func (x tenancy) newest(uri string) api.KeyVersion {
	x.t.Helper()
	host, key, _ := strings.Cut(strings.TrimPrefix(uri, "https://"), "/keys/")
	vault, _, _ := strings.Cut(host, ".")
	k, err := x.Vaults().ShowKey(x.t.Context(), vault, key, "")
	if err != nil {
		x.t.Fatal(err)
	}
	return api.KeyVersion{Vault: vault, Key: key, Version: k.Version}
}

func (x tenancy) show(policy string) api.Policy {
	x.t.Helper()
	p, err := x.Client.ShowPolicy(x.t.Context(), api.PolicyInput{Policy: policy})
	if err != nil {
		x.t.Fatal(err)
	}
	return p
}

// settle waits until no roll runs.
func (x tenancy) settle() { x.t.Helper(); lab{x.World, x.t}.settle() }

func (x tenancy) write(k kind, content string) {
	x.t.Helper()
	switch k.PolicyKind {
	case api.MailboxPolicy:
		x.Import(k.unit, content)
	case api.SitePolicy:
		x.Put(k.unit, "plan.txt", []byte(content))
	default:
		x.PutItem(k.unit, "one", []byte(content))
	}
}

func (x tenancy) read(k kind) (string, error) {
	var content []byte
	var err error
	ctx := x.t.Context()
	switch k.PolicyKind {
	case api.MailboxPolicy:
		content, err = all(x.Client.ExportMail(ctx, api.MailboxInput{Mailbox: k.unit}))
	case api.SitePolicy:
		content, err = all(x.Client.GetFile(ctx, api.FileInput{SiteInput: api.SiteInput{Site: k.unit}, Path: "plan.txt"}, 0, -1))
	default:
		content, err = all(x.Client.GetWorkloadItem(ctx, api.WorkloadItemInput{WorkloadInput: api.WorkloadInput{Workload: k.unit}, Item: "one"}))
	}
	return string(content), err
}

// reads demands that what a kind's policy protects is read.
func (x tenancy) reads(k kind, when string) {
	x.t.Helper()
	if got, err := x.read(k); err != nil || got != said {
		x.t.Errorf("%s, %s: read %q, %v", k.policy, when, got, err)
	}
}

// under puts something under another policy of a kind, and returns it.
func (x tenancy) under(k kind, policy string) kind {
	x.t.Helper()
	k.policy = policy
	switch k.PolicyKind {
	case api.MailboxPolicy:
		k.unit = strings.ToLower(policy) + "@contoso.com"
		x.Mailbox(k.unit, policy)
	case api.SitePolicy:
		k.policy = sites.policy + "-" + policy
		k.unit = "https://" + strings.ToLower(policy) + ".sharepoint.com/sites/new"
		x.Site(k.unit)
	default:
		x.AssignTenant(policy)
	}
	x.settle()
	x.write(k, said)
	return k
}

// shut demands that it is not, and why.
func (x tenancy) shut(k kind, code api.Code, when string) {
	x.t.Helper()
	if got, err := x.read(k); codeOf(err) != code {
		x.t.Errorf("%s, %s: read %q, %v, want %s", k.policy, when, got, err, code)
	}
}

// refused demands a code and some words of a failure.
func refused(t *testing.T, what string, err error, code api.Code, words ...string) {
	t.Helper()
	if err == nil || codeOf(err) != code {
		t.Errorf("%s: %v [%s], want %s", what, err, codeOf(err), code)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v does not say %q", what, err, word)
		}
	}
}

// protection is what the container of a kind stands under.
func (x tenancy) protection(k kind) (p api.Protection) {
	x.t.Helper()
	ctx := x.t.Context()
	var err error
	switch k.PolicyKind {
	case api.MailboxPolicy:
		var m api.Mailbox
		m, err = x.Client.ShowMailbox(ctx, api.MailboxInput{Mailbox: k.unit})
		p = m.Protection
	case api.SitePolicy:
		var s api.Site
		s, err = x.Client.ShowSite(ctx, api.SiteInput{Site: k.unit})
		p = s.Protection
	default:
		var list api.List[api.Workload]
		list, err = x.Client.ListWorkloads(ctx, api.None{})
		for _, w := range list.Items {
			if w.Name == k.unit {
				p = w.Protection
			}
		}
	}
	if err != nil {
		x.t.Fatal(err)
	}
	return p
}

// audited returns the entries of root keys of a policy in the audit log, as
// "operation outcome detail", oldest first.
func (x tenancy) audited(policy string) []string {
	x.t.Helper()
	id := x.show(policy).ID
	return ask(x.t, x.Node.DB, func(tx *store.Tx) (list []string, err error) {
		rows, err := tx.Query(x.t.Context(), `SELECT operation, outcome, detail FROM audit_entry ORDER BY id`)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		for rows.Next() {
			var operation, outcome, detail string
			if err := rows.Scan(&operation, &outcome, &detail); err != nil {
				return nil, err
			}
			if strings.Contains(detail, id) {
				list = append(list, operation+" "+outcome+" "+detail)
			}
		}
		return list, rows.Err()
	})
}

// openedBy is the key that last opened a policy key of a policy, as the audit
// log names it.
func (x tenancy) openedBy(policy string) (key string) {
	x.t.Helper()
	for _, entry := range x.audited(policy) {
		if before, by, ok := strings.Cut(entry, " by its "); ok && strings.Contains(before, " done unwrap ") {
			key = by
		}
	}
	return key
}

// blobs returns the content of every file of the blob store.
func (x tenancy) blobs() (list [][]byte) {
	x.t.Helper()
	err := filepath.WalkDir(filepath.Join(x.Data, "blobs"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		list = append(list, bytes.Clone(content))
		return err
	})
	if err != nil {
		x.t.Fatal(err)
	}
	return list
}
