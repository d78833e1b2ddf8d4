package service_test

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/audit"
	"keyroll/internal/blob"
	"keyroll/internal/content/contenttest"
	"keyroll/internal/fail"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/purge"
	"keyroll/internal/roll"
	"keyroll/internal/rootkey"
	"keyroll/internal/seal"
	"keyroll/internal/service"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
	"keyroll/internal/upkeep"
	"keyroll/internal/verify"
)

// testService is the real service of one tenant with fake vaults.
type testService struct {
	*policytest.World
	*service.Service
	parts service.Config // that the service was made with
	clock *testClock
	admin access.Principal
	ctx   context.Context // of the admin
	blobs blob.Store
}

// testClock is the clock of a service: the real time, until it is set.
type testClock struct{ at atomic.Pointer[time.Time] }

func (c *testClock) set(at time.Time) { c.at.Store(&at) }

func (c *testClock) now() time.Time {
	if at := c.at.Load(); at != nil {
		return *at
	}
	return time.Now()
}

func each(t *testing.T, test func(w testService)) {
	t.Helper()
	storetest.Each(t, func(t *testing.T, db *store.DB) { test(newTestService(policytest.New(t, db))) })
}

func newTestService(p *policytest.World) testService {
	p.Helper()
	return newTestServiceOver(p, contenttest.NewBlobs(p))
}

// newTestServiceOver is newTestService with existing blobs.
func newTestServiceOver(p *policytest.World, blobs blob.Store) testService {
	p.Helper()
	var s *service.Service
	f := contenttest.Open(p, blobs, time.Now).With(func(c *roll.Config) { c.Settled = func(tenant, policy int64) { s.Retire(tenant, policy) } })
	logger := slog.New(slog.DiscardHandler)
	sealer, err := seal.Open(p.Ctx, "file://"+filepath.Join(filepath.Dir(p.Folder), "seal"))
	p.Must(err)
	directory, err := access.Open(p.Ctx, access.Config{DB: p.DB, Seal: sealer, VaultDomain: "vault.localhost", Now: time.Now, Logger: logger})
	p.Must(err)
	p.InTx(func(tx *store.Tx) error {
		err := directory.FinishTenant(p.Ctx, tx, p.Tenant)
		if fail.Is(err, api.AlreadyExists) { // by the service before this one
			return nil
		}
		return err
	})
	purger := purge.New(purge.Config{DB: p.DB, Policies: p.Policies, Containers: f.Containers.Containers, Audit: audit.New(f.Containers.Containers, time.Now), KeysInFiles: true, Now: time.Now, Logger: logger})
	names := rootkey.New(rootkey.Config{VaultDomain: "vault.localhost", Port: "443"})
	clock := &testClock{}
	parts := service.Config{DB: p.DB, Access: directory, Policies: p.Policies, Purger: purger, Containers: f.Containers.Containers, Items: f.Contents.Items, Contents: f.Contents.Contents, Backups: f.Contents.Backups, Collector: f.Contents.Collector, Compactor: f.Contents.Compactor, Renewer: f.Contents.Renewer, Roller: f.Roller,
		Verifier: verify.New(p.DB, p.Policies, f.Containers.Containers, f.Contents.Items, f.Contents.Contents), Audit: audit.New(f.Containers.Containers, time.Now), Upkeep: upkeep.New(logger),
		Keys: names, PageSlots: contenttest.Slots, Now: clock.now, Logger: logger,
		TenantGUID: func(ctx context.Context, tenant int64) (guid uuid.UUID, err error) {
			return guid, p.DB.ViewOnce(ctx, func(tx *store.Tx) error {
				t, err := directory.Tenant(ctx, tx, tenant)
				guid = t.GUID
				return err
			})
		}}
	s = service.New(parts)
	w := testService{World: p, Service: s, parts: parts, clock: clock, blobs: blobs, admin: access.Principal{ID: uuid.New(), Tenant: p.Tenant, Name: "alice the admin", Roles: []api.Role{api.Global, api.Operator, api.Approver, api.Enrolling}, Kind: access.ByEnrolment, Created: time.UnixMilli(1)}}
	w.ctx = w.as(w.admin)
	return w
}

