package container_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/envelope"
	"keyroll/internal/keypage"
	"keyroll/internal/store"
)

var mailboxStates = []envelope.Class{envelope.ClassActive, envelope.ClassInactive, envelope.ClassDisconnected, envelope.ClassDisabled}

func TestAssignMovesTheKeyAtOnceAndKeepsIt(t *testing.T) {
	each(t, func(w fixture) {
		own := w.policies.Create(t, w.tenant, "mailbox")
		list := w.mailboxes("alice", "bob", "carol")
		for i, c := range list {
			if i > 0 {
				var err error
				c, err = w.all.SetState(w.ctx, w.tenant, c, mailboxStates[i])
				w.must(err)
			}
			key, _ := w.key(c)
			assigned, err := w.all.Assign(w.ctx, w.tenant, c, own, api.ForRecovery)
			w.must(err)
			if assigned.Policy != own || assigned.State != c.State || assigned.Name != c.Name || assigned != w.find(c.Name) {
				t.Errorf("assigned %+v", assigned)
			}
			now, under := w.key(c) // c is stale: it names the old page
			if !now.Equal(key) || under != w.currentOf(own) {
				t.Errorf("%s: under %d, want %d; same key: %v", c.Name, under, w.currentOf(own), now.Equal(key))
			}
			back, err := w.all.Assign(w.ctx, w.tenant, assigned, 0, api.ForRecovery)
			w.must(err)
			now, under = w.key(c)
			if back.Policy != 0 || !now.Equal(key) || under != w.currentOf(w.managed) {
				t.Errorf("%s went back to %+v under %d", c.Name, back, under)
			}
		}
		w.must(w.checkSlots())
	})
}

func TestAssignOfTheDefaultPolicyMovesNothing(t *testing.T) {
	each(t, func(w fixture) {
		c := w.mailboxes("alice", "bob")[0]
		pages := fmt.Sprint(w.pages())
		c, err := w.all.Assign(w.ctx, w.tenant, c, w.managed, api.ForRecovery)
		w.must(err)
		if got := w.find("alice"); got != c || got.Policy != w.managed || fmt.Sprint(w.pages()) != pages {
			t.Errorf("assigned %+v", got)
		}
	})
}

func TestSitesMoveUnderTheSitePolicyWithoutAnAssignment(t *testing.T) {
	each(t, func(w fixture) {
		create := func(url string) container.Container {
			c, err := w.all.Create(w.ctx, w.tenant, container.Site, url, 0)
			w.must(err)
			return c
		}
		before := create("https://contoso.com/before")
		sites := w.policies.Create(t, w.tenant, "site")
		after := create("https://contoso.com/after")
		if p := w.parentOfKey(before); p.ID != w.currentOf(w.managed) {
			t.Error("the older site moved by itself")
		}
		if p := w.parentOfKey(after); p.ID != w.currentOf(sites) {
			t.Error("the newer site is not under the site policy")
		}
		if p := w.parentOfKey(w.mailbox("alice", 0)); p.ID != w.currentOf(w.managed) {
			t.Error("a mailbox is under the site policy")
		}
		_, err := w.all.SetState(w.ctx, w.tenant, after, envelope.ClassInactive)
		w.wantCode(err, api.InvalidArgument)
	})
}

func TestStatesKeepTheirPolicyKeyUntilActiveAgain(t *testing.T) {
	each(t, func(w fixture) {
		c := w.mailboxes("alice", "bob")[0]
		key, old := w.key(c)
		next := w.policies.Refresh(t, w.tenant, w.managed)
		for _, state := range []envelope.Class{envelope.ClassInactive, envelope.ClassDisconnected, envelope.ClassDisabled, envelope.ClassDisabled, envelope.ClassActive} {
			var err error
			c, err = w.all.SetState(w.ctx, w.tenant, c, state)
			w.must(err)
			if got := w.find("alice"); got != c || got.State != state {
				t.Errorf("%v: stored %+v, want %+v", state, got, c)
			}
			want := old
			if state == envelope.ClassActive {
				want = next.ID
			}
			if now, under := w.key(c); !now.Equal(key) || under != want {
				t.Errorf("%v: under %d, want %d", state, under, want)
			}
			w.must(w.checkSlots())
		}
		// bob was active all the time: only the roll moves him.
		bob, err := w.all.SetState(w.ctx, w.tenant, w.find("bob"), envelope.ClassActive)
		w.must(err)
		if p := w.parentOfKey(bob); p.ID != old {
			t.Error("an active mailbox that stays active moved")
		}
		_, err = w.all.SetState(w.ctx, w.tenant, c, envelope.ClassSite)
		w.wantCode(err, api.InvalidArgument)
	})
}

