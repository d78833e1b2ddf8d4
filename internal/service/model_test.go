package service_test

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"keyroll/api"
	"keyroll/internal/blob"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/longtest"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// The model's acts are durable transactions, so few checks run by default; use
// -rapid.checks for more.
func init() {
	flag.Set("rapid.checks", strconv.Itoa(longtest.Of(2, 40)))
	flag.Set("rapid.steps", "50")
}

// model is the expected state of a tenant, derived from its requests and the rules,
// together with its real service.
type model struct {
	testService
	all       []*modelContainer
	backups   []*modelContainer
	policies  map[string]*modelPolicy // those that were neither left nor purged, by name
	left      []*modelPolicy
	byID      map[string]*modelPolicy // every one, by its GUID
	revisions map[string]location     // by GUID
	pairs     map[location][2]envelope.KeyVersion
	failing   map[string]api.Code // vaults
	refused   map[refusal]bool    // whose last definitive answer was a refusal
	disabled  map[envelope.KeyVersion]bool
	rolled    map[int64]*modelRoll  // every roll, by its id
	worked    map[string]*modelRoll // what was worked on in this act, by the GUID of its policy
	assigned  string                // name of the policy that covers the tenant
	made      int
	acts      int
	tidied    bool // the upkeep worked in this act
}

type modelPolicy struct {
	name, id string
	kind     api.PolicyKind
	gen      uint32
	newer    bool // a key has a version that it does not use
	sweeps   bool // its roll moves inactive mailboxes and backups, too
	depth    api.Depth
	before   keyring // what was under it when its roll was asked to go deeper
	purged   bool
}

// location is the policy key that a container's key is under.
type location struct {
	policy string // GUID
	gen    uint32
}

// refusal names a customer key version as a policy uses it.
type refusal struct {
	policy string // GUID
	kv     envelope.KeyVersion
}

// modelContainer is a mailbox, a site, a workload store or a backup.
type modelContainer struct {
	kind, name, own string
	id              string // of a backup
	state           api.MailboxState
	items           []modelItem
	at              location
	arrived         bool // this act brings it to its policy's current policy key
	follows         bool // it was accessed, and the upkeep after that may bring it there
}

type modelItem struct{ path, text string }

// TestAnySequenceOfOperationsMatchesTheModel has a tenant create, assign, change
// state, write, read, delete, back up, restore, refresh, roll, leave, break off,
// crash, resume and purge in any order, while its vaults fail and come back.
// After each act it compares with the model: accessible content is read byte for byte,
// content that is inaccessible by policy is refused with its code, the ledger counts
// exactly, nothing is damaged, and no key has moved without a reason. When all rolls
// have ended, every key is under the right policy key, no policy that was left needs a
// key, and the blob store has exactly the blobs that rows reference.
//
// make model is the long form. A failure prints what reproduces it; docs/testing.md
// says which faults were planted, and how soon they were found.
func TestAnySequenceOfOperationsMatchesTheModel(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		p := policytest.New(t, db)
		blobs, err := blob.Open(p.Ctx, "file://"+t.TempDir())
		p.Must(err)
		rapid.Check(t, func(r *rapid.T) {
			m := &model{testService: newTestServiceOver(p.Neighbour().On(checked{t, r}), blobs), policies: map[string]*modelPolicy{}, byID: map[string]*modelPolicy{},
				revisions: map[string]location{}, pairs: map[location][2]envelope.KeyVersion{}, failing: map[string]api.Code{}, refused: map[refusal]bool{}, disabled: map[envelope.KeyVersion]bool{},
				rolled: map[int64]*modelRoll{}, worked: map[string]*modelRoll{}}
			defer m.repairAll()
			m.stage()
			r.Repeat(map[string]func(*rapid.T){
				"policy": func(r *rapid.T) {
					m.policy(rapid.SampledFrom([]api.PolicyKind{api.MailboxPolicy, api.MultiWorkloadPolicy}).Draw(r, "kind"))
				},
				"box": m.box, "site": m.makeSite, "write": m.write, "write again": m.write, "cut": m.truncateTransfer, "read": m.read,
				"state": m.state, "state again": m.state, "assign": m.assign, "assignTenant": m.assignTenant,
				"refresh": m.refresh, "refresh again": m.refresh, "replace": m.replace, "register": m.register, "update": m.update,
				"leave": m.leave, "backup": m.makeBackup, "restore": m.restore, "expire": m.expireBackup,
				"fail": m.failVaults, "heal": m.repairOne, "heal again": m.repairOne,
				"work": m.work, "work again": m.work, "break off": m.interruptRoll, "break off deep": m.interruptDeepRoll, "break off deep again": m.interruptDeepRoll, "pause": m.pause, "cancel": m.cancel, "die": m.crashDuringAct, "lose": m.loseAnswer, "purge": m.purge,
				"tidy": func(*rapid.T) { m.tidyUp() }, "restart": func(*rapid.T) { m.reopen() }, "": m.check,
			})
			m.finishAndReadAll(r)
		})
	})
}