// as returns the context of a request of a principal.
func (w testService) as(p access.Principal) context.Context {
	return audit.WithOrigin(access.WithPrincipal(w.Ctx, p), audit.Origin{Request: "request 17"})
}

// entry is one line of the audit log, without the uses of root keys.
type entry struct {
	id                                             int64
	principal, operation, outcome, detail, request string
	actor, target                                  []byte
}

func (e entry) String() string { return e.operation + " " + e.outcome }

// entries returns the entries of operations that are not in seen, and adds them to seen.
func (w testService) entries(seen map[int64]bool) (list []entry) {
	w.Helper()
	w.View(func(tx *store.Tx) error {
		rows, err := tx.Query(w.Ctx, `SELECT id, principal, operation, outcome, detail, request, actor, target FROM audit_entry WHERE tenant = ?1 ORDER BY id`, w.Tenant)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var e entry
			if err := rows.Scan(&e.id, &e.principal, &e.operation, &e.outcome, &e.detail, &e.request, &e.actor, &e.target); err != nil {
				return err
			}
			act, _, _ := strings.Cut(e.detail, " policy key ")
			rootKey := slices.Contains([]string{"wrap", "unwrap", "test wrap for", "test unwrap for"}, act)
			health := strings.HasPrefix(e.detail, "health of the ")
			if !seen[e.id] && !rootKey && !health {
				list = append(list, e)
			}
			seen[e.id] = true
		}
		return rows.Err()
	})
	return list
}

// singleEntry fails the test unless an operation wrote exactly one entry.
func (w testService) singleEntry(seen map[int64]bool, operation, outcome string) entry {
	w.Helper()
	list := w.entries(seen)
	if len(list) != 1 || list[0].operation != operation || list[0].outcome != outcome {
		w.Errorf("the log has %v, want [%s %s]", list, operation, outcome)
		return entry{}
	}
	if e := list[0]; e.principal != w.admin.ID.String() || e.request != "request 17" {
		w.Errorf("%v is by %s for %q", e, e.principal, e.request)
	}
	return list[0]
}

// opened decrypts a text of an entry.
func (w testService) opened(e entry, sealed []byte) string {
	w.Helper()
	d, err := w.parts.Containers.Directory(w.Ctx, w.Tenant)
	w.Must(err)
	text, err := d.Open(e.id, sealed)
	w.Must(err)
	return text
}

// state returns everything that is stored except the audit log.
func (w testService) state() string {
	w.Helper()
	return w.Dump("policy", "policy_key", "revision", "key_page", "container", "roll", "item", "blob", "tenant", "principal", "geo", "geo_host", "backup", "unfinished", "dropped", "purge", "purge_approval", "approval_request", "approval_decision")
}

// finishRolls runs every running roll to its end, and then the upkeep.
func (w testService) finishRolls() {
	w.Helper()
	var all []roll.Roll
	w.View(func(tx *store.Tx) (err error) {
		all, err = roll.List(w.Ctx, tx, w.Tenant, 0, 1000)
		return err
	})
	for _, ro := range all {
		if ro.State == api.RollRunning {
			waits, err := w.parts.Roller.Work(w.Ctx, ro)
			if err != nil || waits {
				w.Fatalf("the roll waits: %v, %v", waits, err)
			}
		}
	}
	w.tidy()
}

// tidy runs the upkeep, and collects dropped blobs.
func (w testService) tidy() {
	ctx, cancel := context.WithCancel(w.Ctx)
	ended := make(chan struct{})
	go func() { defer close(ended); w.parts.Upkeep.Run(ctx) }()
	w.parts.Upkeep.Wait()
	cancel()
	<-ended
	w.collect(time.Hour)
}

// collect collects dropped blobs, and orphans older than grace; with grace 0 all that exist
// now.
func (w testService) collect(grace time.Duration) {
	_, err := contenttest.Contents{Collector: w.parts.Collector, DB: w.World.DB}.CollectTenant(w.Ctx, w.Tenant, grace, false)
	w.Must(err)
}

const (
	alice = "alice@contoso.com"
	team  = "https://contoso.sharepoint.com/sites/team"
	path  = "plans/secret plan.txt"
	mbox  = "From alice@contoso.com Thu Jan  1 00:00:00 2026\nSubject: hello\n\nbody\n"
)

