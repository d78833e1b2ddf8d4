package service_test

import (
	"errors"
	"io"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/store/storetest"
)

// died is the panic value of a simulated crash at a fault point.
type died struct{ point string }

// dieAt runs an act that crashes at the nth fault point it reaches; point is empty if it
// reaches fewer.
func dieAt(n int, act func()) (point string) {
	fault.Set(func(name string) {
		if n--; n == 0 {
			panic(died{name})
		}
	})
	defer fault.Set(nil)
	defer func() {
		if r := recover(); r != nil {
			d, ok := r.(died)
			if !ok {
				panic(r)
			}
			point = d.point
		}
	}()
	act()
	return ""
}

// reopen simulates the next process on the same database and blobs, with nothing in
// memory. It deletes the unreferenced blobs of an upload that crashed.
func (m *model) reopen() {
	m.Helper()
	m.Policies.Close()
	p := *m.World
	p.Policies = p.Node()
	m.testService = newTestServiceOver(&p, m.blobs)
	named := m.names(`SELECT id FROM object WHERE tenant = ?1 UNION SELECT id FROM blob WHERE tenant = ?1 AND object = 0
		UNION SELECT blob FROM dropped WHERE tenant = ?1 AND object = 0`)
	for name := range m.stored() {
		if !named[name] {
			m.Must(m.blobs.Delete(m.Ctx, name))
		}
	}
	m.QueueMaintenance()
}

// unsure is an act whose caller may not learn whether it succeeded.
type unsure struct {
	act      func() error
	happened func() bool // reads whether it was done; nil: it may as well be done again
	done     func()
}

// drawInterruptible draws such an act.
func (m *model) drawInterruptible(r *rapid.T) unsure {
	switch rapid.SampledFrom([]string{"put", "state", "assign", "backup", "expire", "refresh"}).Draw(r, "act") {
	case "put":
		c := anyOf(r, m.kind("site", "workload"))
		path, text := m.form(anyPath.Draw(r, "path"), c, m.next("content %d"))
		before := m.newestItem()
		return unsure{func() error { return m.put(c, path, text) }, func() bool { return m.newestItem() > before }, func() { c.put(path, text) }}
	case "state":
		c := anyOf(r, m.kind("mailbox"))
		state := rapid.SampledFrom([]api.MailboxState{api.Active, api.Inactive}).Draw(r, "state")
		return unsure{func() error { return e(m.SetMailboxState(m.ctx, newState(c.name, state))) }, nil, func() {
			c.arrived = state == api.Active && c.state != api.Active
			c.state = state
		}}
	case "assign":
		c, own := anyOf(r, m.kind("mailbox")), m.draw(r, true, api.MailboxPolicy).named()
		return unsure{func() error { return e(m.AssignMailbox(m.ctx, assign(c.name, own))) }, nil, func() { c.own, c.arrived = own, true }}
	case "backup":
		c := anyOf(r, m.kind("mailbox", "site"))
		before := len(m.testService.backups())
		return unsure{func() error { return e(m.CreateBackup(m.ctx, newBackup(c.kind, c.name))) }, func() bool { return len(m.testService.backups()) > before }, func() {
			all := m.testService.backups()
			m.backups = append(m.backups, c.copied("backup", all[len(all)-1].ID))
		}}
	case "expire":
		b := anyOf(r, m.backups)
		is := func(listed api.Backup) bool { return listed.ID == b.id }
		return unsure{func() error { return e(m.ExpireBackup(m.ctx, api.BackupInput{Backup: b.id})) }, func() bool { return !slices.ContainsFunc(m.testService.backups(), is) }, func() {
			m.backups = slices.DeleteFunc(m.backups, func(c *modelContainer) bool { return c == b })
		}}
	default:
		p := m.draw(r, false, api.MailboxPolicy, api.MultiWorkloadPolicy)
		m.newVersions(p, "A-")
		return unsure{func() error { return e(m.RefreshPolicy(m.ctx, refresh(p.name, ""))) }, func() bool { return m.shown(p.id).Generation > p.gen },
			func() { m.recordRenewal(p, api.DepthPolicy, false) }}
	}
}

