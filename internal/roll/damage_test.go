package roll_test

import (
	"fmt"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/envelope"
)

func TestDamagedPageDelaysNoOtherAndTheRollContinuesAfterItsRepair(t *testing.T) {
	each(t, func(w tenant) {
		pol := w.MailboxPolicy("p")
		boxes := w.mailboxes(pol.ID, numbered("a", 5*testSlots)...)
		keys := w.keys()
		broken := boxes[2*testSlots].Page
		repair := w.damage(broken)
		ro := w.begin(pol)
		failed := w.Finish(ro, api.RollFailed)
		if !strings.Contains(failed.Message, fmt.Sprint(broken)) || failed.Finished == nil {
			t.Errorf("it failed at %v: %q", failed.Finished, failed.Message)
		}
		for id, p := range w.pages() {
			if p.Class == envelope.ClassActive && (p.Parent != ro.Target) != (id == broken) {
				t.Errorf("page %d is under policy key %d", id, p.Parent)
			}
		}
		skips := func(when string) {
			t.Helper()
			p := w.Progress(ro)
			if p.Remaining != testSlots || p.Done != 4*testSlots || p.SkippedCount != 1 || len(p.Skipped) != 1 || !strings.HasPrefix(p.Skipped[0], fmt.Sprintf("key page %d: ", broken)) {
				t.Errorf("%s: progress %+v", when, p)
			}
		}
		skips("failed")
		w.Must(w.SetState(ro, api.RollRunning))
		if p := w.Progress(ro); p.SkippedCount != 0 {
			t.Errorf("resumed: it skips %q before it met anything", p.Skipped)
		}
		w.Finish(ro, api.RollFailed) // nothing was repaired
		skips("failed again")
		repair()
		w.Must(w.SetState(ro, api.RollRunning))
		if done := w.Finish(ro, api.RollFinished); done.Message != "" {
			t.Errorf("finished: %q", done.Message)
		}
		if p := w.Progress(ro); p.SkippedCount != 0 || p.Skipped != nil {
			t.Errorf("finished: it skips %q", p.Skipped)
		}
		w.wantSameKeys(keys, w.keys())
	})
}

// Objects that a roll cannot decrypt are reported while it runs, the first one by name.
func TestSkippedContainersAreReportedWhileTheRollRuns(t *testing.T) {
	each(t, func(w tenant) {
		pol := w.MailboxPolicy("p")
		boxes := w.mailboxes(pol.ID, numbered("a", 25*testSlots)...)
		for i := range 22 {
			w.damage(boxes[i*testSlots].Page)
		}
		ro := w.begin(pol)
		told := int64(0)
		w = w.beforeReseal(func(n int) {
			if n == 25 {
				told = w.Progress(ro).SkippedCount
			}
		})
		w.Finish(ro, api.RollFailed)
		if p := w.Progress(ro); told == 0 || p.SkippedCount != 22 || len(p.Skipped) != 20 {
			t.Errorf("on its way: %d; at its end: %+v", told, p)
		}
	})
}

// An altered revision prevents moving the containers under its policy key, and no others.
func TestDamagedPolicyKeyDelaysNoOther(t *testing.T) {
	each(t, func(w tenant) {
		pol := w.MailboxPolicy("p")
		w.mailboxes(pol.ID, numbered("a", 2*testSlots)...)
		first := pol.Current
		older := w.begin(pol)
		w.mailboxes(pol.ID, numbered("b", 2*testSlots)...)
		keys := w.keys()
		ro := w.begin(pol) // the older roll has moved nothing
		alter := func(key int64) (repair func()) {
			flip := func() {
				w.Exec(`UPDATE revision SET availability_version = 3 - availability_version WHERE policy_key = ?1`, key)
				w.Policies.Close()
			}
			flip()
			return flip
		}
		for _, damaged := range []int64{first.ID, ro.Target} {
			repair := alter(damaged)
			failed := w.Finish(ro, api.RollFailed)
			if !strings.Contains(failed.Message, fmt.Sprint(damaged)) {
				t.Errorf("it failed: %q", failed.Message)
			}
			if damaged == first.ID {
				for _, p := range w.pages() {
					if p.Class == envelope.ClassActive && p.Parent == older.Target {
						t.Error("a page under a sound policy key was not moved")
					}
				}
			}
			repair()
			w.Must(w.SetState(ro, api.RollRunning))
		}
		w.Finish(ro, api.RollFinished)
		w.wantSameKeys(keys, w.keys())
	})
}
