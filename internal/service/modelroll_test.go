package service_test

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"golang.org/x/time/rate"
	"pgregory.net/rapid"

	"keyroll/api"
	"keyroll/internal/depth"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/roll"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// modelRoll is the expected state of a roll.
type modelRoll struct {
	policy     *modelPolicy // that it brings containers to
	total      int64
	begun      bool // it has moved one
	unfinished bool
	below      bool // its stages below policy keys may have begun
	cancelled  bool
	sized      bool // blobs and bytes have been counted
	blobs      int64
	bytes      int64
	things     string // all that there was when it was first seen
}

func (m *model) rolls(states ...api.RollState) (list []roll.Roll) {
	m.View(func(tx *store.Tx) error {
		all, err := roll.List(m.Ctx, tx, m.Tenant, 0, 1000)
		list = slices.DeleteFunc(all, func(ro roll.Roll) bool { return len(states) > 0 && !slices.Contains(states, ro.State) })
		return err
	})
	return list
}

func (m *model) work(r *rapid.T) { m.workOn(anyOf(r, m.rolls(api.RollRunning))) }

// workOn works on a roll to its end, unless a vault stops it. When it has finished,
// everything that it had to move is under the current policy key.
func (m *model) workOn(ro roll.Roll) {
	m.Helper()
	p := m.recordWork(ro)
	waits, err := m.parts.Roller.Work(m.Ctx, ro)
	if err != nil || waits && !m.vaultsMayFail() {
		m.Fatalf("a roll waits: %v, %v", waits, err)
	}
	if waits || slices.ContainsFunc(m.rolls(api.RollRunning), func(r roll.Roll) bool { return r.ID == ro.ID }) {
		return
	}
	m.checkDeepRoll(ro, p)
	for _, c := range append(slices.Clone(m.all), m.backups...) {
		if m.byID[c.at.policy].purged || m.policyFor(c) != p {
			continue
		}
		if atRest := c.class() == envelope.ClassBackup || c.kind == "mailbox" && c.state != api.Active; !atRest || p.sweeps && c.at.policy == p.id {
			c.arrived = true
		}
	}
}

// recordWork records that a roll is being worked on, and returns the policy to which it
// moves containers.
func (m *model) recordWork(ro roll.Roll) *modelPolicy {
	p := m.policyOf(ro.Policy)
	m.worked[p.id] = m.rolled[ro.ID]
	m.rolled[ro.ID].below = ro.Depth == api.DepthContainer || ro.Depth == api.DepthContent
	return p
}

func (m *model) policyOf(id int64) (p *modelPolicy) {
	m.View(func(tx *store.Tx) error {
		pol, err := m.Policies.ByID(m.Ctx, tx, m.Tenant, id)
		p = m.byID[pol.GUID.String()]
		return err
	})
	return p
}

// interruptRoll works on a roll until a page or a fault point at which its process crashes,
// or until the response of a commit is lost.
func (m *model) interruptRoll(r *rapid.T) { m.interruptThisRoll(r, anyOf(r, m.rolls(api.RollRunning))) }

// interruptDeepRoll begins a roll of depth content, and interrupts it.
func (m *model) interruptDeepRoll(r *rapid.T) {
	var full []*modelContainer
	for _, c := range m.all {
		if !m.byID[c.at.policy].purged && len(c.items) > 0 && (c.kind == "workload" || c.state == api.Active) && m.policyFor(c).kind != api.ServiceManagedPolicy {
			full = append(full, c)
		}
	}
	p, depth := m.policyFor(anyOf(r, full)), rapid.SampledFrom([]api.Depth{api.DepthContainer, api.DepthContent}).Draw(r, "depth")
	if !m.wasAllowed(e(m.RefreshPolicy(m.ctx, refresh(p.name, depth)))) {
		return
	}
	m.recordRenewal(p, depth, false)
	m.check(r)
	for _, ro := range m.rolls(api.RollRunning) {
		if m.rolled[ro.ID].policy == p {
			m.interruptThisRoll(r, ro)
		}
	}
}

func (m *model) interruptThisRoll(r *rapid.T, ro roll.Roll) {
	how, at := rapid.SampledFrom([]string{"page", "fault point", "lost answer"}).Draw(r, "at a"), rapid.IntRange(1, 3).Draw(r, "page")
	if how != "page" {
		at = rapid.SampledFrom([]int{1, 2, 3, 5, 6, 8, 10, 12}).Draw(r, "point")
	}
	m.recordWork(ro)
	ctx, end := context.WithCancel(m.Ctx)
	defer end()
	lost := func() bool { return false }
	if how == "lost answer" {
		ctx, lost = storetest.LoseAt(ctx, at)
	}
	var n atomic.Int64 // several goroutines reseal
	count := func() {
		if n.Add(1) == int64(at) {
			end()
		}
	}
	if how == "fault point" {
		fault.Set(func(string) { count() })
		defer fault.Set(nil)
	}
	dying := roll.New(roll.Config{DB: m.DB, Policies: m.Policies, Deep: depth.New(m.DB, m.parts.Containers, m.parts.Renewer), Limit: rate.NewLimiter(rate.Inf, 4), Now: m.Clock.Now,
		Settled: func(int64, int64) {},
		Reseal: func(from, to *envelope.Key, old, next envelope.EncryptionContext, body []byte) ([]byte, error) {
			if how == "page" {
				count()
			}
			return envelope.Reseal(from, to, old, next, body)
		}})
	if _, err := dying.Work(ctx, ro); err != nil && ctx.Err() == nil && !(lost() && fail.Is(err, api.Unavailable)) {
		m.Fatal(err)
	}
	if ctx.Err() != nil {
		fault.Set(nil)
		m.reopen()
	}
}

