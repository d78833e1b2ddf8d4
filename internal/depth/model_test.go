package depth_test

import (
	"context"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"keyroll/api"
	"keyroll/internal/backup"
	"keyroll/internal/container"
	"keyroll/internal/content/contenttest"
	"keyroll/internal/envelope"
	"keyroll/internal/keypage"
	"keyroll/internal/longtest"
	"keyroll/internal/policy"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/roll"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// The model's acts are durable transactions, so there are few; -rapid.checks sets more.
func init() { flag.Set("rapid.checks", strconv.Itoa(longtest.Of(4, 40))) }

// model is the expected state of a tenant after any sequence of acts.
type model struct {
	*contenttest.Fixture
	policies []policy.Policy
	rolls    []roll.Roll
	boxes    []container.Container
}

// TestAnySequenceOfDeepRollsKeepsEveryItem writes, moves, backs up and rolls at
// any depth, in any order, and interrupts rolls at any point; after each act every
// item reads back as it was written. When all rolls have ended, no key in their scope
// is older than their watermark, and no container has two generations of its key.
func TestAnySequenceOfDeepRollsKeepsEveryItem(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		p := policytest.New(t, db)
		rapid.Check(t, func(r *rapid.T) {
			prefix := fmt.Sprint(store.NewID())
			m := &model{Fixture: contenttest.New(p.Neighbour(), p.Clock.Now)}
			m.policies = append(m.policies, m.MailboxPolicy(prefix+"a"), m.MailboxPolicy(prefix+"b"))
			r.Repeat(map[string]func(*rapid.T){
				"create": m.create, "receive": m.addMany, "state": m.state, "assign": m.assign, "follow": m.follow, "backup": m.backup,
				"refresh": m.refresh, "work": m.work, "breakOff": m.interrupt, "fold": m.fold, "compact": m.compact, "retire": m.retire, "": m.check,
			})
			for _, ro := range m.rolls {
				if m.Progress(ro).State == api.RollRunning {
					m.Finish(ro, api.RollFinished)
				}
			}
			m.check(r)
			m.rollAll()
		})
	})
}

func (m *model) box(t *rapid.T) container.Container {
	if len(m.boxes) == 0 {
		t.Skip("there is no mailbox")
	}
	return rapid.SampledFrom(m.boxes).Draw(t, "mailbox")
}

func (m *model) policyID(t *rapid.T) int64 {
	return rapid.SampledFrom([]int64{0, m.policies[0].ID, m.policies[1].ID}).Draw(t, "policy")
}

func (m *model) create(t *rapid.T) {
	for range rapid.IntRange(1, contenttest.Slots+1).Draw(t, "mailboxes") {
		m.boxes = append(m.boxes, m.Mailbox(m.policyID(t), fmt.Sprint("m", len(m.boxes)), rapid.IntRange(0, 2).Draw(t, "messages")))
	}
}

// addMany puts some messages into a mailbox at once, more than a page's contenttest.Slots.
func (m *model) addMany(t *rapid.T) {
	c := m.box(t)
	var text strings.Builder
	for i := range rapid.IntRange(1, 2*contenttest.Slots).Draw(t, "messages") {
		text.WriteString(contenttest.Message(len(m.Wrote[c.ID]) + i))
	}
	m.Import(c, text.String())
}