// stage makes the objects of acts, so that no act is wasted because they are missing.
func (m *model) stage() {
	m.policy(api.MailboxPolicy)
	m.policy(api.MultiWorkloadPolicy)
	m.newBox("p1")
	m.newBox("")
	m.makeSite(nil)
	for _, c := range m.all {
		path, text := m.form("a", c, m.next("content %d"))
		m.Must(m.put(c, path, text))
		c.put(path, text)
	}
}

// checked is a test whose failures belong to a sequence, which rapid then shrinks.
type checked struct {
	testing.TB
	r *rapid.T
}

func (c checked) Helper()                   { c.r.Helper() }
func (c checked) Error(args ...any)         { c.r.Helper(); c.r.Error(args...) }
func (c checked) Errorf(f string, a ...any) { c.r.Helper(); c.r.Errorf(f, a...) }
func (c checked) Fatal(args ...any)         { c.r.Helper(); c.r.Fatal(args...) }
func (c checked) Fatalf(f string, a ...any) { c.r.Helper(); c.r.Fatalf(f, a...) }
func (c checked) FailNow()                  { c.r.FailNow() }
func (c checked) Fail()                     { c.r.Fail() }
func (c checked) Failed() bool              { return c.r.Failed() }

func (m *model) next(form string) string {
	m.made++
	return fmt.Sprintf(form, m.made)
}

// wasAllowed runs an act that a running roll or a failing vault may forbid; done reports whether
// it succeeded. A refused act has changed nothing.
func (m *model) wasAllowed(err error) (done bool) {
	m.Helper()
	switch fail.CodeOf(err) {
	case api.VaultDenied, api.VaultUnavailable, api.KeyUnusable:
		if m.vaultsMayFail() {
			return false
		}
	case api.RollInProgress:
		if len(m.rolls(api.RollRunning, api.RollPaused)) > 0 {
			return false
		}
	}
	m.Must(err)
	return true
}

// vaultsMayFail reports whether any vault may refuse or not respond.
func (m *model) vaultsMayFail() bool { return len(m.failing)+len(m.disabled) > 0 }

// recordRevision records the current revision of a policy.
func (m *model) recordRevision(p *modelPolicy) {
	m.Helper()
	now := m.shown(p.id)
	m.expect(now.Generation, p.gen, "generation of "+p.name)
	at := location{p.id, p.gen}
	m.revisions[now.Revision] = at
	m.pairs[at] = [2]envelope.KeyVersion{{Vault: now.Primary.Vault, Key: now.Primary.Key, Version: now.Primary.Version},
		{Vault: now.Secondary.Vault, Key: now.Secondary.Key, Version: now.Secondary.Version}}
}

func (m *model) add(name string, kind api.PolicyKind) {
	p := &modelPolicy{name: name, id: m.shown(name).ID, kind: kind, gen: 1}
	m.policies[name], m.byID[p.id] = p, p
	m.recordRevision(p)
}

func (m *model) policy(kind api.PolicyKind) {
	name := m.next("p%d")
	m.namedPolicy(kind, name)
	m.add(name, kind)
}

// draw draws a policy of a kind, or nil if none is allowed.
func (m *model) draw(r *rapid.T, none bool, kinds ...api.PolicyKind) *modelPolicy {
	var list []*modelPolicy
	if none {
		list = append(list, nil)
	}
	for _, name := range slices.Sorted(maps.Keys(m.policies)) {
		if slices.Contains(kinds, m.policies[name].kind) {
			list = append(list, m.policies[name])
		}
	}
	return anyOf(r, list)
}

// anyOf draws one of the model's objects, and skips the act if there is none.
func anyOf[T any](r *rapid.T, all []T) T {
	if len(all) == 0 {
		r.Skip("there is none")
	}
	return all[rapid.IntRange(0, len(all)-1).Draw(r, "which")]
}

func (p *modelPolicy) named() string {
	if p == nil {
		return ""
	}
	return p.name
}

func (m *model) kind(kinds ...string) (list []*modelContainer) {
	for _, c := range m.all {
		if slices.Contains(kinds, c.kind) {
			list = append(list, c)
		}
	}
	return list
}
