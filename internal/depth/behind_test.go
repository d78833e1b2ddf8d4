package depth_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/content/contenttest"
	"keyroll/internal/depth"
	"keyroll/internal/roll"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// onOneDatabase runs a test like each, but on only one of the databases.
func onOneDatabase(t *testing.T, test func(w *contenttest.Fixture)) {
	test(newFixture(t, storetest.One(t)))
}

// hookedStages is deep stages that call a function once, when the last stage has no work
// left.
type hookedStages struct {
	roll.Deep
	stage   api.RollStage
	happens func()
}

func (m *hookedStages) Remaining(ctx context.Context, tx *store.Tx, stage api.RollStage, sc roll.Scope, limit int) ([]int64, error) {
	left, err := m.Deep.Remaining(ctx, tx, stage, sc, limit)
	if happens := m.happens; stage == m.stage && len(left) == 0 && happens != nil {
		m.happens = nil
		happens()
	}
	return left, err
}

// duringStage gives w a roller that calls happens during a stage.
func duringStage(w *contenttest.Fixture, stage api.RollStage, happens func()) {
	w.Roller = w.With(func(c *roll.Config) {
		c.Deep = &hookedStages{depth.New(w.DB, w.Containers.Containers, w.Contents.Renewer), stage, happens}
	}).Roller
}

func TestRollEndsOnlyWhenContainersAssignedMeanwhileHaveNewKeys(t *testing.T) {
	each(t, func(w *contenttest.Fixture) {
		pol := w.MailboxPolicy("p")
		first, late := w.Mailbox(pol.ID, "first", 2), w.Mailbox(0, "late", 3)
		duringStage(w, api.StageContent, func() {
			_, err := w.Containers.Assign(w.Ctx, w.Tenant, late, pol.ID, api.ForRecovery)
			w.Must(err)
		})
		ro := w.Begin(pol, api.DepthContent, roll.Options{})
		if waits, err := w.Roller.Work(w.Ctx, ro); err != nil || !waits {
			w.Fatalf("the roll has something left: waits %v, error %v", waits, err)
		}
		w.Finish(ro, api.RollFinished)
		if o := w.Key(late); o.Generation != 2 {
			w.Errorf("the late container has a key of generation %d", o.Generation)
		}
		if n := w.Number(`SELECT COUNT(*) FROM blob WHERE id < ?1`, ro.Watermark); n != 0 {
			w.Errorf("%d blobs have older keys", n)
		}
		w.WantMail(first, late)
		wantNothingLeft(w)
	})
}

func TestLateNodeDoesNotChangeSkippedContainers(t *testing.T) {
	onOneDatabase(t, func(w *contenttest.Fixture) {
		pol := w.MailboxPolicy("p")
		w.Mailbox(pol.ID, "sound", 2)
		broken := w.Mailbox(pol.ID, "broken", 2)
		w.Exec(`UPDATE key_page SET body = ?3 WHERE tenant = ?1 AND parent = ?2`, w.Tenant, broken.ID, []byte("rot"))
		ro := w.Begin(pol, api.DepthContainer, roll.Options{})
		other := w.Roller
		w = w.With(func(c *roll.Config) {
			c.Deep = idleStages{func() {
				_, err := other.Work(w.Ctx, ro)
				w.Must(err)
			}}
		})
		p := w.Finish(ro, api.RollFailed)
		if p.SkippedCount == 0 || len(p.Skipped) == 0 || !strings.Contains(p.Skipped[0], "key page") {
			w.Errorf("skipped: %d, %q", p.SkippedCount, p.Skipped)
		}
	})
}

// idleStages is the deep stages of a node that finds no work because another node has ended
// the roll.
type idleStages struct{ ends func() }

func (b idleStages) Size(context.Context, *store.Tx, api.RollStage, roll.Scope) (int64, error) {
	return 0, nil
}
func (b idleStages) Remaining(context.Context, *store.Tx, api.RollStage, roll.Scope, int) ([]int64, error) {
	return nil, nil
}
func (b idleStages) Work(context.Context, roll.Share) (bool, error) { b.ends(); return false, nil }

// Damaged pages and items are skipped and reported, all others are re-encrypted, and
// after a repair the roll continues.
func TestDeepRollContinuesAfterDamage(t *testing.T) {
	for to, damage := range map[api.Depth]string{
		api.DepthContainer: `UPDATE key_page SET body = ?2 WHERE class = 8 AND parent = ?1`,
		api.DepthContent:   `UPDATE item SET metadata = ?2 WHERE container = ?1`,
	} {
		t.Run(string(to), func(t *testing.T) {
			each(t, func(w *contenttest.Fixture) {
				pol := w.MailboxPolicy("p")
				var list []container.Container
				for i := range 5 {
					list = append(list, w.Mailbox(pol.ID, fmt.Sprint("m", i), 3))
				}
				broken := list[2]
				w.Exec(damage, broken.ID, []byte("rot"))
				p := w.Finish(w.Begin(pol, to, roll.Options{}), api.RollFailed)
				if p.Done != 4 || p.Remaining != 1 || p.SkippedCount == 0 || !strings.Contains(p.Message, "cannot be decrypted") {
					w.Errorf("%+v", p)
				}
				w.WantMail(list[0], list[1], list[3], list[4])
				for _, c := range list {
					if o := w.Key(c); o.Generation != 2 {
						w.Errorf("container %d has generation %d", c.ID, o.Generation)
					}
				}
			})
		})
	}
}

// A unit of large messages or files has only a few of them, so its key page is nearly empty.
func TestDepthContentLeavesFewKeyPages(t *testing.T) {
	onOneDatabase(t, func(w *contenttest.Fixture) {
		w.Contents = contenttest.Connect(contenttest.Config{DB: w.DB, Containers: w.Containers.Containers, Blobs: w.Blobs, Slots: 16, Now: w.Clock.Now})
		duringStage(w, "", nil)
		pol := w.MailboxPolicy("p")
		c := w.Mailbox(pol.ID, "m", 0)
		for range 3 {
			w.Import(c, contenttest.Message(17<<20))
		}
		w.Finish(w.Begin(pol, api.DepthContent, roll.Options{}), api.RollFinished)
		if n := w.Number(`SELECT COUNT(*) FROM key_page WHERE tenant = ?1 AND parent = ?2`, w.Tenant, c.ID); n != 1 {
			w.Errorf("3 blob keys are in %d pages", n)
		}
		w.WantMail(c)
		wantNothingLeft(w)
	})
}
