package roll_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/envelope"
	"keyroll/internal/policy"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/roll"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// pageAtATime is the highest limit at which a roller's batches have one page.
func pageAtATime() *rate.Limiter { return rate.NewLimiter(51_200, testSlots) }

func TestRollMovesExactlyTheClassesOfItsProfile(t *testing.T) {
	each(t, func(w tenant) {
		mail, other := w.MailboxPolicy("p"), w.MailboxPolicy("other")
		states := []envelope.Class{envelope.ClassActive, envelope.ClassInactive, envelope.ClassDisconnected, envelope.ClassDisabled}
		var boxes []container.Container
		for i, c := range w.mailboxes(mail.ID, numbered("a", 24)...) {
			state := states[i%len(states)]
			if state != envelope.ClassActive {
				var err error
				c, err = w.Containers.SetState(w.Ctx, w.Tenant, c, state)
				w.Must(err)
			}
			boxes = append(boxes, c)
		}
		w.mailboxes(other.ID, numbered("b", 5)...)
		w.mailboxes(0, numbered("c", 5)...)
		w.Site("x")
		w.Put(mail.Current, envelope.ClassBackup, 2)
		keys, before := w.keys(), w.pages()
		ro := w.begin(mail)
		if ro.Total != 6 {
			t.Errorf("total %d, want 6", ro.Total)
		}
		done := w.Finish(ro, api.RollFinished)
		if done.Finished == nil || done.Message != "" {
			t.Errorf("finished at %v: %q", done.Finished, done.Message)
		}
		moved := 0
		for id, page := range w.pages() {
			was := before[id]
			if was.Parent != mail.Current.ID || was.Class != envelope.ClassActive {
				if page.Version != was.Version || !bytes.Equal(page.Body, was.Body) || page.Parent != was.Parent {
					t.Errorf("a page of class %v under policy key %d was touched", was.Class, was.Parent)
				}
				continue
			}
			moved++
			if page.Parent != w.current(mail) || page.Version != was.Version+1 || page.Count != was.Count || bytes.Equal(page.Body, was.Body) {
				t.Errorf("an active page is %+v", page)
			}
		}
		if moved == 0 || len(w.pages()) != len(before) {
			t.Errorf("%d pages moved; %d pages, %d before", moved, len(w.pages()), len(before))
		}
		for _, c := range boxes {
			if active := c.State == envelope.ClassActive; active != (w.under(c) == w.current(mail)) {
				t.Errorf("a mailbox of state %v is under policy key %d", c.State, w.under(c))
			}
		}
		w.Policies.Close()
		w.wantSameKeys(keys, w.keys())
		if got := w.settled.policies; len(got) != 1 || got[0] != mail.ID {
			t.Errorf("settled %v", got)
		}
	})
}

func TestRegistrationMovesEverySiteFromTheServiceManagedPolicy(t *testing.T) {
	each(t, func(w tenant) {
		for i := range 9 {
			w.Site(fmt.Sprint("before", i))
		}
		w.mailboxes(0, numbered("a", 3)...)
		keys := w.keys()
		var pol policy.Policy
		w = w.beforeReseal(func(n int) {
			if n == 2 { // created while the roll is on its way
				w.Site("meanwhile")
			}
		})
		pol, ro := w.register()
		if ro.Total != 9 {
			t.Errorf("total %d, want 9", ro.Total)
		}
		w.Site("between")
		w.Finish(ro, api.RollFinished)
		w.Site("after")
		all, err := w.Containers.List(w.Ctx, w.Tenant, container.Site, 0, 100)
		w.Must(err)
		if len(all) != 12 {
			t.Errorf("%d sites", len(all))
		}
		for _, c := range all {
			if w.under(c) != pol.Current.ID {
				t.Errorf("%s is under policy key %d", c.Name, w.under(c))
			}
		}
		boxes, err := w.Containers.List(w.Ctx, w.Tenant, container.Mailbox, 0, 100)
		w.Must(err)
		for _, c := range boxes {
			if w.under(c) == pol.Current.ID {
				t.Errorf("%s came under the policy of sites", c.Name)
			}
		}
		now := w.keys()
		for id, key := range keys {
			if !key.Equal(now[id]) {
				t.Errorf("container %d has another key than before", id)
			}
		}
		if got := w.settled.policies; len(got) != 2 {
			t.Errorf("settled %v, want the site policy and the one that the sites left", got)
		}
	})
}

func TestRollWithoutContainersFinishesAtOnce(t *testing.T) {
	each(t, func(w tenant) {
		ro := w.begin(w.MailboxPolicy("p"))
		w.Finish(ro, api.RollFinished)
		p := w.Progress(ro)
		if p.Total != 0 || p.PercentComplete != 100 || p.Finished == nil || !p.Deadline.Equal(ro.Started.Add(72*time.Hour)) {
			t.Errorf("progress %+v", p)
		}
	})
}

func TestRollsOfAnotherTenantAreNotFound(t *testing.T) {
	w := newTenant(policytest.New(t, storetest.One(t)))
	ro := w.begin(w.MailboxPolicy("p"))
	other := w.Neighbour()
	w.View(func(tx *store.Tx) error {
		_, err := roll.Find(w.Ctx, tx, other.Tenant, fmt.Sprint(ro.ID))
		policytest.Refuses(t, err, api.NotFound)
		list, err := roll.List(w.Ctx, tx, other.Tenant, 0, 1000)
		if len(list) != 0 {
			t.Error("another tenant's roll is listed")
		}
		return err
	})
	stolen := ro
	stolen.Tenant = other.Tenant
	err := w.DB.InTx(w.Ctx, func(tx *store.Tx) error { return roll.SetState(w.Ctx, tx, stolen, api.RollPaused) })
	policytest.Refuses(t, err, api.Conflict)
	for _, id := range []string{"", "x", "1x", "0", "99999999999999999999"} {
		w.View(func(tx *store.Tx) error {
			if _, err := roll.Find(w.Ctx, tx, w.Tenant, id); err == nil {
				t.Errorf("%q is a roll", id)
			}
			return nil
		})
	}
}
