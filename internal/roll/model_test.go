package roll_test

import (
	"context"
	"flag"
	"fmt"
	"reflect"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/keypage"
	"keyroll/internal/longtest"
	"keyroll/internal/policy"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/roll"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// The model's acts are durable transactions, so few checks are the default; -rapid.checks
// sets more.
func init() { flag.Set("rapid.checks", strconv.Itoa(longtest.Of(8, 100))) }

// model is a tenant with random acts.
type model struct {
	tenant
	policies []policy.Policy
	sites    *policy.Policy
	rolls    []roll.Roll
	boxes    []container.Container
	all      []container.Container
	keys     keyring
	made     int
}

// TestAnySequenceOfRollsAndMovesKeepsEveryKey creates, moves and rolls in any
// order, interrupts rolls at any page, cancels, retires and folds; after each act every
// key is unchanged and can be opened from the roots.
func TestAnySequenceOfRollsAndMovesKeepsEveryKey(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		p := policytest.New(t, db)
		rapid.Check(t, func(r *rapid.T) {
			m := &model{tenant: newTenant(p.Neighbour()), keys: keyring{}}
			prefix := fmt.Sprint(store.NewID())
			m.policies = append(m.policies, m.MailboxPolicy(prefix+"a"), m.MailboxPolicy(prefix+"b"))
			r.Repeat(map[string]func(*rapid.T){
				"create": m.create, "state": m.state, "assign": m.assign, "site": m.createSite, "refresh": m.refresh, "root": m.root,
				"register": m.register, "update": m.update, "work": m.work, "breakOff": m.interrupt, "cancel": m.cancel, "follow": m.follow, "retire": m.retire,
				"fold": m.fold, "forget": func(*rapid.T) { m.Policies.Close() }, "": m.check,
			})
			m.Policies.Close()
			m.check(r)
			for _, pol := range m.policies { // a refresh moves what a cancelled roll left
				if m.latest(pol).State == api.RollCancelled {
					m.rolls = append(m.rolls, m.begin(pol))
				}
			}
			for _, ro := range m.rolls { // in the end every roll that still runs finishes
				if m.ReloadRoll(ro).State == api.RollRunning {
					m.Finish(ro, api.RollFinished)
				}
			}
			m.check(r)
			for _, c := range m.all {
				if now := m.reload(c); (now.State == envelope.ClassActive || now.State == envelope.ClassSite) && !m.isCurrent(now) {
					m.Errorf("%s is under an older policy key when all rolls have finished", now.Kind)
				}
			}
		})
	})
}

func (m *model) reload(c container.Container) container.Container {
	o, err := m.Containers.OpenKey(m.Ctx, c, api.ByUser)
	m.Must(err)
	o.Key.Zero()
	return o.Container
}

// isCurrent reports whether a container is under its policy's current policy key.
func (m *model) isCurrent(c container.Container) (ok bool) {
	m.View(func(tx *store.Tx) error {
		id := c.Policy
		if id == 0 {
			var err error
			if id, err = m.Policies.Default(m.Ctx, tx, m.Tenant, string(c.Kind), c.Geo); err != nil {
				return err
			}
		}
		current, err := m.Policies.Current(m.Ctx, tx, m.Tenant, id)
		if err != nil {
			return err
		}
		under, _, err := m.Containers.PolicyKeyOf(m.Ctx, tx, c)
		ok = under == current.ID
		return err
	})
	return ok
}

func (m *model) record(c container.Container) {
	m.all = append(m.all, c)
	o, err := m.Containers.OpenKey(m.Ctx, c, api.ByUser)
	m.Must(err)
	m.keys[c.ID] = o.Key
}

// policyID draws a mailbox policy or, as 0, the default one.
func (m *model) policyID(t *rapid.T) int64 {
	return rapid.SampledFrom([]int64{0, m.policies[0].ID, m.policies[1].ID}).Draw(t, "policy")
}

func (m *model) create(t *rapid.T) {
	n := rapid.IntRange(1, 2*testSlots+1).Draw(t, "mailboxes")
	for _, c := range m.mailboxes(m.policyID(t), numbered(fmt.Sprint("m", m.made, "-"), n)...) {
		m.boxes = append(m.boxes, c)
		m.record(c)
	}
	m.made++
}

func (m *model) box(t *rapid.T) container.Container {
	if len(m.boxes) == 0 {
		t.Skip("there is no mailbox")
	}
	return rapid.SampledFrom(m.boxes).Draw(t, "mailbox")
}

func (m *model) state(t *rapid.T) {
	state := rapid.SampledFrom([]envelope.Class{envelope.ClassActive, envelope.ClassInactive, envelope.ClassDisconnected, envelope.ClassDisabled}).Draw(t, "state")
	_, err := m.Containers.SetState(m.Ctx, m.Tenant, m.box(t), state)
	m.Must(err)
}

func (m *model) assign(t *rapid.T) {
	_, err := m.Containers.Assign(m.Ctx, m.Tenant, m.box(t), m.policyID(t), api.ForRecovery)
	m.Must(err)
}

