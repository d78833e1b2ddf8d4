package service_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/time/rate"
	"pgregory.net/rapid"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/roll"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// The model's acts are transactions made durable; -rapid.checks asks for more.
func init() { flag.Set("rapid.checks", "4") }

// model is what a tenant has asked for, beside what its service does.
type model struct {
	world
	boxes    map[string]*modelBox
	sites    []string
	items    map[string]bool   // workload stores with an item
	kinds    map[string]string // policies that were not left: name, kind
	left     []string          // GUIDs of policies that were left
	assigned string
	site     bool // a site policy is registered
	made     int
}

type modelBox struct {
	own   string
	state api.MailboxState
}

// TestAnySequenceOfAdministrationKeepsAllReadable creates, assigns, refreshes,
// replaces and leaves in any order, with rolls broken off anywhere. At every
// moment all content is readable; when all rolls have ended, everything stands
// where it should, and no policy that was left needs a key.
func TestAnySequenceOfAdministrationKeepsAllReadable(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		p := policytest.New(t, db)
		rapid.Check(t, func(r *rapid.T) {
			m := &model{world: newWorld(p.Neighbour()), boxes: map[string]*modelBox{}, items: map[string]bool{}, kinds: map[string]string{}}
			m.policy("mailbox")
			m.policy("multi-workload")
			r.Repeat(map[string]func(*rapid.T){
				"policy": func(r *rapid.T) { m.policy(rapid.SampledFrom([]string{"mailbox", "multi-workload"}).Draw(r, "kind")) },
				"box":    m.box, "site": m.makeSite, "item": m.item, "state": m.state, "assign": m.assign, "assignTenant": m.assignTenant,
				"refresh": m.refresh, "replace": m.replace, "register": m.register, "leave": m.leave, "leaveSites": m.leaveSites,
				"work": m.work, "breakOff": m.breakOff, "tidy": func(*rapid.T) { m.tidy() }, "forget": func(*rapid.T) { m.Policies.Close() },
				"": m.check,
			})
			m.end()
		})
	})
}

// may is an act that a roll on its way may forbid; done says whether it did not.
func (m *model) may(err error) (done bool) {
	m.Helper()
	if fail.Is(err, api.RollInProgress) {
		return false
	}
	m.Must(err)
	return true
}

func (m *model) next(form string) string {
	m.made++
	return fmt.Sprintf(form, m.made)
}

func (m *model) policy(kind string) {
	name := m.next("p%d")
	m.namedPolicy(api.PolicyKind(kind), name)
	m.kinds[name] = kind
}

