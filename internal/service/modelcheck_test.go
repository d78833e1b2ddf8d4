package service_test

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
)

// expectedCode returns the code with which a user's access to a container under a policy key must
// be refused, or empty if it must succeed.
func (m *model) expectedCode(at location) api.Code {
	p := m.byID[at.policy]
	switch {
	case p.purged:
		return api.Gone
	case p.kind == api.ServiceManagedPolicy:
		return ""
	}
	denied, away, refused := 0, 0, false
	for _, kv := range m.pairs[at] {
		refused = refused || m.refused[refusal{at.policy, kv}]
		switch {
		case m.failing[kv.Vault] == api.VaultUnavailable:
			away++
		case m.failing[kv.Vault] != "" || m.disabled[kv]:
			denied++
		}
	}
	switch {
	case denied+away < 2:
		return ""
	case denied > 0 || refused:
		return api.VaultDenied // one deliberate act counts, also one before an outage
	case p.kind == api.SitePolicy:
		return api.VaultUnavailable
	}
	return "" // the availability key serves in an outage
}

// checkAccess fails the test unless an access was refused or allowed as expected.
func (m *model) checkAccess(c *modelContainer, err error, what string) {
	m.Helper()
	if code := m.expectedCode(c.at); code == "" && err != nil {
		m.Fatalf("%s %s %s: %v", what, c.kind, c.name, err)
	} else if code != "" && !fail.Is(err, code) {
		m.Fatalf("%s %s %s: %v, want %s", what, c.kind, c.name, err, code)
	}
}

func (m *model) put(c *modelContainer, path, text string) error {
	return m.putFrom(c, path, strings.NewReader(text))
}

func (m *model) putFrom(c *modelContainer, path string, content io.Reader) error {
	switch c.kind {
	case "mailbox":
		return e(m.ImportMail(m.ctx, into(c.name), -1, content))
	case "site":
		return e(m.PutFile(m.ctx, file(c.name, path), -1, content))
	}
	return e(m.PutWorkloadItem(m.ctx, item(c.name, path), -1, content))
}

// readAndCompare reads all of a container, which counts as an access, and compares it byte for
// byte.
func (m *model) readAndCompare(c *modelContainer) {
	m.Helper()
	c.follows = true
	if c.kind == "mailbox" {
		var out bytes.Buffer
		err := m.ExportMail(m.ctx, mailbox(c.name), &out)
		if len(c.items) == 0 && m.expectedCode(c.at) != api.Gone {
			return // there is nothing to open
		}
		m.checkAccess(c, err, "export")
		var texts []string
		for _, i := range c.items {
			texts = append(texts, i.text)
		}
		if want := strings.Join(texts, "\n"); err == nil && out.String() != want { // an empty line between messages
			m.Fatalf("%s holds %q, want %q", c.name, out.String(), want)
		}
		return
	}
	for _, i := range c.items {
		var out bytes.Buffer
		var err error
		if c.kind == "site" {
			err = m.GetFile(m.ctx, file(c.name, i.path), from(0), &out)
		} else {
			err = m.GetWorkloadItem(m.ctx, item(c.name, i.path), &out)
		}
		m.checkAccess(c, err, "get "+i.path+" of")
		if err == nil && out.String() != i.text {
			m.Fatalf("%s of %s has other bytes than were written", i.path, c.name)
		}
	}
}

// verifyEvery is the number of acts after which verify runs; written content is read
// after each act.
const verifyEvery = 4

// check compares everything with the model.
func (m *model) check(*rapid.T) {
	m.Helper()
	m.recordServiceManaged()
	m.checkLocations()
	if m.tidied {
		for _, c := range m.all {
			c.follows = false
		}
	}
	m.checkLedger()
	m.checkProgress()
	m.checkSlots()
	if m.acts++; m.acts%verifyEvery == 0 {
		m.checkVerify()
	}
	for _, c := range m.all {
		if c.state == api.Active || c.kind != "mailbox" { // to read another one is an act
			m.readAndCompare(c)
		}
	}
	clear(m.worked)
	m.tidied = false
}

// recordServiceManaged records the service-managed policies.
func (m *model) recordServiceManaged() {
	list, err := m.ListPolicies(m.ctx, api.ListInput{})
	m.Must(err)
	for _, p := range list.Items {
		if p.Kind == api.ServiceManagedPolicy {
			m.byID[p.ID] = &modelPolicy{name: p.Name, id: p.ID, kind: p.Kind, gen: p.Generation}
			m.revisions[p.Revision] = location{p.ID, p.Generation}
		}
	}
}

