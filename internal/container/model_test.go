package container_test

import (
	"flag"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/container/containertest"
	"keyroll/internal/envelope"
	"keyroll/internal/keypage"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// The model's acts are durable transactions, so there are few; -rapid.checks sets more.
func init() { flag.Set("rapid.checks", "30") }

// modelContainer is the model's state of a container.
type modelContainer struct {
	kind      container.Kind
	state     envelope.Class
	policy    int64
	key       *envelope.Key
	policyKey int64
}

// model is what a tenant's containers should be after any sequence of acts.
type model struct {
	fixture
	sites    int64 // the site policy, 0 while there is none
	policies []int64
	current  map[int64]int64 // policy key by policy
	held     map[int64]*modelContainer
	made     int
}

// TestAnySequenceOfMovesKeepsEveryKeyAndPointer compares the rows with the
// model after each act: creations, assignments, states, accesses, folds, and
// rolls of a policy that were interrupted at any point.
func TestAnySequenceOfMovesKeepsEveryKeyAndPointer(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		fake := containertest.NewPolicies(t, db)
		rapid.Check(t, func(r *rapid.T) {
			m := &model{fixture: newFixture(t, db, fake), current: map[int64]int64{}, held: map[int64]*modelContainer{}}
			m.policies = []int64{m.managed, fake.Create(t, m.tenant, "mailbox"), fake.Create(t, m.tenant, "mailbox")}
			for _, id := range m.policies {
				m.current[id] = m.currentOf(id)
			}
			r.Repeat(map[string]func(*rapid.T){
				"create": m.create, "createMany": m.createMany, "assign": m.assign, "state": m.state,
				"follow": m.follow, "fold": m.fold, "refresh": m.refresh, "roll": m.roll,
				"registerSites": m.registerSites, "": m.check,
			})
		})
	})
}

func (m *model) create(r *rapid.T) {
	m.made++
	kind, name, policy := container.Mailbox, fmt.Sprint("user", m.made), rapid.SampledFrom(append(m.policies, 0)).Draw(r, "policy")
	if rapid.Bool().Draw(r, "site") {
		kind, name, policy = container.Site, fmt.Sprint("https://contoso.com/", m.made), 0
	}
	c, err := m.all.Create(m.ctx, m.tenant, kind, name, policy)
	m.must(err)
	m.add(c)
}

func (m *model) createMany(r *rapid.T) {
	var names []string
	for range rapid.IntRange(1, 2*testSlots).Draw(r, "number") {
		m.made++
		names = append(names, fmt.Sprint("user", m.made))
	}
	m.must(m.all.CreateMany(m.ctx, m.tenant, container.Mailbox, names, 0))
	for _, name := range names {
		m.add(m.find(name))
	}
}

func (m *model) add(c container.Container) {
	key, _ := m.key(c)
	h := &modelContainer{kind: c.Kind, state: envelope.ClassActive, policy: c.Policy, key: key}
	if c.Kind == container.Site {
		h.state = envelope.ClassSite
	}
	h.policyKey = m.current[m.policyOf(h)]
	m.held[c.ID] = h
}

func (m *model) policyOf(h *modelContainer) int64 {
	switch {
	case h.policy != 0:
		return h.policy
	case h.kind == container.Site && m.sites != 0:
		return m.sites
	}
	return m.managed
}

