package roll_test

import (
	"slices"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/policy"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/roll"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// beginFrom begins a roll of a source's containers to a policy.
func (w tenant) beginFrom(to policy.Policy, source int64, classes ...envelope.Class) (ro roll.Roll, err error) {
	w.Helper()
	err = w.DB.InTx(w.Ctx, func(tx *store.Tx) error {
		rev, err := w.Policies.RevisionOf(w.Ctx, tx, w.Tenant, to.Current.ID)
		if err != nil {
			return err
		}
		ro, err = roll.Begin(w.Ctx, tx, w.Policies, roll.Start{Policy: to, Source: source, Classes: classes, Revision: rev.GUID}, w.Clock.Now())
		return err
	})
	return ro, err
}

// The newer roll takes over the work of a superseded one, source and classes included,
// even over several rolls.
func TestNewerRollMovesWhatAnOlderOneDidNot(t *testing.T) {
	storetest.KeepAnswers(t)
	each(t, func(w tenant) {
		a, b := w.MailboxPolicy("a"), w.MailboxPolicy("b")
		boxes := w.mailboxes(a.ID, numbered("m", 9)...)
		idle, err := w.Containers.SetState(w.Ctx, w.Tenant, boxes[0], envelope.ClassInactive)
		w.Must(err)
		first, err := w.beginFrom(b, a.ID, envelope.ClassActive, envelope.ClassInactive)
		w.Must(err)
		if first.Total != 9 {
			t.Errorf("total %d", first.Total)
		}
		w.Must(w.SetState(first, api.RollPaused))
		second, third := w.begin(b), w.begin(b)
		for _, ro := range []roll.Roll{first, second} {
			if now := w.ReloadRoll(ro); now.State != api.RollSuperseded {
				t.Errorf("an older roll is %s", now.State)
			}
		}
		if third.Source != a.ID || third.Total != 9 || !slices.Contains(third.Classes, envelope.ClassInactive) {
			t.Errorf("the newest roll: %+v", third)
		}
		if p := w.Progress(third); p.Source != "a" || p.Remaining != 9 {
			t.Errorf("its progress: %+v", p)
		}
		w.Finish(third, api.RollFinished)
		for _, c := range append(boxes[1:], idle) {
			if w.under(c) != w.current(b) {
				t.Errorf("%s is under policy key %d", c.Name, w.under(c))
			}
		}
		if got := w.settled.policies; len(got) != 2 || !slices.Contains(got, a.ID) {
			t.Errorf("settled %v", got)
		}
		// A roll that has ended leaves nothing.
		if next := w.begin(b); next.Source != 0 || slices.Contains(next.Classes, envelope.ClassInactive) {
			t.Errorf("the roll after it: %+v", next)
		}
	})
}

func TestTwoSourcesAtOnceAreRefused(t *testing.T) {
	each(t, func(w tenant) {
		a, b, c := w.MailboxPolicy("a"), w.MailboxPolicy("b"), w.MailboxPolicy("c")
		w.mailboxes(a.ID, numbered("a", 3)...)
		w.mailboxes(c.ID, numbered("c", 3)...)
		first, err := w.beginFrom(b, a.ID)
		w.Must(err)
		before := w.Dump("roll")
		_, err = w.beginFrom(b, c.ID)
		policytest.Refuses(t, err, api.RollInProgress)
		if _, detail, hint := fail.Public(err); !strings.Contains(detail, `"b"`) || !strings.Contains(hint, "roll watch") {
			t.Errorf("%s; %s", detail, hint)
		}
		if w.Dump("roll") != before {
			t.Error("the refusal changed something")
		}
		again, err := w.beginFrom(b, a.ID) // the same source does not count as a second one
		w.Must(err)
		if w.ReloadRoll(first).State != api.RollSuperseded {
			t.Error("the older roll goes on")
		}
		w.Finish(again, api.RollFinished)
		last, err := w.beginFrom(b, c.ID)
		w.Must(err)
		w.Finish(last, api.RollFinished)
	})
}

// The rolls to a policy end when it is left, even one under way: it writes nothing more,
// and containers that it did not move stay where they were.
func TestLeavingAPolicyStopsRollsToIt(t *testing.T) {
	each(t, func(w tenant) {
		a, b := w.MailboxPolicy("a"), w.MailboxPolicy("b")
		boxes := w.mailboxes(a.ID, numbered("m", 5*testSlots)...)
		w = w.beforeReseal(func(n int) {
			if n == 5 { // the pipeline is four pages ahead of what is written at most
				w.InTx(func(tx *store.Tx) error {
					left, _, err := w.Policies.Leave(w.Ctx, tx, b)
					if err != nil {
						return err
					}
					return roll.Leave(w.Ctx, tx, left, w.Clock.Now())
				})
			}
		})
		ro, err := w.beginFrom(b, a.ID)
		w.Must(err)
		if done := w.Finish(ro, api.RollSuperseded); done.Message != "its policy was left" {
			t.Errorf("its message is %q", done.Message)
		}
		stayed := 0
		for _, c := range boxes {
			if w.under(c) == a.Current.ID {
				stayed++
			}
		}
		if stayed == 0 || stayed == len(boxes) {
			t.Errorf("%d of %d stayed", stayed, len(boxes))
		}
		w.keys()
	})
}