func TestAccessMovesAKeyThatNoRollMoves(t *testing.T) {
	each(t, func(w fixture) {
		own := w.policies.Create(t, w.tenant, "mailbox")
		list := w.mailboxes("active", "inactive", "disconnected", "disabled")
		var keys []*envelope.Key
		for i := range list {
			var err error
			list[i], err = w.all.Assign(w.ctx, w.tenant, list[i], own, api.ForRecovery)
			w.must(err)
			list[i], err = w.all.SetState(w.ctx, w.tenant, list[i], mailboxStates[i])
			w.must(err)
			key, _ := w.key(list[i])
			keys = append(keys, key)
			if moved, err := w.all.MoveKeyAfterAccess(w.ctx, list[i]); moved || err != nil {
				t.Errorf("%s moved before the refresh: %v", list[i].Name, err)
			}
		}
		old := w.currentOf(own)
		next := w.policies.Refresh(t, w.tenant, own)
		for i, c := range list {
			moved, err := w.all.MoveKeyAfterAccess(w.ctx, c)
			w.must(err)
			now, under := w.key(c)
			follows := c.State != envelope.ClassActive
			if moved != follows || (under == next.ID) != follows || (under == old) == follows || !now.Equal(keys[i]) {
				t.Errorf("%s: moved is %v, under %d", c.Name, moved, under)
			}
			if got := w.find(c.Name); got.State != c.State || got.Policy != own {
				t.Errorf("%s became %+v", c.Name, got)
			}
			if again, err := w.all.MoveKeyAfterAccess(w.ctx, c); again || err != nil {
				t.Errorf("%s moved twice: %v", c.Name, err)
			}
		}
		w.must(w.checkSlots())
	})
}

// TestLostSwapOfMoveKeyAfterAccessIsNoError lets another transaction change the rows that Follow
// has read, before MoveKeyAfterAccess's own transaction.
func TestConflictWhileAKeyMovesAfterAccessIsNoError(t *testing.T) {
	each(t, func(w fixture) {
		c, err := w.all.SetState(w.ctx, w.tenant, w.mailbox("alice", 0), envelope.ClassInactive)
		w.must(err)
		key, _ := w.key(c)
		rivals := []func(){
			func() { w.policies.Refresh(t, w.tenant, w.managed) },
			func() {
				_, err := w.policies.Roll(w.ctx, w.tenant, w.managed, 100, envelope.ClassInactive)
				w.must(err)
			},
			func() { c, err = w.all.SetState(w.ctx, w.tenant, c, envelope.ClassDisabled); w.must(err) },
		}
		for i, rival := range rivals {
			w.policies.Refresh(t, w.tenant, w.managed)
			w.beforeNextOpen(rival)
			moved, err := w.all.MoveKeyAfterAccess(w.ctx, c)
			if moved || err != nil {
				t.Errorf("rival %d: moved is %v, %v", i, moved, err)
			}
			if now, _ := w.key(c); !now.Equal(key) {
				t.Errorf("rival %d: another key", i)
			}
			w.must(w.checkSlots())
		}
		if moved, err := w.all.MoveKeyAfterAccess(w.ctx, c); !moved || err != nil {
			t.Errorf("the next access: moved is %v, %v", moved, err)
		}
	})
}

// beforeNextOpen runs rival just before the next policy key is opened: after an operation has
// read its rows and before its transaction.
func (w fixture) beforeNextOpen(rival func()) {
	done := false
	w.policies.Opening = func(int64) error {
		if !done {
			done = true
			rival()
		}
		return nil
	}
}

