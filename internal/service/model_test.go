package service_test

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"keyroll/api"
	"keyroll/internal/blob"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// The model's acts are transactions made durable; -rapid.checks asks for more.
func init() { flag.Set("rapid.checks", "4") }

// model is what a tenant has asked for, and what the rules make of it, beside
// what its service does.
type model struct {
	world
	all       []*modelContainer
	backups   []*modelContainer
	policies  map[string]*modelPolicy // those that were neither left nor purged, by name
	left      []*modelPolicy
	byID      map[string]*modelPolicy // every one, by its GUID
	revisions map[string]place        // by GUID
	pairs     map[place][2]envelope.KeyVersion
	failing   map[string]api.Code // vaults
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
	newer    bool // a key has a version that it does not stand on
	sweeps   bool // its roll brings the mailboxes over that are not active, too
	purged   bool
}

// place is a policy key: where a container's key stands.
type place struct {
	policy string // GUID
	gen    uint32
}

// modelContainer is a mailbox, a site, a workload store or a backup.
type modelContainer struct {
	kind, name, own string
	id              string // of a backup
	state           api.MailboxState
	items           []modelItem
	at              place
	arrived         bool // this act brings it to its policy's current policy key
	follows         bool // it was accessed, and the upkeep after that may bring it there
}

type modelItem struct{ path, text string }

// TestAnySequenceOfActsKeepsToTheModel has a tenant create, assign, change
// state, write, read, delete, back up, restore, refresh, roll, leave, break off,
// crash, resume and purge in any order, while its vaults fail and come back.
// After each act it compares with the model: what a rule opens reads byte for
// byte, what a rule closes is refused with its code, the ledger counts exactly,
// nothing is damaged, and nothing has moved that nobody asked to move. When all
// rolls have ended, everything stands where it should, no policy that was left
// needs a key, and the blob store holds what rows name and no more.
//
// The long form: go test ./internal/service -run KeepsToTheModel -rapid.checks 500 -rapid.steps 60.
// A failure prints the seed that reproduces it.
func TestAnySequenceOfActsKeepsToTheModel(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		p := policytest.New(t, db)
		blobs, err := blob.Open(p.Ctx, "file://"+t.TempDir())
		p.Must(err)
		rapid.Check(t, func(r *rapid.T) {
			m := &model{world: newWorldOver(p.Neighbour().On(checked{t, r}), blobs), policies: map[string]*modelPolicy{}, byID: map[string]*modelPolicy{},
				revisions: map[string]place{}, pairs: map[place][2]envelope.KeyVersion{}, failing: map[string]api.Code{}, disabled: map[envelope.KeyVersion]bool{},
				rolled: map[int64]*modelRoll{}, worked: map[string]*modelRoll{}}
			defer m.healAll()
			m.stage()
			r.Repeat(map[string]func(*rapid.T){
				"policy": func(r *rapid.T) {
					m.policy(rapid.SampledFrom([]api.PolicyKind{api.MailboxPolicy, api.MultiWorkloadPolicy}).Draw(r, "kind"))
				},
				"box": m.box, "site": m.makeSite, "write": m.write, "write again": m.write, "cut": m.cut, "read": m.read,
				"state": m.state, "state again": m.state, "assign": m.assign, "assignTenant": m.assignTenant,
				"refresh": m.refresh, "refresh again": m.refresh, "replace": m.replace, "register": m.register, "update": m.update,
				"leave": m.leave, "backup": m.makeBackup, "restore": m.restore, "expire": m.expireBackup,
				"fail": m.failVaults, "heal": m.heal, "heal again": m.heal,
				"work": m.work, "work again": m.work, "breakOff": m.breakOff, "pause": m.pause, "cancel": m.cancel, "die": m.die, "purge": m.purge,
				"tidy": func(*rapid.T) { m.tidyUp() }, "restart": func(*rapid.T) { m.reopen() }, "": m.check,
			})
			m.end(r)
		})
	})
}

// stage makes what acts are about, so that none is wasted on its absence.
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

// checked is a test whose failures are a sequence's, which is then made shorter.
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

