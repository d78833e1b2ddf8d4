package service_test

import (
	"slices"
	"strings"

	"pgregory.net/rapid"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/store"
)

func (m *model) box(r *rapid.T) {
	m.newBox(m.draw(r, true, api.MailboxPolicy).named())
}

func (m *model) newBox(own string) {
	c := &modelContainer{kind: "mailbox", name: m.next("m%d@contoso.com"), own: own, state: api.Active, arrived: true}
	if m.wasAllowed(e(m.CreateMailbox(m.ctx, newMailbox(c.name, c.own)))) {
		m.all = append(m.all, c)
	}
}

func (m *model) makeSite(*rapid.T) {
	c := &modelContainer{kind: "site", name: m.next(team + "%d"), arrived: true}
	if m.wasAllowed(e(m.CreateSite(m.ctx, newSite(c.name)))) {
		m.all = append(m.all, c)
	}
}

// write stores a message, a file or an item, which may create its store.
func (m *model) write(r *rapid.T) {
	text := m.next("content %d ") + strings.Repeat("x", rapid.SampledFrom([]int{0, 1, 5000}).Draw(r, "bytes"))
	if rapid.IntRange(0, 3).Draw(r, "store") == 0 {
		name := rapid.SampledFrom([]string{chats, labels}).Draw(r, "name")
		if !slices.ContainsFunc(m.all, func(c *modelContainer) bool { return c.name == name }) {
			c := &modelContainer{kind: "workload", name: name, arrived: true}
			if m.wasAllowed(e(m.PutWorkloadItem(m.ctx, item(name, "a"), -1, strings.NewReader(text)))) {
				c.put("a", text)
				m.all = append(m.all, c)
			}
			return
		}
	}
	c := anyOf(r, m.all)
	path, text := m.form(anyPath.Draw(r, "path"), c, text)
	m.checkAccess(c, m.put(c, path, text), "write to")
	if m.expectedCode(c.at) == "" {
		c.put(path, text)
	}
}

var anyPath = rapid.SampledFrom([]string{"a", "b"})

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
	c := anyOf(r, m.kind("mailbox"))
	state := rapid.SampledFrom([]api.MailboxState{api.Active, api.Inactive, api.Disconnected, api.Disabled}).Draw(r, "state")
	err := e(m.SetMailboxState(m.ctx, newState(c.name, state)))
	if m.byID[c.at.policy].purged {
		policytest.Refuses(m, err, api.Gone)
	} else if m.wasAllowed(err) {
		c.arrived = state == api.Active && c.state != api.Active
		c.state = state
	}
}

func (m *model) assign(r *rapid.T) {
	c, own := anyOf(r, m.kind("mailbox")), m.draw(r, true, api.MailboxPolicy).named()
	err := e(m.AssignMailbox(m.ctx, assign(c.name, own)))
	if m.byID[c.at.policy].purged {
		policytest.Refuses(m, err, api.Gone)
	} else if m.wasAllowed(err) {
		c.own, c.arrived = own, true
	}
}

func (m *model) assignTenant(r *rapid.T) {
	if p := m.draw(r, false, api.MultiWorkloadPolicy); m.wasAllowed(e(m.AssignPolicy(m.ctx, assignment(p.name)))) {
		if m.assigned != p.name {
			m.recordRoll(p, api.DepthPolicy, false)
		}
		m.assigned = p.name
	}
}

// refresh adopts a newer version or, if there is none, moves what is still under older
// keys.
func (m *model) refresh(r *rapid.T) {
	p := m.draw(r, false, api.MailboxPolicy, api.MultiWorkloadPolicy)
	if rapid.IntRange(0, 3).Draw(r, "newer") > 0 {
		m.newVersions(p, "A-")
	}
	in := refresh(p.name, anyDepth.Draw(r, "depth"))
	in.Body.IncludeInactive = in.Body.Depth != api.DepthRoot && rapid.IntRange(0, 2).Draw(r, "inactive") == 0
	sweeps := in.Body.Depth != api.DepthRoot && (in.Body.IncludeInactive || slices.Contains(m.cancelled(), p))
	grows := p.newer || deep(in.Body.Depth)
	err := e(m.RefreshPolicy(m.ctx, in))
	switch {
	case !grows && !sweeps && !m.vaultsMayFail():
		policytest.Refuses(m, err, api.NoNewVersion)
	case !grows && fail.Is(err, api.NoNewVersion):
	case m.wasAllowed(err) && grows:
		m.recordRenewal(p, in.Body.Depth, in.Body.IncludeInactive)
	case err == nil:
		m.recordRoll(p, in.Body.Depth, in.Body.IncludeInactive)
	}
}

var anyDepth = rapid.SampledFrom([]api.Depth{api.DepthPolicy, api.DepthContainer, api.DepthContent, api.DepthRoot})

// newVersions adds versions to keys of a policy.
func (m *model) newVersions(p *modelPolicy, vaults ...string) {
	for _, vault := range vaults {
		m.newKey(vault + p.name)
	}
	p.newer = true
}

// recordRenewal records that a policy uses its newest key versions.
func (m *model) recordRenewal(p *modelPolicy, depth api.Depth, inactive bool) {
	p.newer = false
	if depth != api.DepthRoot {
		p.gen++
		m.recordRoll(p, depth, inactive)
	}
	m.recordRevision(p)
}