func (m *model) follow(t *rapid.T) {
	_, err := m.Containers.MoveKeyAfterAccess(m.Ctx, m.box(t))
	m.Must(err)
}

func (m *model) createSite(*rapid.T) {
	m.made++
	m.record(m.Site(fmt.Sprint("s", m.made)))
}

func (m *model) refresh(t *rapid.T) {
	m.rolls = append(m.rolls, m.begin(rapid.SampledFrom(m.policies).Draw(t, "policy")))
}

func (m *model) root(t *rapid.T) {
	m.Refresh(rapid.SampledFrom(m.policies).Draw(t, "policy"), api.DepthRoot, rapid.Bool().Draw(t, "all generations"))
}

func (m *model) register(t *rapid.T) {
	if m.sites != nil {
		t.Skip("it is registered")
	}
	pol, ro := m.tenant.register()
	m.sites = &pol
	m.rolls = append(m.rolls, ro)
}

// update rolls the site policy, one roll at a time.
func (m *model) update(t *rapid.T) {
	if m.sites == nil {
		t.Skip("it is not registered")
	}
	pol := m.Reload(*m.sites)
	m.View(func(tx *store.Tx) error {
		latest, _, err := roll.Latest(m.Ctx, tx, m.Tenant, pol.ID)
		if err == nil && latest.State != api.RollFinished {
			t.Skip("it is being rolled")
		}
		return err
	})
	kv, _ := m.NewVersions(pol)
	var ro roll.Roll
	_, err := m.Change(pol, policy.Request{Act: policy.UpdatePrimary, Primary: kv, Depth: api.DepthPolicy}, func(tx *store.Tx, c policy.Change) (err error) {
		ro, err = roll.Begin(m.Ctx, tx, m.Policies, roll.Start{Policy: c.Policy, Revision: c.Revision.GUID}, m.Clock.Now())
		return err
	})
	m.Must(err)
	m.rolls = append(m.rolls, ro)
}

// work works on any roll; one that does not run any more must not change.
func (m *model) work(t *rapid.T) {
	ro := m.roll(t)
	was := m.ReloadRoll(ro)
	stood := m.Dump("key_page")
	if waits, err := m.Roller.Work(m.Ctx, ro); err != nil || waits {
		m.Fatalf("waits %v, %v", waits, err)
	}
	now := m.ReloadRoll(ro)
	if was.State != api.RollRunning && (!reflect.DeepEqual(now, was) || m.Dump("key_page") != stood) {
		m.Fatalf("a roll that was %s did something", was.State)
	}
	if was.State == api.RollRunning && now.State != api.RollFinished {
		m.Fatalf("it is %s: %s", now.State, now.Message)
	}
}

func (m *model) roll(t *rapid.T) roll.Roll {
	if len(m.rolls) == 0 {
		t.Skip("there is no roll")
	}
	return rapid.SampledFrom(m.rolls).Draw(t, "roll")
}

// interrupt works on a roll until a page at which its process ends.
func (m *model) interrupt(t *rapid.T) {
	ro, at := m.roll(t), rapid.IntRange(1, 4).Draw(t, "page")
	ctx, end := context.WithCancel(m.Ctx)
	defer end()
	dying := m.tenant.beforeReseal(func(n int) {
		if n == at {
			end()
		}
	})
	if _, err := dying.Roller.Work(ctx, ro); err != nil && ctx.Err() == nil {
		m.Fatal(err)
	}
}

func (m *model) latest(pol policy.Policy) (ro roll.Roll) {
	m.View(func(tx *store.Tx) (err error) {
		ro, _, err = roll.Latest(m.Ctx, tx, m.Tenant, pol.ID)
		return err
	})
	return ro
}

// cancel cancels any roll that can be cancelled; one that has moved a container cannot.
func (m *model) cancel(t *rapid.T) {
	ro := m.ReloadRoll(m.roll(t))
	err := m.tenant.cancel(ro)
	if err == nil && !ro.Begun.IsZero() || err != nil && !fail.Is(err, api.Conflict) {
		m.Fatalf("a roll begun at %v: %v", ro.Begun, err)
	}
}

func (m *model) retire(t *rapid.T) {
	_, err := m.Policies.Retire(m.Ctx, m.Tenant, rapid.SampledFrom(m.policies).Draw(t, "policy").ID)
	m.Must(err)
}

func (m *model) fold(*rapid.T) {
	var sums []keypage.Sum
	m.View(func(tx *store.Tx) (err error) {
		sums, err = keypage.Usage(m.Ctx, tx, m.Tenant)
		return err
	})
	for _, s := range sums {
		_, err := m.Containers.Fold(m.Ctx, m.Tenant, keypage.Parent{ID: s.Parent, Generation: s.Generation}, s.Class)
		m.Must(err)
	}
}

func (m *model) check(*rapid.T) {
	now := m.tenant.keys()
	for id, key := range m.keys {
		if !key.Equal(now[id]) {
			m.Fatalf("container %d has another key than at first", id)
		}
	}
	if len(now) != len(m.keys)+1 { // and the directory
		m.Fatalf("%d containers, want %d", len(now), len(m.keys)+1)
	}
	for _, key := range now {
		key.Zero()
	}
}