func mailbox(name string) api.MailboxInput { return api.MailboxInput{Mailbox: name} }
func site(url string) api.SiteInput        { return api.SiteInput{Site: url} }
func file(url, path string) api.FileInput  { return api.FileInput{SiteInput: site(url), Path: path} }

func newMailbox(name, policy string) (in api.CreateMailboxInput) {
	in.Body.Name, in.Body.Policy = name, policy
	return in
}

func newSite(url string) (in api.CreateSiteInput) {
	in.Body.URL = url
	return in
}

func newState(name string, state api.MailboxState) api.SetMailboxStateInput {
	in := api.SetMailboxStateInput{MailboxInput: mailbox(name)}
	in.Body.State = state
	return in
}

func assign(name, policy string) api.AssignMailboxInput {
	in := api.AssignMailboxInput{MailboxInput: mailbox(name)}
	in.Body.Policy = policy
	return in
}

func newPolicy(name string, keys ...string) (in api.CreatePolicyInput) {
	in.Body.Name, in.Body.Keys = name, keys
	return in
}

func refresh(policy string, depth api.Depth) api.RefreshPolicyInput {
	in := api.RefreshPolicyInput{PolicyInput: api.PolicyInput{Policy: policy}}
	in.Body.Depth = depth
	return in
}

func update(policy, keyType string, kv api.KeyVersion) api.UpdatePolicyInput {
	in := api.UpdatePolicyInput{PolicyInput: api.PolicyInput{Policy: policy}}
	in.Body.KeyType, in.Body.Key = keyType, kv
	return in
}

func newTenant(name string) (in api.CreateTenantInput) {
	in.Body.Name = name
	return in
}

func newGeo(name string, hosts ...string) (in api.CreateGeoInput) {
	in.Body.Name, in.Body.Hosts = name, hosts
	return in
}

func register(primary, secondary api.KeyVersion) (in api.RegisterSitesInput) {
	in.Body.Primary, in.Body.Secondary = primary, secondary
	return in
}

// keyURI is a key of the fake vaults without a version.
func keyURI(vault string) string { return "https://" + vault + ".vault.localhost/keys/k" }

// newKey adds a version to the key of a vault.
func (w testService) newKey(vault string) api.KeyVersion {
	kv := w.Vaults.Add(vault, "k")
	return api.KeyVersion{Vault: kv.Vault, Key: kv.Key, Version: kv.Version}
}

// mailPolicy makes a mailbox policy named p.
func (w testService) mailPolicy() {
	w.Helper()
	w.newKey("A-p")
	w.newKey("B-p")
	_, err := w.CreatePolicy(w.ctx, newPolicy("p", keyURI("A-p"), keyURI("B-p")))
	w.Must(err)
}

// sitePolicy registers the site policy and begins its roll.
func (w testService) sitePolicy() {
	w.Helper()
	_, err := w.RegisterSites(w.ctx, register(w.newKey("A-Sites"), w.newKey("B-Sites")))
	w.Must(err)
}

func (w testService) show(name string) api.Mailbox {
	w.Helper()
	m, err := w.ShowMailbox(w.ctx, mailbox(name))
	w.Must(err)
	return m
}

func (w testService) export(name string) string {
	w.Helper()
	var out bytes.Buffer
	w.Must(w.ExportMail(w.ctx, mailbox(name), &out))
	return out.String()
}

// e returns only the error of a call.
func e[T any](_ T, err error) error { return err }

// listAll reads a list page by page.
func listAll[T any](t testing.TB, limit int, part func(in api.PageInput) (api.List[T], error)) (all []T, parts int) {
	t.Helper()
	in := api.PageInput{Limit: limit}
	for {
		list, err := part(in)
		if err != nil {
			t.Fatal(err)
		}
		if len(list.Items) > limit || list.Items == nil {
			t.Fatalf("a part of %d items: %v", len(list.Items), list.Items)
		}
		all, parts = append(all, list.Items...), parts+1
		if list.Next == "" {
			return all, parts
		}
		in.After = list.Next
	}
}

func into(name string) api.ImportMailInput {
	return api.ImportMailInput{MailboxInput: mailbox(name)}
}