func TestMoveDetectsARefreshBetweenReadingAndWriting(t *testing.T) {
	each(t, func(w fixture) {
		own := w.policies.Create(t, w.tenant, "mailbox")
		refresh := func() { w.policies.Refresh(t, w.tenant, own) }

		w.beforeNextOpen(refresh)
		c := w.mailbox("created", own)
		if p := w.parentOfKey(c); p.ID != w.currentOf(own) {
			t.Error("created under an older policy key")
		}
		w.beforeNextOpen(refresh)
		w.must(w.all.CreateMany(w.ctx, w.tenant, container.Mailbox, []string{"many"}, own))
		if p := w.parentOfKey(w.find("many")); p.ID != w.currentOf(own) {
			t.Error("created in bulk under an older policy key")
		}
		w.beforeNextOpen(refresh)
		c, err := w.all.Assign(w.ctx, w.tenant, w.mailbox("assigned", 0), own, api.ForRecovery)
		w.must(err)
		w.beforeNextOpen(refresh)
		c, err = w.all.Assign(w.ctx, w.tenant, c, own, api.ForRecovery)
		w.must(err)
		if p := w.parentOfKey(c); p.ID != w.currentOf(own) {
			t.Error("assigned under an older policy key")
		}
		c, err = w.all.SetState(w.ctx, w.tenant, c, envelope.ClassInactive)
		w.must(err)
		w.beforeNextOpen(refresh)
		c, err = w.all.SetState(w.ctx, w.tenant, c, envelope.ClassActive)
		w.must(err)
		if p := w.parentOfKey(c); p.ID != w.currentOf(own) {
			t.Error("active again under an older policy key")
		}
		// The default itself may become another policy.
		w.beforeNextOpen(func() { w.policies.Create(t, w.tenant, "site") })
		site, err := w.all.Create(w.ctx, w.tenant, container.Site, "https://contoso.com", 0)
		w.must(err)
		if p := w.parentOfKey(site); p.ID == w.currentOf(w.managed) {
			t.Error("created under a policy that is no longer the default")
		}
		w.must(w.checkSlots())
	})
}

func TestEndlessChangesEndInAConflict(t *testing.T) {
	each(t, func(w fixture) {
		c := w.mailbox("alice", 0)
		own := w.policies.Create(t, w.tenant, "mailbox")
		var rivals int
		w.policies.Opening = func(int64) error { rivals++; w.policies.Refresh(t, w.tenant, own); return nil }
		before := w.dump()
		_, err := w.all.Assign(w.ctx, w.tenant, c, own, api.ForRecovery)
		w.wantCode(err, api.Conflict)
		_, err = w.all.Create(w.ctx, w.tenant, container.Mailbox, "bob", own)
		w.wantCode(err, api.Conflict)
		if rivals == 0 || w.dump() != before {
			t.Errorf("%d rivals; changed is %v", rivals, w.dump() != before)
		}
	})
}

func TestOpenKeyReadsAgainWhenItsPolicyKeyWasRetired(t *testing.T) {
	each(t, func(w fixture) {
		c := w.mailbox("alice", 0)
		key, old := w.key(c)
		w.beforeNextOpen(func() {
			w.policies.Refresh(t, w.tenant, w.managed)
			_, err := w.policies.Roll(w.ctx, w.tenant, w.managed, 100, envelope.ClassActive)
			w.must(err)
			w.policies.Drop(old)
		})
		now, under := w.key(c)
		if !now.Equal(key) || under == old {
			t.Errorf("opened under %d", under)
		}
	})
}

