package service_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// everything returns every row of every table except the audit log.
func (w testService) everything() string {
	w.Helper()
	query := `SELECT name FROM sqlite_master WHERE type = 'table'`
	if w.DB.Dialect().Name == "postgres" {
		query = `SELECT tablename::text FROM pg_tables WHERE schemaname = current_schema()`
	}
	var tables []string
	w.View(func(tx *store.Tx) error {
		rows, err := tx.Query(w.Ctx, query)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var name string
			if err := rows.Scan(&name); err != nil {
				return err
			}
			if !strings.HasPrefix(name, "audit") {
				tables = append(tables, name)
			}
		}
		return rows.Err()
	})
	if len(tables) < 15 || !slices.Contains(tables, "key_page") {
		w.Fatalf("the tables: %v", tables)
	}
	return w.Dump(tables...)
}

// rest makes alice's mailbox, two inactive ones, and a backup, under policy p.
func (w testService) rest() {
	w.Helper()
	w.oldMailbox()
	for name, state := range map[string]api.MailboxState{"bob@contoso.com": api.Inactive, "carol@contoso.com": api.Disabled} {
		w.Must(e(w.CreateMailbox(w.ctx, newMailbox(name, "p"))))
		w.Must(e(w.SetMailboxState(w.ctx, newState(name, state))))
	}
	w.backup("mailbox", alice)
	w.tidy()
}

// A dry run calls the vaults, counts, and changes nothing; the audit log has it, and the
// use of the keys.
func TestDryRunCountsAndChangesNothing(t *testing.T) {
	each(t, func(w testService) {
		w.rest()
		w.Must(e(w.CreateSite(w.ctx, newSite(team))))
		w.sitePolicy()
		w.finishRolls()
		plain, sweep, root, sites := refresh("p", ""), refresh("p", ""), refresh("p", api.DepthRoot), update("Sites", "primary", w.newKey("A-Sites"))
		plain.Body.DryRun, sweep.Body.DryRun, root.Body.DryRun, sites.Body.DryRun = true, true, true, true
		sweep.Body.IncludeInactive, sweep.Body.ContainersPerSecond = true, 2
		old := w.newKey("A-p")
		for name, run := range map[string]struct {
			operation string
			act       func() (api.Refreshed, error)
			want      api.Estimate
		}{
			"a refresh": {"RefreshPolicy", func() (api.Refreshed, error) { return w.RefreshPolicy(w.ctx, plain) }, api.Estimate{PolicyKeys: 1, Containers: 1, Stays: 3}},
			"a sweep":   {"RefreshPolicy", func() (api.Refreshed, error) { return w.RefreshPolicy(w.ctx, sweep) }, api.Estimate{PolicyKeys: 1, Containers: 4}},
			"a re-wrap": {"RefreshPolicy", func() (api.Refreshed, error) { return w.RefreshPolicy(w.ctx, root) }, api.Estimate{PolicyKeys: 1}},
			"an update": {"UpdatePolicy", func() (api.Refreshed, error) { return w.UpdatePolicy(w.ctx, sites) }, api.Estimate{PolicyKeys: 1, Containers: 1}},
		} {
			seen := map[int64]bool{}
			w.entries(seen)
			before := w.everything()
			got, err := run.act()
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if w.everything() != before {
				t.Errorf("%s changed something", name)
			}
			w.singleEntry(seen, run.operation, "done")
			if got.Estimate == nil || got.Policy.Name == "" || got.Policy.State == api.Rolling || got.Rewrapped != 0 {
				t.Fatalf("%s: %+v", name, got)
			}
			now := *got.Estimate
			if now.Seconds < 0 || now.Basis == "" {
				t.Errorf("%s: %+v", name, now)
			}
			now.Seconds, now.Basis = 0, ""
			if now != run.want {
				t.Errorf("%s: %+v, want %+v", name, now, run.want)
			}
		}
		// The real roll does what the dry run estimated.
		plain.Body.DryRun = false
		got, err := w.RefreshPolicy(w.ctx, plain)
		w.Must(err)
		if got.Estimate != nil || got.Policy.Roll == nil || got.Policy.Roll.Total != 1 || got.Policy.Primary.Version != old.Version {
			t.Errorf("the change itself: %+v", got)
		}
		// A dry run is refused where the refresh would be.
		plain.Body.DryRun = true
		before := w.everything()
		policytest.Refuses(t, e(w.RefreshPolicy(w.ctx, plain)), api.NoNewVersion)
		if w.everything() != before {
			t.Error("a refusal changed something")
		}
	})
}