func (m *model) replace(r *rapid.T) {
	p := m.draw(r, false, api.MailboxPolicy, api.MultiWorkloadPolicy)
	m.newVersions(p, "A-", "B-")
	depth := anyDepth.Draw(r, "depth")
	if m.wasAllowed(e(m.ReplacePolicyKeys(m.ctx, replace(p.name, depth, keyURI("A-"+p.name), keyURI("B-"+p.name))))) {
		m.recordRenewal(p, depth, false)
	}
}

func (m *model) register(r *rapid.T) {
	if m.policies["Sites"] != nil {
		r.Skip("it is registered")
	}
	if m.wasAllowed(e(m.RegisterSites(m.ctx, register(m.newKey("A-Sites"), m.newKey("B-Sites"))))) {
		m.add("Sites", api.SitePolicy)
	}
}

func (m *model) update(r *rapid.T) {
	p := m.draw(r, false, api.SitePolicy)
	which := rapid.SampledFrom([]string{"primary", "secondary"}).Draw(r, "key")
	vault := map[string]string{"primary": "A-Sites", "secondary": "B-Sites"}[which]
	in := update("Sites", which, m.newKey(vault))
	in.Body.Depth = anyDepth.Draw(r, "depth")
	if m.wasAllowed(e(m.UpdatePolicy(m.ctx, in))) {
		m.recordRenewal(p, in.Body.Depth, false)
	}
}

func (m *model) leave(r *rapid.T) {
	p := m.draw(r, false, api.MailboxPolicy, api.MultiWorkloadPolicy, api.SitePolicy)
	if m.wasAllowed(e(m.LeavePolicy(m.ctx, leave(p.name)))) {
		m.left = append(m.left, p)
		m.unassignEverywhere(p)
		if to := m.policies[m.assigned]; to != nil && p.kind == api.MailboxPolicy {
			m.recordRoll(to, api.DepthPolicy, false)
		}
	}
}

// unassignEverywhere removes a policy from all containers that have it.
func (m *model) unassignEverywhere(p *modelPolicy) {
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
	c := anyOf(r, m.kind("mailbox", "site"))
	b, err := m.CreateBackup(m.ctx, newBackup(c.kind, c.name))
	if m.byID[c.at.policy].purged {
		policytest.Refuses(m, err, api.Gone)
	} else if m.wasAllowed(err) {
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
	b := anyOf(r, m.backups)
	kind, name, state := "mailbox", m.next("r%d@contoso.com"), api.Active
	if b.state == "site" {
		kind, name, state = "site", m.next(team+"%d"), ""
	}
	err := e(m.RestoreBackup(m.ctx, restore(b.id, name, "")))
	if m.byID[b.at.policy].purged {
		if err == nil {
			m.Error("a backup under a purged policy was restored")
		}
	} else if m.wasAllowed(err) {
		c := b.copied(kind, "")
		c.name, c.state = name, state
		m.all = append(m.all, c)
	}
}

func (m *model) expireBackup(r *rapid.T) {
	b := anyOf(r, m.backups)
	m.Must(e(m.ExpireBackup(m.ctx, api.BackupInput{Backup: b.id})))
	m.backups = slices.DeleteFunc(m.backups, func(c *modelContainer) bool { return c == b })
}

func (m *model) read(r *rapid.T) { m.readAndCompare(anyOf(r, m.all)) }

// tidyUp runs the upkeep, which moves the keys of accessed containers, compacts objects,
// and collects those from which it moved all blobs.
func (m *model) tidyUp() {
	m.tidy()
	_, err := m.parts.Compactor.Run(m.ctx)
	m.Must(err)
	m.collect(0)
	m.tidied = true
}

// failVaults lets one vault or both of a policy fail, or disables the key versions that
// it uses.
func (m *model) failVaults(r *rapid.T) {
	p := m.draw(r, false, api.MailboxPolicy, api.MultiWorkloadPolicy, api.SitePolicy)
	how := rapid.SampledFrom([]string{"away", "denied", "disabled"})
	for _, kv := range m.pairs[location{p.id, p.gen}] {
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
	m.probe()
}

// probe lets the cache expire and calls every customer key, so that its present result is
// recorded.
func (m *model) probe() {
	m.Helper()
	m.Policies.Close()
	var kept []int64
	m.Must(m.DB.ViewOnce(m.ctx, func(tx *store.Tx) (err error) {
		kept, err = tx.IDs(m.ctx, `SELECT policy_key FROM revision WHERE tenant = ?1 AND erased = 0`, m.Tenant)
		return err
	}))
	for _, key := range kept {
		m.Policies.Probe(m.ctx, m.Tenant, key)
	}
	for at, pair := range m.pairs {
		for _, kv := range pair {
			switch {
			case m.failing[kv.Vault] == api.VaultUnavailable:
			case m.failing[kv.Vault] != "" || m.disabled[kv]:
				m.refused[refusal{at.policy, kv}] = true
			default:
				delete(m.refused, refusal{at.policy, kv})
			}
		}
	}
}

func (m *model) repairOne(r *rapid.T) {
	if !m.vaultsMayFail() {
		r.Skip("no vault fails")
	}
	m.repairAll()
}

func (m *model) repairAll() {
	for vault := range m.failing {
		m.Vaults.Fail(vault, nil)
	}
	for kv := range m.disabled {
		m.Vaults.Enable(kv)
	}
	clear(m.failing)
	clear(m.disabled)
	m.probe()
}
