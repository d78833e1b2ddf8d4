package node_test

import (
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
	"keyroll/internal/store/storetest"
)

// The rows of the documentation's checklist of capabilities, each a test of
// what keyroll answers, for all three kinds of policies. checklist_*_test.go have the
// rows; this file has what they share.

// kind is one column of the checklist: a policy and one container under it.
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

// tenancy is a tenant that has followed the set-up pages: every kind of policy with two
// HSM keys in two vaults, in two regions and two subscriptions that cannot be cancelled
// early, and a container under each.
type tenancy struct {
	*nodetest.World
	t       *testing.T
	clock   *shiftedClock
	outside *nodetest.World // has the vaults; nil: they are embedded
	*silence
}

// shiftedClock is a clock that can be advanced.
type shiftedClock struct{ by atomic.Int64 }

func (a *shiftedClock) now() time.Time          { return time.Now().Add(time.Duration(a.by.Load())) }
func (a *shiftedClock) advance(d time.Duration) { a.by.Add(int64(d)) }

// silence says which vaults cut connections, and which one does not respond at all.
type silence struct {
	mu      sync.Mutex
	names   []string
	mute    string
	release chan struct{}
}

func (s *silence) disconnects(host string) bool {
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

// hang makes a vault accept requests and not respond until the test ends.
func (x tenancy) hang(name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.mute, x.release = name, make(chan struct{})
	x.t.Cleanup(func() { close(x.release) })
}

// disconnect makes these vaults, and no others, cut connections.
func (s *silence) disconnect(names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names = names
}

// staged are the data folders of a tenancy and of its outside vaults: made once, and
// copied for every row.
type staged struct {
	once          sync.Once
	files, vaults map[string][]byte
}

var embedded, outside staged

// newTenancy starts a node on a copy of the tenancy with embedded vaults.
func newTenancy(t *testing.T, o node.Options) tenancy {
	t.Parallel()
	embedded.once.Do(func() { embedded.files, _ = stage(t, start(t, node.Options{Data: nodetest.Folder(t)})) })
	return start(t, copied(t, o, embedded.files))
}

// newOutsideTenancy starts a node on a copy of the tenancy whose vaults are outside and
// can have an outage.
func newOutsideTenancy(t *testing.T, o node.Options) tenancy {
	t.Parallel()
	outside.once.Do(func() {
		outside.files, outside.vaults = stage(t, startUsing(t, node.Options{Data: nodetest.Folder(t)}, nodetest.Folder(t)))
	})
	vaults := nodetest.Folder(t)
	write(t, vaults, outside.vaults)
	return startUsing(t, copied(t, o, outside.files), vaults)
}

func write(t *testing.T, folder string, files map[string][]byte) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// copied makes a data folder of files and returns the options of a node on it.
func copied(t *testing.T, o node.Options, files map[string][]byte) node.Options {
	t.Helper()
	o.Data = nodetest.Folder(t)
	write(t, o.Data, files)
	if storetest.OnPostgres() {
		o.Database = storetest.EmptyPostgresURL(t)
		if _, err := node.MoveDatabase(t.Context(), o.Data, o.Database, func(string, int64, int64) {}); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

func start(t *testing.T, o node.Options) tenancy {
	x := tenancy{t: t, clock: &shiftedClock{}, silence: &silence{}}
	x.World = nodetest.Start(t, o.WithClock(x.clock.now))
	return x
}

// startUsing starts a node and, on another data folder, the vaults that it uses.
func startUsing(t *testing.T, o node.Options, vaults string) tenancy {
	x := tenancy{t: t, clock: &shiftedClock{}, silence: &silence{}}
	x.outside = nodetest.StartOutside(t, node.Options{Data: vaults}.WithOutage(x.disconnects))
	x.World = nodetest.StartUsing(t, o.WithClock(x.clock.now), x.outside)
	return x
}

// stage makes the tenancy and returns the files of its data folder and of that
// of its vaults.
func stage(t *testing.T, x tenancy) (files, vaults map[string][]byte) {
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
	x.waitForRolls()
	x.Node.Upkeep.Wait()
	x.Stop()
	if x.outside != nil {
		x.outside.Stop()
		vaults = filesIn(t, x.outside.Data)
	}
	return filesIn(t, x.Data), vaults
}

func filesIn(t *testing.T, folder string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(folder, path)
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
	x.Script(fmt.Sprintf("Set-AzKeyVaultAccessPolicy -VaultName %s -PermissionsToKeys %s -ServicePrincipalName %s", vault, permissions, x.Principal(k.service)))
}

// revoke removes the permissions on both keys of a kind's policy and clears the cache of
// policy keys.
func (x tenancy) revoke(k kind) {
	x.t.Helper()
	x.Revoke(k.service, k.vaults[:]...)
	x.clearKeyCache()
}

// restore restores the permissions.
func (x tenancy) restore(k kind) {
	x.t.Helper()
	for _, vault := range k.vaults {
		x.grant(k, vault, "wrapKey,unwrapKey,get")
	}
	x.clearKeyCache()
}

// useBothKeys has both keys of a kind's policy serve once, which is the only way to end a
// refusal.
func (x tenancy) useBothKeys(k kind) {
	x.t.Helper()
	tenant := x.Node.Tenant.ID
	current := ask(x.t, x.Node.DB, func(tx *store.Tx) (int64, error) {
		p, err := x.Node.Policies.Find(x.t.Context(), tx, tenant, k.policy)
		return p.Current.ID, err
	})
	for _, probe := range x.Node.Policies.Probe(x.t.Context(), tenant, current) {
		if probe.Err != nil {
			x.t.Fatalf("%s: %s: %v", k.policy, probe.Root, probe.Err)
		}
	}
}

// clearKeyCache clears the cache of policy keys, so that the vaults are called again.
func (x tenancy) clearKeyCache() { x.Node.Policies.Close() }

// newKey makes a version of a key.
func (x tenancy) newKey(vault, key string) (version string) {
	x.t.Helper()
	return x.scriptValue(fmt.Sprintf("(Add-AzKeyVaultKey -VaultName %s -Name %s -Destination HSM -KeyOps wrapKey,unwrapKey).Version", vault, key))
}

// scriptValue runs lines that print a single value.
func (x tenancy) scriptValue(lines ...string) string {
	x.t.Helper()
	return strings.TrimSpace(x.Script(lines...))
}

func (x tenancy) uri(vault, key string) string {
	return x.VaultURL(vault) + "/keys/" + key
}