// policyFor returns the policy that a container belongs under.
func (m *model) policyFor(c *modelContainer) *modelPolicy {
	name := "Service-managed"
	switch {
	case c.kind == "site", c.state == "site":
		if m.policies["Sites"] != nil {
			name = "Sites"
		}
	case c.own != "":
		name = c.own
	case m.assigned != "":
		name = m.assigned
	}
	if p := m.policies[name]; p != nil {
		return p
	}
	for _, p := range m.byID {
		if p.name == name && p.kind == api.ServiceManagedPolicy {
			return p
		}
	}
	m.Fatalf("there is no policy %q", name)
	return nil
}

// checkLocations checks which policy key every container key is under. A key may move only for a
// reason, and only to the current policy key of its policy; keys that this act moves
// have moved.
func (m *model) checkLocations() {
	m.Helper()
	shown := map[*modelContainer]api.Protection{}
	stores := m.stores()
	for _, c := range m.all {
		switch c.kind {
		case "mailbox":
			box := m.show(c.name)
			m.expect(box.State, c.state, "state of "+c.name)
			if p := m.byID[c.at.policy]; p == nil || !p.purged {
				m.expect(box.AssignedPolicy, c.own, "own policy of "+c.name)
			}
			shown[c] = box.Protection
		case "site":
			s, err := m.ShowSite(m.ctx, site(c.name))
			m.Must(err)
			shown[c] = s.Protection
		case "workload":
			shown[c] = stores[c.name].Protection
		}
	}
	all := m.testService.backups()
	m.expect(len(all), len(m.backups), "backups")
	for _, b := range all {
		i := slices.IndexFunc(m.backups, func(c *modelContainer) bool { return c.id == b.ID })
		if i < 0 {
			m.Fatalf("backup %s of %s is there", b.ID, b.Container)
		}
		m.expect(b.Items, int64(len(m.backups[i].items)), "items of a backup")
		shown[m.backups[i]] = b.Protection
	}
	for _, c := range append(slices.Clone(m.all), m.backups...) {
		m.checkLocation(c, shown[c])
	}
}

func (m *model) checkLocation(c *modelContainer, p api.Protection) {
	m.Helper()
	at, known := m.revisions[p.DataEncryptionPolicyID]
	switch {
	case !known:
		m.Fatalf("%s %s is under a revision that no act made: %+v", c.kind, c.name, p)
	case m.byID[at.policy].purged != (p.Purged != nil):
		m.Fatalf("%s %s shows as %+v", c.kind, c.name, p)
	}
	if m.byID[at.policy].purged { // nothing of it goes anywhere any more
		m.expect(at, c.at, "location of "+c.name)
		c.arrived = false
		return
	}
	home := m.policyFor(c)
	current := location{home.id, home.gen}
	follows := m.tidied && c.follows && c.kind == "mailbox" && c.state != api.Active
	rolled := m.worked[at.policy] // it brings what is under older keys of its policy, too, whose home is another one by now
	brought := rolled != nil && (at.policy == home.id || at.policy == c.at.policy) && at.gen == m.byID[at.policy].gen
	if at != c.at && !brought && (at != current || !c.arrived && !follows) {
		m.Fatalf("%s %s has moved from %s to %s, and its policy is at %s", c.kind, c.name, m.locationName(c.at), m.locationName(at), m.locationName(current))
	}
	if c.arrived && at != current {
		m.Fatalf("%s %s stands at %s, and should have come to %s", c.kind, c.name, m.locationName(at), m.locationName(current))
	}
	if at != c.at && brought {
		rolled.begun = true
	}
	c.at, c.arrived = at, false
}

// locationName describes a location.
func (m *model) locationName(at location) string {
	return fmt.Sprintf("%s/%d", m.byID[at.policy].name, at.gen)
}

// checkLedger counts what each key version still protects.
func (m *model) checkLedger() {
	m.Helper()
	want := map[envelope.KeyVersion]api.KeyUsage{}
	count := func(c *modelContainer) {
		if p := m.byID[c.at.policy]; p.purged || p.kind == api.ServiceManagedPolicy {
			return
		}
		for _, kv := range m.pairs[c.at] {
			u := want[kv]
			switch {
			case c.kind == "backup":
				u.Backups++
			case c.kind == "site":
				u.Sites++
			case c.kind == "workload":
				u.Workloads++
			case c.state == api.Active:
				u.Active++
			case c.state == api.Inactive:
				u.Inactive++
			case c.state == api.Disconnected:
				u.Disconnected++
			case c.state == api.Disabled:
				u.Disabled++
			}
			want[kv] = u
		}
	}
	for _, c := range append(slices.Clone(m.all), m.backups...) {
		count(c)
	}
	usage, err := m.ListKeyUsage(m.ctx, api.KeyUsageInput{})
	m.Must(err)
	for _, u := range usage.Items {
		kv := envelope.KeyVersion{Vault: u.Vault, Key: u.Key, Version: u.Version}
		w := want[kv]
		if u.Verdict == api.SafeToRetire && w != (api.KeyUsage{}) {
			m.Fatalf("%v is safe to retire, and protects %+v", kv, w)
		}
		w.Vault, w.Key, w.Version, w.Policy, w.Verdict, w.Since, w.Health = u.Vault, u.Key, u.Version, u.Policy, u.Verdict, u.Since, u.Health
		if u != w {
			m.Fatalf("the ledger has %+v, want %+v", u, w)
		}
		delete(want, kv)
	}
	if len(want) > 0 {
		m.Fatalf("the ledger does not name %+v", want)
	}
}