// TestMovesFromOnePageDuringARollLoseNoKey moves the containers of few pages
// concurrently, back and forth between policies and states, while both policies are
// rolled and pages are folded.
func TestMovesFromOnePageDuringARollLoseNoKey(t *testing.T) {
	each(t, func(w fixture) {
		const movers, moves, refreshes = 8, 6, 4
		policies := []int64{w.managed, w.policies.Create(t, w.tenant, "mailbox")}
		var names []string
		for i := range movers {
			names = append(names, fmt.Sprint("user", i))
		}
		list := w.mailboxes(names...)
		var keys []*envelope.Key
		for _, c := range list {
			key, _ := w.key(c)
			keys = append(keys, key)
		}
		check := func(err error) {
			if err != nil {
				t.Error(err)
			}
		}
		var workers sync.WaitGroup
		for i, c := range list {
			workers.Go(func() {
				for n := range moves {
					var err error
					if n%3 == 2 {
						c, err = w.all.SetState(w.ctx, w.tenant, c, mailboxStates[n/3*(i%4)])
					} else {
						c, err = w.all.Assign(w.ctx, w.tenant, c, policies[(i+n)%2], api.ForRecovery)
					}
					check(err)
					_, err = w.all.MoveKeyAfterAccess(w.ctx, c)
					check(err)
					o, err := w.all.OpenKey(w.ctx, c, api.ByUser)
					check(err)
					if err == nil && !o.Key.Equal(keys[i]) {
						t.Errorf("%s has another key", c.Name)
					}
				}
			})
		}
		for _, id := range policies {
			workers.Go(func() {
				for range refreshes {
					w.policies.Refresh(t, w.tenant, id)
					for !w.rollFinished(id) {
						_, err := w.policies.Roll(w.ctx, w.tenant, id, 3, envelope.ClassActive)
						check(err)
					}
					_, err := w.all.Fold(w.ctx, w.tenant, w.currentParent(id), envelope.ClassActive)
					check(err)
				}
			})
		}
		workers.Wait()
		w.must(w.checkSlots())
		for _, id := range policies {
			// A finished roll stays finished: no key was added to an older policy key later.
			if !w.rollFinished(id) {
				t.Errorf("an active mailbox came under an older policy key of %d", id)
			}
		}
		for i, c := range list {
			if now, _ := w.key(c); !now.Equal(keys[i]) {
				t.Errorf("%s has another key", c.Name)
			}
		}
	})
}

// rollFinished reports, under the policy's lock, whether no active mailbox is under an
// older policy key.
func (w fixture) rollFinished(id int64) (yes bool) {
	err := w.db.InTx(w.ctx, func(tx *store.Tx) error {
		if err := tx.Lock(w.ctx, id, true); err != nil {
			return err
		}
		older, err := w.policies.Older(w.ctx, tx, w.tenant, id)
		if err != nil {
			return err
		}
		pages, _, err := keypage.Count(w.ctx, tx, w.tenant, older, []envelope.Class{envelope.ClassActive})
		yes = pages == 0
		return err
	})
	if err != nil {
		w.Error(err)
		return true
	}
	return yes
}

// currentParent returns a policy's current policy key.
func (w fixture) currentParent(id int64) (p keypage.Parent) {
	err := w.db.ViewOnce(w.ctx, func(tx *store.Tx) error {
		k, err := w.policies.Current(w.ctx, tx, w.tenant, id)
		p = keypage.Parent{ID: k.ID, Generation: k.Generation}
		return err
	})
	if err != nil {
		w.Error(err)
	}
	return p
}

// TestRefreshWaitsWhileAKeyMovesUnderItsPolicy tries to take a policy's lock, as a
// refresh does, from within each transaction that puts a key under it.
func TestRefreshWaitsWhileAKeyMovesUnderItsPolicy(t *testing.T) {
	each(t, func(w fixture) {
		own := w.policies.Create(t, w.tenant, "mailbox")
		refused := func(policies ...int64) func(*store.Tx, container.Container) error {
			return func(*store.Tx, container.Container) error {
				for _, id := range policies {
					ctx, stop := context.WithTimeout(w.ctx, 50*time.Millisecond)
					err := w.db.InTx(ctx, func(tx *store.Tx) error { return tx.Lock(ctx, id, true) })
					stop()
					if err == nil {
						t.Errorf("policy %d could be refreshed", id)
					}
				}
				return nil
			}
		}
		c, err := w.all.Create(w.ctx, w.tenant, container.Mailbox, "alice", own, refused(own))
		w.must(err)
		_, err = w.all.Create(w.ctx, w.tenant, container.Mailbox, "bob", 0, refused(w.managed))
		w.must(err)
		c, err = w.all.Assign(w.ctx, w.tenant, c, 0, api.ForRecovery, refused(w.managed))
		w.must(err)
		c, err = w.all.Assign(w.ctx, w.tenant, c, own, api.ForRecovery, refused(own))
		w.must(err)
		c, err = w.all.SetState(w.ctx, w.tenant, c, envelope.ClassInactive)
		w.must(err)
		_, err = w.all.SetState(w.ctx, w.tenant, c, envelope.ClassActive, refused(own))
		w.must(err)
		sites := w.policies.Create(t, w.tenant, "site")
		_, err = w.all.Create(w.ctx, w.tenant, container.Site, "https://contoso.com", 0, refused(w.managed, sites))
		w.must(err)
	})
}