// named draws a policy of a kind, or "" where there is none or that is allowed.
func (m *model) draw(r *rapid.T, kind string, none bool) string {
	var names []string
	if none {
		names = append(names, "")
	}
	for name, k := range m.kinds {
		if kind == "" || k == kind {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		r.Skip("there is no such policy")
	}
	slices.Sort(names)
	return rapid.SampledFrom(names).Draw(r, "policy")
}

func (m *model) box(r *rapid.T) {
	name, own := m.next("m%d@contoso.com"), m.draw(r, "mailbox", true)
	m.Must(e(m.CreateMailbox(m.ctx, newMailbox(name, own))))
	m.Must(e(m.ImportMail(m.ctx, mailbox(name), -1, strings.NewReader(mbox))))
	m.boxes[name] = &modelBox{own, api.Active}
}

func (m *model) drawBox(r *rapid.T) (string, *modelBox) {
	if len(m.boxes) == 0 {
		r.Skip("there is no mailbox")
	}
	var names []string
	for name := range m.boxes {
		names = append(names, name)
	}
	slices.Sort(names)
	name := rapid.SampledFrom(names).Draw(r, "mailbox")
	return name, m.boxes[name]
}

func (m *model) makeSite(*rapid.T) {
	url := m.next(team + "%d")
	m.Must(e(m.CreateSite(m.ctx, newSite(url))))
	m.Must(e(m.PutFile(m.ctx, file(url, path), -1, strings.NewReader(url))))
	m.sites = append(m.sites, url)
}

func (m *model) item(r *rapid.T) {
	name := rapid.SampledFrom([]string{chats, labels}).Draw(r, "store")
	m.Must(e(m.PutWorkloadItem(m.ctx, item(name, "item"), -1, strings.NewReader(name))))
	m.items[name] = true
}

func (m *model) state(r *rapid.T) {
	name, box := m.drawBox(r)
	state := rapid.SampledFrom([]api.MailboxState{api.Active, api.Inactive, api.Disconnected, api.Disabled}).Draw(r, "state")
	m.Must(e(m.SetMailboxState(m.ctx, newState(name, state))))
	box.state = state
}

func (m *model) assign(r *rapid.T) {
	name, box := m.drawBox(r)
	own := m.draw(r, "mailbox", true)
	m.Must(e(m.AssignMailbox(m.ctx, assign(name, own))))
	box.own = own
}

func (m *model) assignTenant(r *rapid.T) {
	name := m.draw(r, "multi-workload", false)
	if m.may(e(m.AssignPolicy(m.ctx, assignment(name)))) {
		m.assigned = name
	}
}

func (m *model) refresh(r *rapid.T) {
	name := m.draw(r, "", false)
	m.newKey("A-" + name)
	depth := rapid.SampledFrom([]api.Depth{api.DepthPolicy, api.DepthRoot}).Draw(r, "depth")
	m.Must(e(m.RefreshPolicy(m.ctx, refresh(name, depth))))
}

func (m *model) replace(r *rapid.T) {
	name := m.draw(r, "", false)
	m.newKey("A-" + name) // whatever keys it is under, one is newer
	m.newKey("B-" + name)
	m.Must(e(m.ReplacePolicyKeys(m.ctx, replace(name, "", keyURI("A-"+name), keyURI("B-"+name)))))
}

func (m *model) register(r *rapid.T) {
	if m.site {
		r.Skip("it is registered")
	}
	m.site = m.may(e(m.RegisterSites(m.ctx, register(m.newKey("A-Sites"), m.newKey("B-Sites")))))
}

func (m *model) leave(r *rapid.T) {
	name := m.draw(r, "", false)
	id := m.shown(name).ID
	if !m.may(e(m.LeavePolicy(m.ctx, named(name)))) {
		return
	}
	delete(m.kinds, name)
	m.left = append(m.left, id)
	if m.assigned == name {
		m.assigned = ""
	}
	for _, box := range m.boxes {
		if box.own == name {
			box.own = ""
		}
	}
}

func (m *model) leaveSites(r *rapid.T) {
	if !m.site {
		r.Skip("it is not registered")
	}
	id := m.shown("Sites").ID
	if m.may(e(m.LeavePolicy(m.ctx, named("Sites")))) {
		m.left, m.site = append(m.left, id), false
	}
}

func (m *model) running() (running []roll.Roll) {
	m.View(func(tx *store.Tx) error {
		all, err := roll.List(m.Ctx, tx, m.Tenant)
		running = slices.DeleteFunc(all, func(ro roll.Roll) bool { return ro.State != api.RollRunning })
		return err
	})
	return running
}

func (m *model) drawRoll(r *rapid.T) roll.Roll {
	running := m.running()
	if len(running) == 0 {
		r.Skip("no roll is running")
	}
	return running[rapid.IntRange(0, len(running)-1).Draw(r, "roll")]
}

func (m *model) work(r *rapid.T) {
	if waits, err := m.Roller.Work(m.Ctx, m.drawRoll(r)); err != nil || waits {
		m.Fatalf("a roll waits: %v, %v", waits, err)
	}
}

// breakOff works on a roll until a page at which its process ends.
func (m *model) breakOff(r *rapid.T) {
	ro, at := m.drawRoll(r), rapid.IntRange(1, 3).Draw(r, "page")
	ctx, end := context.WithCancel(m.Ctx)
	defer end()
	n := 0
	dying := roll.New(roll.Config{DB: m.DB, Policies: m.Policies, Limit: rate.NewLimiter(rate.Inf, 4), Now: m.Clock.Now,
		Settled: func(int64, int64) {},
		Reseal: func(from, to *envelope.Key, old, next envelope.Place, body []byte) ([]byte, error) {
			if n++; n == at {
				end()
			}
			return envelope.Reseal(from, to, old, next, body)
		}})
	if _, err := dying.Work(ctx, ro); err != nil && ctx.Err() == nil {
		m.Fatal(err)
	}
}

// check reads what every container holds. It is no access: the keys stay where
// they are.
func (m *model) check(*rapid.T) {
	m.Helper()
	report, err := m.Verify(m.ctx, api.VerifyInput{}, func(api.VerifyProgress) {})
	m.Must(err)
	if want := int64(len(m.boxes) + len(m.sites) + len(m.items)); len(report.Closed)+len(report.Damaged) > 0 || report.Items != want {
		m.Fatalf("%d items open, want %d: %+v", report.Items, want, report)
	}
}

// end lets every roll end and reads everything.
func (m *model) end() {
	m.Helper()
	for len(m.running()) > 0 {
		m.finishRolls()
	}
	m.TidyUp() // as at the start after a process that ended
	covering := m.assigned
	if covering == "" {
		covering = "Service-managed"
	}
	stands := func(what string, got api.Protection, policy string) {
		m.Helper()
		if got.Policy != policy || !got.Current {
			m.Errorf("%s stands under %+v, not under %q", what, got, policy)
		}
	}
	for name, box := range m.boxes {
		if box.state != api.Active {
			m.expect(m.export(name), mbox, "mail of "+name) // it follows
		}
	}
	m.tidy()
	for name, box := range m.boxes {
		now := m.show(name)
		m.expect(now.AssignedPolicy, box.own, "own policy of "+name)
		if box.own != "" {
			stands(name, now.Protection, box.own)
		} else {
			stands(name, now.Protection, covering)
		}
	}
	for name := range m.items {
		stands(name, m.stores()[name].Protection, covering)
		var out bytes.Buffer
		m.Must(m.GetWorkloadItem(m.ctx, item(name, "item"), &out))
		m.expect(out.String(), name, "the item of "+name)
	}
	for _, url := range m.sites {
		s, err := m.ShowSite(m.ctx, site(url))
		m.Must(err)
		stands(url, s.Protection, map[bool]string{true: "Sites", false: "Service-managed"}[m.site])
	}
	for _, id := range m.left {
		p := m.shown(id)
		if v := m.verdicts(p.Name); v != string(api.SafeToRetire) {
			m.Errorf("key versions of %q, which was left, are %s", p.Name, v)
		}
	}
	m.clean()
}