// checkVerify runs verify, which must decrypt everything that is accessible. It does not
// count as an access.
func (m *model) checkVerify() {
	m.Helper()
	report, err := m.Verify(m.ctx, api.VerifyInput{}, func(api.VerifyProgress) {})
	m.Must(err)
	var want, bytes int64
	for _, c := range append(slices.Clone(m.all), m.backups...) {
		if m.expectedCode(c.at) == "" {
			want += int64(len(c.items))
			for _, i := range c.items {
				bytes += int64(len(i.text))
			}
		}
	}
	if len(report.Damaged) > 0 || report.Items != want || report.Bytes != bytes {
		m.Fatalf("%d items of %d bytes open, want %d of %d: %+v", report.Items, report.Bytes, want, bytes, report)
	}
}

// finishAndReadAll lets every roll end and reads everything.
func (m *model) finishAndReadAll(r *rapid.T) {
	m.Helper()
	m.repairAll()
	for _, p := range m.cancelled() { // what their rolls left comes with the next
		m.newVersions(p, "A-")
		m.Must(e(m.RefreshPolicy(m.ctx, refresh(p.name, ""))))
		m.recordRenewal(p, api.DepthPolicy, false)
	}
	m.check(r)
	for _, ro := range m.rolls(api.RollPaused) {
		m.Must(e(m.ResumeRoll(m.ctx, api.RollInput{Roll: fmt.Sprint(ro.ID)})))
	}
	for len(m.rolls(api.RollRunning)) > 0 {
		for _, ro := range m.rolls(api.RollRunning) {
			m.workOn(ro)
		}
		m.tidyUp()
	}
	m.check(r)
	for _, c := range m.all {
		m.readAndCompare(c)
	}
	m.checkVerify()
	m.QueueMaintenance() // as at the start after a process that ended
	m.tidyUp()
	m.check(r)
	for _, c := range m.all {
		if m.byID[c.at.policy].purged {
			continue
		}
		if home := m.policyFor(c); c.at != (location{home.id, home.gen}) {
			m.Errorf("%s %s stands at %v when all has ended, and its policy is at %d", c.kind, c.name, c.at, home.gen)
		}
	}
	usage, err := m.ListKeyUsage(m.ctx, api.KeyUsageInput{})
	m.Must(err)
	for _, u := range usage.Items {
		kv := envelope.KeyVersion{Vault: u.Vault, Key: u.Key, Version: u.Version}
		if inUse := m.needed(kv); inUse != (u.Verdict == api.InUse) {
			m.Errorf("%v is %s, needed: %v", kv, u.Verdict, inUse)
		}
	}
	m.checkBlobs()
}

// needed reports whether a key version wraps a policy key that is current or has
// something under it.
func (m *model) needed(kv envelope.KeyVersion) bool {
	for at, pair := range m.pairs {
		p := m.byID[at.policy]
		if p.purged || !slices.Contains(pair[:], kv) {
			continue
		}
		current := m.policies[p.name] == p && p.gen == at.gen
		if current || slices.ContainsFunc(append(slices.Clone(m.all), m.backups...), func(c *modelContainer) bool { return c.at == at }) {
			return true
		}
	}
	return false
}

// checkBlobs fails the test unless the blob store has exactly the objects that rows
// reference.
func (m *model) checkBlobs() {
	m.Helper()
	stored, named := m.stored(), m.names(`SELECT CASE WHEN object = 0 THEN id ELSE object END FROM blob WHERE tenant = ?1
		UNION SELECT id FROM object WHERE tenant = ?1`)
	for name := range stored {
		if !named[name] {
			m.Errorf("no row names blob %s", name)
		}
	}
	for name := range named {
		if !stored[name] {
			m.Errorf("blob %s is not there", name)
		}
	}
}

func (m *model) stored() map[string]bool {
	m.Helper()
	all := map[string]bool{}
	m.Must(m.blobs.List(m.Ctx, fmt.Sprintf("%x/", m.Tenant), func(name string, _ int64) error {
		all[name] = true
		return nil
	}))
	return all
}

func (m *model) names(query string) map[string]bool {
	m.Helper()
	all := map[string]bool{}
	m.rows(query, func(scan func(...any) error) error {
		var id int64
		err := scan(&id)
		all[fmt.Sprintf("%x/%04x/%03x/%016x", m.Tenant, id>>48, id>>36&0xfff, id)] = true
		return err
	})
	return all
}