// may is an act that a roll on its way, or a vault that fails, may forbid; done
// says whether neither did. What is refused has changed nothing.
func (m *model) may(err error) (done bool) {
	m.Helper()
	switch fail.CodeOf(err) {
	case api.VaultDenied, api.VaultUnavailable, api.KeyUnusable:
		if m.troubled() {
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

// troubled says whether any vault may refuse, or not answer.
func (m *model) troubled() bool { return len(m.failing)+len(m.disabled) > 0 }

// learn takes in the revision that a policy now stands on.
func (m *model) learn(p *modelPolicy) {
	m.Helper()
	now := m.shown(p.id)
	m.expect(now.Generation, p.gen, "generation of "+p.name)
	at := place{p.id, p.gen}
	m.revisions[now.Revision] = at
	m.pairs[at] = [2]envelope.KeyVersion{{Vault: now.Primary.Vault, Key: now.Primary.Key, Version: now.Primary.Version},
		{Vault: now.Secondary.Vault, Key: now.Secondary.Key, Version: now.Secondary.Version}}
}

func (m *model) add(name string, kind api.PolicyKind) {
	p := &modelPolicy{name: name, id: m.shown(name).ID, kind: kind, gen: 1}
	m.policies[name], m.byID[p.id] = p, p
	m.learn(p)
}

func (m *model) policy(kind api.PolicyKind) {
	name := m.next("p%d")
	m.namedPolicy(kind, name)
	m.add(name, kind)
}

// draw draws a policy of a kind, or nil where none is allowed too.
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
	return one(r, list)
}

// one draws one of the model's things, and skips the act where there is none.
func one[T any](r *rapid.T, all []T) T {
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

func (m *model) box(r *rapid.T) {
	m.newBox(m.draw(r, true, api.MailboxPolicy).named())
}

func (m *model) newBox(own string) {
	c := &modelContainer{kind: "mailbox", name: m.next("m%d@contoso.com"), own: own, state: api.Active, arrived: true}
	if m.may(e(m.CreateMailbox(m.ctx, newMailbox(c.name, c.own)))) {
		m.all = append(m.all, c)
	}
}

func (m *model) makeSite(*rapid.T) {
	c := &modelContainer{kind: "site", name: m.next(team + "%d"), arrived: true}
	if m.may(e(m.CreateSite(m.ctx, newSite(c.name)))) {
		m.all = append(m.all, c)
	}
}

// write puts a message, a file or an item, which may make its store.
func (m *model) write(r *rapid.T) {
	text := m.next("content %d ") + strings.Repeat("x", rapid.SampledFrom([]int{0, 1, 5000}).Draw(r, "bytes"))
	if rapid.IntRange(0, 3).Draw(r, "store") == 0 {
		name := rapid.SampledFrom([]string{chats, labels}).Draw(r, "name")
		if !slices.ContainsFunc(m.all, func(c *modelContainer) bool { return c.name == name }) {
			c := &modelContainer{kind: "workload", name: name, arrived: true}
			if m.may(e(m.PutWorkloadItem(m.ctx, item(name, "a"), -1, strings.NewReader(text)))) {
				c.put("a", text)
				m.all = append(m.all, c)
			}
			return
		}
	}
	c := one(r, m.all)
	path, text := m.form(anyPath.Draw(r, "path"), c, text)
	m.answers(c, m.put(c, path, text), "write to")
	if m.rule(c.at) == "" {
		c.put(path, text)
	}
}

var anyPath = rapid.SampledFrom([]string{"a", "b", "c"})

// form makes an item of a container's kind.
func (m *model) form(path string, c *modelContainer, text string) (_, _ string) {
	if c.kind == "mailbox" {
		return m.next("%d"), mbox + text + "\n"
	}
	return path, text
}

func (c *modelContainer) put(path, text string) {
	c.items = slices.DeleteFunc(slices.Clone(c.items), func(i modelItem) bool { return i.path == path })
	c.items = append(c.items, modelItem{path, text})
	c.follows = true
}

func (m *model) state(r *rapid.T) {
	c := one(r, m.kind("mailbox"))
	state := rapid.SampledFrom([]api.MailboxState{api.Active, api.Inactive, api.Disconnected, api.Disabled}).Draw(r, "state")
	err := e(m.SetMailboxState(m.ctx, newState(c.name, state)))
	if m.byID[c.at.policy].purged {
		policytest.Refuses(m, err, api.Gone)
	} else if m.may(err) {
		c.arrived = state == api.Active && c.state != api.Active
		c.state = state
	}
}

func (m *model) assign(r *rapid.T) {
	c, own := one(r, m.kind("mailbox")), m.draw(r, true, api.MailboxPolicy).named()
	err := e(m.AssignMailbox(m.ctx, assign(c.name, own)))
	if m.byID[c.at.policy].purged {
		policytest.Refuses(m, err, api.Gone)
	} else if m.may(err) {
		c.own, c.arrived = own, true
	}
}

func (m *model) assignTenant(r *rapid.T) {
	if p := m.draw(r, false, api.MultiWorkloadPolicy); m.may(e(m.AssignPolicy(m.ctx, assignment(p.name)))) {
		m.assigned = p.name
	}
}

// refresh takes up a newer version, or where there is none brings over what is
// left under older keys.
func (m *model) refresh(r *rapid.T) {
	p := m.draw(r, false, api.MailboxPolicy, api.MultiWorkloadPolicy)
	if rapid.IntRange(0, 3).Draw(r, "newer") > 0 {
		m.newVersions(p, "A-")
	}
	in := refresh(p.name, rapid.SampledFrom([]api.Depth{api.DepthPolicy, api.DepthPolicy, api.DepthRoot}).Draw(r, "depth"))
	in.Body.IncludeInactive = in.Body.Depth != api.DepthRoot && rapid.IntRange(0, 2).Draw(r, "inactive") == 0
	err := e(m.RefreshPolicy(m.ctx, in))
	switch {
	case !p.newer && !in.Body.IncludeInactive && !m.troubled():
		policytest.Refuses(m, err, api.NoNewVersion)
	case !p.newer && fail.Is(err, api.NoNewVersion):
	case m.may(err) && p.newer:
		m.renewed(p, in.Body.Depth, in.Body.IncludeInactive)
	case err == nil: // it sweeps
		m.sweeps(p, true)
	}
}

// newVersions adds versions to keys of a policy.
func (m *model) newVersions(p *modelPolicy, vaults ...string) {
	for _, vault := range vaults {
		m.newKey(vault + p.name)
	}
	p.newer = true
}

// renewed takes in that a policy stands on its newest key versions.
func (m *model) renewed(p *modelPolicy, depth api.Depth, inactive bool) {
	p.newer = false
	if depth != api.DepthRoot {
		p.gen++
		m.sweeps(p, inactive)
	}
	m.learn(p)
}

// sweeps takes in what the new roll of a policy brings over. What an unfinished
// one was to bring, the one after it does.
func (m *model) sweeps(p *modelPolicy, inactive bool) {
	unfinished := false
	for _, ro := range m.rolled {
		unfinished = unfinished || ro.policy == p && ro.unfinished
	}
	p.sweeps = inactive || p.sweeps && unfinished
}

func (m *model) replace(r *rapid.T) {
	p := m.draw(r, false, api.MailboxPolicy, api.MultiWorkloadPolicy)
	m.newVersions(p, "A-", "B-")
	if m.may(e(m.ReplacePolicyKeys(m.ctx, replace(p.name, "", keyURI("A-"+p.name), keyURI("B-"+p.name))))) {
		m.renewed(p, api.DepthPolicy, false)
	}
}

func (m *model) register(r *rapid.T) {
	if m.policies["Sites"] != nil {
		r.Skip("it is registered")
	}
	if m.may(e(m.RegisterSites(m.ctx, register(m.newKey("A-Sites"), m.newKey("B-Sites"))))) {
		m.add("Sites", api.SitePolicy)
	}
}

func (m *model) update(r *rapid.T) {
	p := m.draw(r, false, api.SitePolicy)
	which := rapid.SampledFrom([]string{"primary", "secondary"}).Draw(r, "key")
	vault := map[string]string{"primary": "A-Sites", "secondary": "B-Sites"}[which]
	if m.may(e(m.UpdatePolicy(m.ctx, update("Sites", which, m.newKey(vault))))) {
		m.renewed(p, api.DepthPolicy, false)
	}
}

func (m *model) leave(r *rapid.T) {
	p := m.draw(r, false, api.MailboxPolicy, api.MultiWorkloadPolicy, api.SitePolicy)
	if m.may(e(m.LeavePolicy(m.ctx, named(p.name)))) {
		m.left = append(m.left, p)
		m.forsake(p)
	}
}

// forsake takes a policy from all that have it.
func (m *model) forsake(p *modelPolicy) {
	delete(m.policies, p.name)
	if m.assigned == p.name {
		m.assigned = ""
	}
	for _, c := range append(slices.Clone(m.all), m.backups...) {
		if c.own == p.name {
			c.own = ""
		}
	}
}

func (m *model) makeBackup(r *rapid.T) {
	c := one(r, m.kind("mailbox", "site"))
	b, err := m.CreateBackup(m.ctx, newBackup(c.kind, c.name))
	if m.byID[c.at.policy].purged {
		policytest.Refuses(m, err, api.Gone)
	} else if m.may(err) {
		m.backups = append(m.backups, c.copied("backup", b.ID))
	}
}

func (c *modelContainer) copied(kind, id string) *modelContainer {
	made := *c
	made.kind, made.id, made.items, made.arrived, made.follows = kind, id, slices.Clone(c.items), true, false
	if kind == "backup" && c.kind == "site" {
		made.state = "site" // what it is a backup of
	}
	return &made
}

func (m *model) restore(r *rapid.T) {
	b := one(r, m.backups)
	kind, name, state := "mailbox", m.next("r%d@contoso.com"), api.Active
	if b.state == "site" {
		kind, name, state = "site", m.next(team+"%d"), ""
	}
	err := e(m.RestoreBackup(m.ctx, restore(b.id, name, "")))
	if m.byID[b.at.policy].purged {
		if err == nil {
			m.Error("a backup under a purged policy was restored")
		}
	} else if m.may(err) {
		c := b.copied(kind, "")
		c.name, c.state = name, state
		m.all = append(m.all, c)
	}
}

func (m *model) expireBackup(r *rapid.T) {
	b := one(r, m.backups)
	m.Must(e(m.ExpireBackup(m.ctx, api.BackupInput{Backup: b.id})))
	m.backups = slices.DeleteFunc(m.backups, func(c *modelContainer) bool { return c == b })
}

func (m *model) read(r *rapid.T) { m.reads(one(r, m.all)) }

// tidyUp lets the upkeep work, which brings what was accessed to where it belongs.
func (m *model) tidyUp() {
	m.tidy()
	m.tidied = true
}

// failVaults lets one vault or both of a policy fail, or disables the key
// versions that it stands on.
func (m *model) failVaults(r *rapid.T) {
	p := m.draw(r, false, api.MailboxPolicy, api.MultiWorkloadPolicy, api.SitePolicy)
	how := rapid.SampledFrom([]string{"away", "denied", "disabled"})
	for _, kv := range m.pairs[place{p.id, p.gen}] {
		if !rapid.Bool().Draw(r, kv.Vault) {
			continue
		}
		switch how.Draw(r, "how") {
		case "away":
			m.Vaults.Fail(kv.Vault, policytest.Away())
			m.failing[kv.Vault] = api.VaultUnavailable
		case "denied":
			m.Vaults.Fail(kv.Vault, policytest.Denied())
			m.failing[kv.Vault] = api.VaultDenied
		case "disabled":
			m.Vaults.Disable(kv)
			m.disabled[kv] = true
		}
	}
	m.Policies.Close() // as the time of the cache would
}

func (m *model) heal(r *rapid.T) {
	if !m.troubled() {
		r.Skip("no vault fails")
	}
	m.healAll()
}

func (m *model) healAll() {
	for vault := range m.failing {
		m.Vaults.Fail(vault, nil)
	}
	for kv := range m.disabled {
		m.Vaults.Enable(kv)
	}
	clear(m.failing)
	clear(m.disabled)
}