// pick draws a container.
func (m *model) pick(r *rapid.T) (container.Container, *modelContainer) {
	if len(m.held) == 0 {
		r.Skip("no container")
	}
	ids := make([]int64, 0, len(m.held))
	for id := range m.held {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	id := ids[rapid.IntRange(0, len(ids)-1).Draw(r, "container")]
	return container.Container{ID: id, Tenant: m.tenant, Kind: m.held[id].kind, State: m.held[id].state}, m.held[id]
}

func (m *model) assign(r *rapid.T) {
	c, h := m.pick(r)
	h.policy = rapid.SampledFrom(append(m.policies, 0)).Draw(r, "policy")
	_, err := m.all.Assign(m.ctx, m.tenant, c, h.policy, api.ForRecovery)
	m.must(err)
	h.policyKey = m.current[m.policyOf(h)]
}

func (m *model) state(r *rapid.T) {
	c, h := m.pick(r)
	if h.kind != container.Mailbox {
		r.Skip("no mailbox")
	}
	state := rapid.SampledFrom(mailboxStates).Draw(r, "state")
	_, err := m.all.SetState(m.ctx, m.tenant, c, state)
	m.must(err)
	if state == envelope.ClassActive && h.state != envelope.ClassActive {
		h.policyKey = m.current[m.policyOf(h)]
	}
	h.state = state
}

func (m *model) follow(r *rapid.T) {
	c, h := m.pick(r)
	moved, err := m.all.MoveKeyAfterAccess(m.ctx, c)
	m.must(err)
	to := m.current[m.policyOf(h)]
	should := h.kind == container.Mailbox && h.state != envelope.ClassActive && h.policyKey != to
	if moved != should {
		r.Fatalf("moved is %v, want %v", moved, should)
	}
	if moved {
		h.policyKey = to
	}
}

func (m *model) fold(r *rapid.T) {
	before := m.pages()
	page := rapid.SampledFrom(before).Draw(r, "page")
	merged, err := m.all.Fold(m.ctx, m.tenant, keypage.Parent{ID: page.Parent, Generation: page.Generation}, page.Class)
	m.must(err)
	after, small := m.pages(), 0
	for _, p := range after {
		if p.Count > testSlots {
			r.Fatalf("a page of %d slots", p.Count)
		}
		if p.Parent == page.Parent && p.Class == page.Class && p.Count <= testSlots/2 {
			small++
		}
	}
	if small > 1 || len(before)-len(after) != merged {
		r.Fatalf("%d small pages stay; %d pages before, %d after, %d merged", small, len(before), len(after), merged)
	}
}

func (m *model) refresh(r *rapid.T) {
	id := m.anyPolicy(r)
	m.current[id] = m.fixture.policies.Refresh(m.TB, m.tenant, id).ID
}

func (m *model) roll(r *rapid.T) {
	id := m.anyPolicy(r)
	rolled := []envelope.Class{envelope.ClassActive, envelope.ClassSite, envelope.ClassWorkload}
	moved, err := m.fixture.policies.Roll(m.ctx, m.tenant, id, rapid.IntRange(1, 4).Draw(r, "pages"), rolled...)
	m.must(err)
	m.view(func(tx *store.Tx) error {
		for _, page := range moved {
			on, err := m.all.OnPage(m.ctx, tx, m.tenant, page.ID)
			if err != nil {
				return err
			}
			for _, c := range on {
				if h := m.held[c.ID]; h != nil { // not the directory
					h.policyKey = page.Parent
				}
			}
		}
		return nil
	})
}

func (m *model) anyPolicy(r *rapid.T) int64 {
	all := m.policies
	if m.sites != 0 {
		all = append(slices.Clone(all), m.sites)
	}
	return rapid.SampledFrom(all).Draw(r, "policy")
}

func (m *model) registerSites(r *rapid.T) {
	if m.sites != 0 {
		r.Skip("registered")
	}
	m.sites = m.fixture.policies.Create(m.TB, m.tenant, "site")
	m.current[m.sites] = m.currentOf(m.sites)
}

func (m *model) check(r *rapid.T) {
	all, err := m.keyLocations()
	if err != nil {
		r.Fatal(err)
	}
	if len(all) != len(m.held)+1 {
		r.Fatalf("%d containers, want %d and the directory", len(all), len(m.held))
	}
	for id, h := range m.held {
		is := all[id]
		if !is.key.Equal(h.key) {
			r.Fatalf("container %d has another key", id)
		}
		if is.State != h.state || is.Policy != h.policy || is.policyKey != h.policyKey {
			r.Fatalf("container %d: %v, policy %d, under %d; want %v, %d, %d", id, is.State, is.Policy, is.policyKey, h.state, h.policy, h.policyKey)
		}
	}
}