func (m *model) newestItem() int64 {
	return m.Number(`SELECT COALESCE(MAX(id), 0) FROM item WHERE tenant = ?1`, m.Tenant)
}

// crashDuringAct draws an act that crashes. It has succeeded if its commit came before the crash.
func (m *model) crashDuringAct(r *rapid.T) {
	n := rapid.IntRange(1, 4).Draw(r, "point")
	u := m.drawInterruptible(r)
	var err error
	point := dieAt(n, func() { err = u.act() })
	m.reopen()
	switch {
	case point == "" && err == nil, strings.HasSuffix(point, ".after-commit"):
		u.done()
	case point == "":
		if !m.explainedByVaults(err) {
			m.Must(err)
		}
	}
}

// loseAnswer draws an act of which one commit loses its response: the act may have succeeded,
// and is repeated otherwise.
func (m *model) loseAnswer(r *rapid.T) {
	n := rapid.IntRange(1, 4).Draw(r, "commit")
	u, calm := m.drawInterruptible(r), m.ctx
	ctx, lost := storetest.LoseAt(calm, n)
	m.ctx = ctx
	err := u.act()
	m.ctx = calm
	if lost() && fail.Is(err, api.Unavailable) {
		m.QueueMaintenance()
		if u.happened != nil && u.happened() {
			err = nil
		} else {
			err = u.act()
		}
	}
	if err == nil {
		u.done()
	} else if !m.explainedByVaults(err) {
		m.Must(err)
	}
}

// explainedByVaults reports whether the state of the vaults explains a failure.
func (m *model) explainedByVaults(err error) bool {
	switch fail.CodeOf(err) {
	case api.RollInProgress, api.Gone:
		return true
	case api.VaultDenied, api.VaultUnavailable, api.KeyUnusable:
		return m.vaultsMayFail()
	}
	return false
}

// truncateTransfer starts a write whose transfer is cut off; nothing may change.
func (m *model) truncateTransfer(r *rapid.T) {
	c := anyOf(r, m.kind("site", "workload"))
	broken := errors.New("the line is dead")
	err := m.putFrom(c, "a", io.MultiReader(strings.NewReader(strings.Repeat("y", 3000)), errReader{broken}))
	if m.expectedCode(c.at) == "" && !errors.Is(err, broken) {
		m.Fatalf("an upload that broke off: %v", err)
	}
	c.follows = true
}

type errReader struct{ error }

func (e errReader) Read([]byte) (int, error) { return 0, e.error }

// purge runs the purge of a policy to its end, in up to two processes.
func (m *model) purge(r *rapid.T) {
	if rapid.IntRange(0, 2).Draw(r, "really") > 0 {
		r.Skip("it is for good")
	}
	p := m.draw(r, false, api.MailboxPolicy, api.MultiWorkloadPolicy, api.SitePolicy)
	m.repairAll()
	for _, vault := range []string{"A-", "B-"} {
		m.Vaults.Fail(vault+p.name, policytest.Denied())
		m.failing[vault+p.name] = api.VaultDenied
	}
	m.probe()
	err := e(m.RequestPurge(m.ctx, purgeOf(p.name)))
	if fail.Is(err, api.RollInProgress) {
		return
	}
	m.Must(err)
	for range 2 {
		m.Must(e(m.ApprovePurge(m.approver(m.next("approver %d")), policyNamed(p.id))))
	}
	if n := rapid.IntRange(0, 6).Draw(r, "point"); n > 0 {
		dieAt(n, func() { m.Must(m.carryOut()) })
		m.reopen()
	}
	losing, lost := storetest.LoseAt(m.Ctx, rapid.IntRange(1, 6).Draw(r, "commit"))
	if err := m.carryOutIn(losing); !lost() || !fail.Is(err, api.Unavailable) {
		m.Must(err)
	}
	m.Must(m.carryOut())
	p.purged = true
	delete(m.policies, p.name)
	if m.assigned == p.name {
		m.assigned = ""
	}
}