// pause pauses a running roll, or resumes a paused one.
func (m *model) pause(r *rapid.T) {
	if paused := m.rolls(api.RollPaused); len(paused) > 0 {
		m.Must(e(m.ResumeRoll(m.ctx, api.RollInput{Roll: fmt.Sprint(paused[0].ID)})))
		return
	}
	m.Must(e(m.PauseRoll(m.ctx, api.RollInput{Roll: fmt.Sprint(anyOf(r, m.rolls(api.RollRunning)).ID)})))
}

// cancel cancels a roll, which is refused if it has moved anything, or if nothing else
// would move what it had to.
func (m *model) cancel(r *rapid.T) {
	ro := anyOf(r, m.rolls())
	known := m.rolled[ro.ID]
	err := e(m.CancelRoll(m.ctx, api.RollInput{Roll: fmt.Sprint(ro.ID)}))
	if !known.unfinished || known.begun || ro.Source != 0 || known.policy.kind == api.SitePolicy {
		policytest.Refuses(m, err, api.Conflict)
		return
	}
	if known.below && fail.Is(err, api.Conflict) { // it came to a container's key, and no further
		return
	}
	m.Must(err)
	known.cancelled = true
}

// cancelled returns the policies whose last roll was cancelled.
func (m *model) cancelled() (list []*modelPolicy) {
	seen := map[*modelPolicy]bool{}
	for _, ro := range m.rolls() { // the newest first
		known := m.rolled[ro.ID]
		if p := known.policy; !seen[p] && known.cancelled && m.policies[p.name] == p {
			list = append(list, p)
		}
		seen[known.policy] = true
	}
	return list
}

// class is the kind of the slot of a container's key.
func (c *modelContainer) class() envelope.Class {
	switch c.kind {
	case "backup":
		return envelope.ClassBackup
	case "site":
		return envelope.ClassSite
	case "workload":
		return envelope.ClassWorkload
	}
	return map[api.MailboxState]envelope.Class{api.Active: envelope.ClassActive, api.Inactive: envelope.ClassInactive,
		api.Disconnected: envelope.ClassDisconnected, api.Disabled: envelope.ClassDisabled}[c.state]
}

// remainingOf counts what a roll still has to move.
func (m *model) remainingOf(ro roll.Roll) (n int64) {
	to := m.policyOf(ro.Policy)
	from := map[string]bool{to.id: true}
	if ro.Source != 0 {
		from[m.policyOf(ro.Source).id] = true
	}
	for _, c := range append(slices.Clone(m.all), m.backups...) {
		if deep(ro.Depth) && c.kind == "backup" { // it comes along, and is not counted: its own key stays
			continue
		}
		if from[c.at.policy] && c.at != (location{to.id, to.gen}) && slices.Contains(ro.Classes, c.class()) {
			n++
		}
	}
	return n
}

// checkProgress fails the test unless every roll reports exactly what it has moved. A roll
// below depth policy reports the work of its last stage.
func (m *model) checkProgress() {
	m.Helper()
	list, err := m.ListRolls(m.ctx, api.ListInput{})
	m.Must(err)
	for i, ro := range m.rolls() {
		known, shown := m.rolled[ro.ID], list.Items[i]
		left := int64(0)
		if ro.Unfinished() {
			left = m.remainingOf(ro)
		}
		if known == nil {
			known = &modelRoll{policy: m.policyOf(ro.Policy), total: left, things: m.countable()}
			m.rolled[ro.ID] = known
		}
		known.unfinished = ro.Unfinished()
		if known.sized && (ro.BlobsTotal != known.blobs || ro.BytesTotal != known.bytes) {
			m.Fatalf("there were %d blobs of %d bytes to do: %+v", known.blobs, known.bytes, ro)
		}
		known.sized, known.blobs, known.bytes = ro.Stage != "", ro.BlobsTotal, ro.BytesTotal
		switch {
		case known.cancelled:
			left = known.total
		case known.unfinished && deep(ro.Depth):
			left = shown.Remaining
		}
		done := max(0, known.total-left)
		if shown.Total != known.total || shown.Remaining != left || shown.Done != done || left == 0 && shown.PercentComplete != 100 || ro.State == api.RollFailed {
			m.Fatalf("%d of %d are left: %+v", left, known.total, shown)
		}
		if !deep(ro.Depth) && left > 0 && shown.PercentComplete != 100*float64(done)/float64(known.total) {
			m.Fatalf("%d of %d are left: %+v", left, known.total, shown)
		}
	}
}

// checkSlots fails the test unless there is exactly one key for each container and each blob,
// except for those that a roll is replacing, which are in the classes above.
func (m *model) checkSlots() {
	m.Helper()
	for what, query := range map[string]string{
		"blobs":      `SELECT (SELECT COALESCE(SUM(count), 0) FROM key_page WHERE tenant = ?1 AND class = ?2) - (SELECT COUNT(*) FROM blob WHERE tenant = ?1)`,
		"containers": `SELECT (SELECT COALESCE(SUM(count), 0) FROM key_page WHERE tenant = ?1 AND class <> ?2 AND class < 16) - (SELECT COUNT(*) FROM container WHERE tenant = ?1)`,
	} {
		surplus := m.Number(query, m.Tenant, int64(envelope.ClassBlob))
		if surplus != 0 {
			m.Fatalf("there are %d more keys of %s than %s", surplus, what, what)
		}
	}
}