// A sweep needs no newer version, and frees the older one.
func TestSweepReleasesAnOldVersionWithoutANewerOne(t *testing.T) {
	each(t, func(w testService) {
		w.rest()
		w.newKey("A-p")
		w.Must(e(w.RefreshPolicy(w.ctx, refresh("p", ""))))
		w.finishRolls()
		if u := w.usageOf(); u[0].Verdict != api.InUse || u[0].Inactive != 1 || u[0].Disabled != 1 || u[0].Backups != 1 {
			t.Errorf("the ledger: %+v", u)
		}
		in := refresh("p", "")
		in.Body.IncludeInactive, in.Body.DryRun = true, true
		got, err := w.RefreshPolicy(w.ctx, in)
		w.Must(err)
		if got.Estimate == nil || got.Estimate.Containers != 3 || got.Estimate.PolicyKeys != 0 {
			t.Errorf("the dry run: %+v", got.Estimate)
		}
		in.Body.DryRun = false
		got, err = w.RefreshPolicy(w.ctx, in)
		w.Must(err)
		if got.Policy.State != api.Rolling || got.Policy.Generation != 2 || got.Policy.Roll.Total != 3 || got.Limit != "" {
			t.Errorf("the sweep: %+v", got)
		}
		w.finishRolls()
		if u := w.usageOf(); u[0].Verdict != api.SafeToRetire || u[1].Inactive != 1 || u[1].Disabled != 1 || u[1].Backups != 1 || u[1].Active != 1 {
			t.Errorf("the ledger after the sweep: %+v", u)
		}
		if got := w.backups()[0]; !got.Protection.Current {
			t.Errorf("the backup: %+v", got)
		}
		w.Must(e(w.RestoreBackup(w.ctx, restore(w.backups()[0].ID, "restored@contoso.com", ""))))
		w.tidy()
		if w.export("restored@contoso.com") != mbox {
			t.Error("what was restored is another mailbox")
		}
		w.clean()
	})
}

// A refresh moves what a cancelled roll has not moved, with or without a newer version.
func TestRefreshContinuesACancelledRoll(t *testing.T) {
	each(t, func(w testService) {
		w.oldMailbox()
		w.newKey("A-p")
		refreshed, err := w.RefreshPolicy(w.ctx, refresh("p", ""))
		w.Must(err)
		cancelled, err := w.CancelRoll(w.ctx, api.RollInput{Roll: refreshed.Policy.Roll.ID})
		w.Must(err)
		w.finishRolls()
		if cancelled.State != api.RollCancelled || cancelled.Remaining != 1 || w.show(alice).Protection.Current || w.export(alice) != mbox {
			t.Errorf("cancelled: %+v", cancelled)
		}
		if p, err := w.ShowPolicy(w.ctx, policyNamed("p")); err != nil || p.State != api.Registered || p.Revision != refreshed.Policy.Revision {
			t.Errorf("the policy: %+v, %v", p, err)
		}
		policytest.Refuses(t, e(w.RefreshPolicy(w.ctx, refresh("p", api.DepthRoot))), api.NoNewVersion) // that moves nothing
		again, err := w.RefreshPolicy(w.ctx, refresh("p", ""))
		w.Must(err)
		if again.Policy.Revision != refreshed.Policy.Revision || again.Policy.Roll.Total != 1 {
			t.Errorf("the refresh after it: %+v", again)
		}
		w.finishRolls()
		if !w.show(alice).Protection.Current || w.usageOf()[0].Verdict != api.SafeToRetire {
			t.Errorf("at the end: %+v", w.usageOf())
		}
		policytest.Refuses(t, e(w.RefreshPolicy(w.ctx, refresh("p", ""))), api.NoNewVersion)
		w.clean()
	})
}

func TestInvalidOptionsOfARollAreRefused(t *testing.T) {
	w := newTestService(policytest.New(t, storetest.One(t)))
	w.mailPolicy()
	w.newKey("A-p")
	before := w.everything()
	for name, c := range map[string]struct {
		depth   api.Depth
		options api.RollOptions
		says    string
	}{
		"a deadline of no form":               {"", api.RollOptions{Deadline: "tomorrow"}, `"tomorrow"`},
		"a deadline before the roll":          {"", api.RollOptions{Deadline: "-1h"}, `"-1h"`},
		"containers below none":               {"", api.RollOptions{ContainersPerSecond: -1}, "above 0"},
		"bytes below none":                    {"", api.RollOptions{BytesPerSecond: -1}, "above 0"},
		"bytes where no content is":           {"", api.RollOptions{BytesPerSecond: 1}, "only at depth content"},
		"a sweep where no container moves":    {api.DepthRoot, api.RollOptions{IncludeInactive: true}, "depth root"},
		"a limit where no container moves":    {api.DepthRoot, api.RollOptions{ContainersPerSecond: 1}, "depth root"},
		"a deadline where no container moves": {api.DepthRoot, api.RollOptions{Deadline: "1h"}, "depth root"},
	} {
		in := refresh("p", c.depth)
		in.Body.RollOptions = c.options
		err := e(w.RefreshPolicy(w.ctx, in))
		policytest.Refuses(t, err, api.InvalidArgument)
		if _, detail, _ := fail.Public(err); !strings.Contains(detail, c.says) {
			t.Errorf("%s: %s", name, detail)
		}
	}
	if w.everything() != before {
		t.Error("something changed")
	}
	in := refresh("p", "")
	in.Body.RollOptions = api.RollOptions{ContainersPerSecond: 7, Deadline: "90m"}
	got, err := w.RefreshPolicy(w.ctx, in)
	w.Must(err)
	if r := got.Policy.Roll; r.ContainersPerSecond != 7 || fmt.Sprint(r.Deadline.Sub(r.Started)) != "1h30m0s" {
		t.Errorf("%+v", r)
	}
}