func (m *model) state(t *rapid.T) {
	state := rapid.SampledFrom([]envelope.Class{envelope.ClassActive, envelope.ClassInactive}).Draw(t, "state")
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

func (m *model) backup(t *rapid.T) {
	c := m.box(t)
	m.Must(m.Contents.Backup(m.Ctx, c, time.Time{}, func(_ *store.Tx, b backup.Backup) error {
		m.Wrote[b.ID] = m.Wrote[c.ID]
		return nil
	}))
}

func (m *model) refresh(t *rapid.T) {
	to := rapid.SampledFrom([]api.Depth{api.DepthPolicy, api.DepthContainer, api.DepthContent}).Draw(t, "depth")
	m.rolls = append(m.rolls, m.Begin(rapid.SampledFrom(m.policies).Draw(t, "policy"), to, roll.Options{}))
}

func (m *model) roll(t *rapid.T) roll.Roll {
	if len(m.rolls) == 0 {
		t.Skip("there is no roll")
	}
	return rapid.SampledFrom(m.rolls).Draw(t, "roll")
}

func (m *model) work(t *rapid.T) {
	ro := m.roll(t)
	running := m.Progress(ro).State == api.RollRunning
	if waits, err := m.Roller.Work(m.Ctx, ro); err != nil || waits {
		m.Fatalf("waits %v, %v", waits, err)
	}
	if p := m.Progress(ro); running && p.State != api.RollFinished {
		m.Fatalf("it is %s: %s", p.State, p.Message)
	}
}

// breakingStages cancels a context after a number of transactions of the deep stages.
type breakingStages struct {
	roll.Deep
	left int
	end  func()
}

func (b *breakingStages) Work(ctx context.Context, s roll.Share) (bool, error) {
	hold := s.LockRunning
	s.LockRunning = func(tx *store.Tx) error {
		if b.left--; b.left < 0 {
			b.end()
		}
		return hold(tx)
	}
	return b.Deep.Work(ctx, s)
}

// interrupt works on a roll until a transaction at which its process ends.
func (m *model) interrupt(t *rapid.T) {
	ro := m.roll(t)
	ctx, end := context.WithCancel(m.Ctx)
	defer end()
	dying := m.With(func(c *roll.Config) {
		c.Deep = &breakingStages{c.Deep, rapid.IntRange(0, 12).Draw(t, "transactions"), end}
	})
	if _, err := dying.Roller.Work(ctx, ro); err != nil && ctx.Err() == nil {
		m.Fatal(err)
	}
}

func (m *model) fold(t *rapid.T) {
	if len(m.boxes) > 0 {
		_, err := m.Contents.Renewer.Fold(m.Ctx, m.box(t))
		m.Must(err)
	}
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

// compact moves blobs, and deletes what was dropped and objects without other blobs.
func (m *model) compact(*rapid.T) {
	_, err := m.Contents.Compactor.Run(m.Ctx)
	m.Must(err)
	collectNow(m.Fixture, false)
}

func (m *model) retire(t *rapid.T) {
	_, err := m.Policies.Retire(m.Ctx, m.Tenant, rapid.SampledFrom(m.policies).Draw(t, "policy").ID)
	m.Must(err)
}

func (m *model) check(*rapid.T) {
	for id := range m.Wrote {
		m.WantMail(container.Container{ID: id, Tenant: m.Tenant})
	}
}

// rollAll rolls each policy once more at the deepest depth, and checks that no key in
// its scope is older than that roll, whatever happened before, and checks the ledger.
func (m *model) rollAll() {
	for _, pol := range m.policies {
		ro := m.Begin(m.Reload(pol), api.DepthContent, roll.Options{})
		m.Finish(ro, api.RollFinished)
		reached := ` FROM container c JOIN key_page p ON p.id = c.page WHERE c.tenant = ?1 AND p.class = ?2 AND p.parent = ?3`
		of := []any{m.Tenant, envelope.ClassActive, ro.Target, ro.Watermark}
		for what, query := range map[string]string{
			"with an older key":  `SELECT COUNT(*)` + reached + ` AND (c.keyed < ?4 OR c.older <> 0 OR c.renewed < ?4)`,
			"with an older blob": `SELECT COUNT(*) FROM item i JOIN blob b ON b.item = i.id WHERE b.id < ?4 AND i.container IN (SELECT c.id` + reached + `)`,
			"with blob keys elsewhere": `SELECT COUNT(*) FROM key_page k WHERE k.class = 8 AND k.parent IN (SELECT c.id` + reached +
				`) AND k.generation <> (SELECT c.generation FROM container c WHERE c.id = k.parent)`,
		} {
			if n := m.Number(query, of[:3+min(1, strings.Count(query, "?4"))]...); n != 0 {
				m.Errorf("%d containers %s", n, what)
			}
		}
		active := m.Number(`SELECT COUNT(*) FROM container WHERE tenant = ?1 AND policy = ?2 AND class = ?3`, m.Tenant, pol.ID, envelope.ClassActive)
		var counted int64
		for _, u := range m.Usage() {
			if u.Policy == pol.Name {
				counted = max(counted, u.Active)
			}
		}
		if counted != active {
			m.Errorf("the ledger counts %d active mailboxes of policy %q, there are %d", counted, pol.Name, active)
		}
	}
	m.Must(m.Contents.Backups.DeleteLeftoverRows(m.Ctx, m.Tenant))
	named, stored := m.Number(`SELECT COUNT(DISTINCT CASE WHEN object = 0 THEN id ELSE object END) FROM blob WHERE tenant = ?1`, m.Tenant), int64(0)
	m.Must(m.Blobs.List(m.Ctx, "", func(string, int64) error { stored++; return nil }))
	if stored < named {
		m.Errorf("%d objects are stored, %d are named", stored, named)
	}
}
