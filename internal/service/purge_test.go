package service_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/fail"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/purge"
	"keyroll/internal/roll"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

func policyNamed(policy string) api.PolicyInput { return api.PolicyInput{Policy: policy} }

func leave(policy string) api.LeavePolicyInput {
	return api.LeavePolicyInput{PolicyInput: policyNamed(policy)}
}

func purgeOf(policy string) api.RequestPurgeInput {
	in := api.RequestPurgeInput{PolicyInput: policyNamed(policy)}
	in.Body.Reason, in.Body.Contact = "we leave the service", "security@contoso.com"
	return in
}

// revoke removes the service's permission on both keys of a policy.
func (w testService) revoke(policy string) {
	w.revokeVaults("A-"+policy, "B-"+policy)
	w.Policies.Close() // as the time of the cache would
}

// revokeVaults is revoke before the cache expires.
func (w testService) revokeVaults(vaults ...string) {
	for _, vault := range vaults {
		w.Vaults.Fail(vault, policytest.Denied())
	}
}

// approver registers an approver, long ago and with a code of the operator, and returns the
// context of its requests.
func (w testService) approver(name string) context.Context {
	w.Helper()
	operator := access.Principal{ID: uuid.New(), Tenant: w.Tenant, Name: "the operator", Roles: []api.Role{api.Operator}}
	_, p := w.enrolled(w.as(operator), name)
	w.Exec(`UPDATE principal SET created = 1 WHERE id = ?1`, p.ID.String())
	p.Created = time.UnixMilli(1)
	return w.as(p)
}

// approve has two approvers approve a purge.
func (w testService) approve(policy string) {
	w.Helper()
	for i, name := range []string{"dana of " + policy, "erin of " + policy} {
		w.Must(storetest.Ask(w.approver(name), w.TB, func(ctx context.Context) error {
			return e(w.ApprovePurge(ctx, policyNamed(policy)))
		}, func() bool {
			p, err := w.ShowPurge(w.ctx, policyNamed(policy))
			return err == nil && len(p.Approvals) > i
		}))
	}
}

// carryOut carries out every approved purge, and repeats if responses are lost.
func (w testService) carryOut() error { return storetest.Ask(w.Ctx, w.TB, w.carryOutIn, nil) }

func (w testService) carryOutIn(ctx context.Context) error {
	var all []purge.Purge
	w.View(func(tx *store.Tx) (err error) {
		all, err = purge.List(w.Ctx, tx, w.Tenant, 0, 1000)
		return err
	})
	var errs []error
	for _, p := range all {
		if p.State() == api.PurgeApproved {
			errs = append(errs, w.parts.Purger.Work(ctx, p))
		}
	}
	return errors.Join(errs...)
}

// requestPurge requests the purge of a policy.
func (w testService) requestPurge(policy string) {
	w.Helper()
	w.Must(storetest.Ask(w.ctx, w.TB, func(ctx context.Context) error {
		return e(w.RequestPurge(ctx, purgeOf(policy)))
	}, func() bool { return e(w.ShowPurge(w.ctx, policyNamed(policy))) == nil }))
}

// purgePolicy runs the purge of policy p to its end.
func (w testService) purgePolicy(policy string) {
	w.Helper()
	w.revoke(policy)
	w.requestPurge(policy)
	w.approve(policy)
	w.Must(w.carryOut())
}

// refused fails the test unless the text or hint of a failure has each of some words.
func refused(t testing.TB, err error, code api.Code, words ...string) {
	t.Helper()
	policytest.Refuses(t, err, code)
	_, detail, hint := fail.Public(err)
	for _, word := range words {
		if !strings.Contains(detail+"\n"+hint, word) {
			t.Errorf("%q (%q) does not say %q", detail, hint, word)
		}
	}
}

func (w testService) withMail(name, policy string) {
	w.Helper()
	w.Must(e(w.CreateMailbox(w.ctx, newMailbox(name, policy))))
	w.Must(e(w.ImportMail(w.ctx, into(name), -1, strings.NewReader(mbox))))
}

func TestPurgeIsRefusedWhileTheServiceHasItsPermissionOnAKey(t *testing.T) {
	each(t, func(w testService) {
		w.mailPolicy()
		_, err := w.RequestPurge(w.ctx, purgeOf("p"))
		refused(t, err, api.Conflict, "A-p", "Remove-AzKeyVaultAccessPolicy -VaultName A-p -ServicePrincipalName 00000002-0000-0ff1-ce00-000000000000")
		w.Vaults.Fail("A-p", policytest.Denied())
		_, err = w.RequestPurge(w.ctx, purgeOf("p"))
		refused(t, err, api.Conflict, "Remove-AzKeyVaultAccessPolicy -VaultName B-p")
		w.Vaults.Fail("B-p", policytest.Away())
		refused(t, e(w.RequestPurge(w.ctx, purgeOf("p"))), api.VaultUnavailable)
		p, err := w.ShowPolicy(w.ctx, policyNamed("p"))
		w.Must(err)
		if p.State != api.Registered {
			t.Errorf("state %s", p.State)
		}
		refused(t, e(w.ShowPurge(w.ctx, policyNamed("p"))), api.NotFound)
		w.Vaults.Fail("B-p", policytest.Denied())
		w.requestPurge("p")
		refused(t, e(w.RequestPurge(w.ctx, purgeOf("p"))), api.Conflict)
	})
}

// An older version that something is under counts as the newest one does.
func TestPurgeChecksEveryKeyVersionThatIsStillNeeded(t *testing.T) {
	each(t, func(w testService) {
		w.mailPolicy()
		w.withMail(alice, "p")
		w.Must(e(w.SetMailboxState(w.ctx, newState(alice, api.Inactive))))
		w.tidy()
		w.newKey("A-p")
		w.Must(e(w.RefreshPolicy(w.ctx, refresh("p", ""))))
		w.finishRolls()
		asked := map[string]bool{}
		w.revoke("p")
		w.Vaults.Calls()
		p, err := w.RequestPurge(w.ctx, purgeOf("p"))
		w.Must(err)
		for _, c := range w.Vaults.Calls() {
			asked[c.Vault+c.Version] = true
		}
		if len(asked) != 3 || len(p.Destroy) != 3 {
			t.Errorf("asked for %v, and to destroy are %v", asked, p.Destroy)
		}
	})
}

func TestPolicyOfARequestedPurgeAcceptsNoContainers(t *testing.T) {
	each(t, func(w testService) {
		w.mailPolicy()
		w.withMail(alice, "p")
		w.Must(e(w.CreateMailbox(w.ctx, newMailbox(bob, ""))))
		w.revoke("p")
		p, err := w.RequestPurge(w.ctx, purgeOf("p"))
		w.Must(err)
		if p.State != api.PurgeRequested || p.Containers != 1 || p.Reason != "we leave the service" || p.Contact != "security@contoso.com" || p.PolicyDeleted != nil {
			t.Errorf("requested: %+v", p)
		}
		for name, err := range map[string]error{
			"assign":  e(w.AssignMailbox(w.ctx, assign(bob, "p"))),
			"create":  e(w.CreateMailbox(w.ctx, newMailbox("carol@contoso.com", "p"))),
			"refresh": e(w.RefreshPolicy(w.ctx, refresh("p", ""))),
		} {
			t.Run(name, func(t *testing.T) {
				refused(t, err, api.Conflict, "has been requested: the policy no longer accepts containers")
			})
		}
		w.Must(w.carryOut())
		if show, err := w.ShowPolicy(w.ctx, policyNamed("p")); err != nil || show.State != api.PurgePending || !show.Enabled {
			t.Errorf("the policy: %+v, %v", show, err)
		}
		if strings.Contains(w.Dump("purge"), "leave") || strings.Contains(w.Dump("purge"), "security") {
			t.Error("reason or contact are in plaintext")
		}
		refused(t, w.ExportMail(w.ctx, mailbox(alice), io.Discard), api.VaultDenied)
	})
}

func TestPurgeNeedsTwoApproversOtherThanTheRequester(t *testing.T) {
	each(t, func(w testService) {
		w.mailPolicy()
		w.revoke("p")
		dana, erin := w.approver("dana"), w.approver("erin")
		refused(t, e(w.ApprovePurge(dana, policyNamed("p"))), api.NotFound)
		w.requestPurge("p")
		refused(t, e(w.ApprovePurge(w.ctx, policyNamed("p"))), api.Forbidden)
		both := w.admin
		both.Roles = []api.Role{api.Global, api.Approver}
		refused(t, e(w.ApprovePurge(w.as(both), policyNamed("p"))), api.Forbidden, "the requester")
		p, err := w.ApprovePurge(dana, policyNamed("p"))
		w.Must(err)
		if p.State != api.PurgeRequested || len(p.Approvals) != 1 || p.Approvals[0].Approver != "dana" {
			t.Errorf("approved once: %+v", p)
		}
		refused(t, e(w.ApprovePurge(dana, policyNamed("p"))), api.Conflict)
		for name, err := range map[string]error{
			"request": e(w.RequestPurge(dana, purgeOf("p"))), "list": e(w.ListMailboxes(dana, api.ListInput{})),
		} {
			t.Run("an approver may not "+name, func(t *testing.T) { refused(t, err, api.Forbidden) })
		}
		stranger := access.Principal{ID: uuid.New(), Tenant: w.Neighbour().Tenant, Name: "frank", Roles: []api.Role{api.Approver}}
		w.Must(w.parts.Containers.Bootstrap(w.Ctx, stranger.Tenant))
		refused(t, e(w.ApprovePurge(w.as(stranger), policyNamed("p"))), api.NotFound)
		p, err = w.ApprovePurge(erin, policyNamed("p"))
		w.Must(err)
		if p.State != api.PurgeApproved || p.PolicyDeleted != nil {
			t.Errorf("approved twice: %+v", p)
		}
		refused(t, e(w.ApprovePurge(w.approver("george"), policyNamed("p"))), api.Conflict)
		list, err := w.ListApprovers(w.ctx, api.ApproverTenant{})
		w.Must(err)
		if len(list.Items) != 3 {
			t.Errorf("approvers: %+v", list.Items)
		}
		var again api.AddApproverInput
		again.Body.Name = "DANA"
		refused(t, e(w.AddApprover(w.ctx, again)), api.AlreadyExists)
	})
}

func TestAfterAPurgeContentIsPermanentlyUnreadable(t *testing.T) {
	each(t, func(w testService) {
		w.mailPolicy()
		const idle = "idle@contoso.com"
		w.withMail(alice, "p")
		w.withMail(idle, "p")
		w.withMail(bob, "")
		w.Must(e(w.SetMailboxState(w.ctx, newState(idle, api.Inactive))))
		before := w.show(alice).Protection
		w.newKey("A-p")
		w.Must(e(w.RefreshPolicy(w.ctx, refresh("p", ""))))
		w.finishRolls()
		key := w.show(alice).Protection
		w.purgePolicy("p")
		p, err := w.ShowPurge(w.ctx, policyNamed("p"))
		w.Must(err)
		if p.State != api.Purged || p.Containers != 2 || p.PolicyDeleted == nil || p.ContainersMarked == nil || p.AvailabilityKeyDestroyed == nil ||
			p.ContainersMarked.Before(*p.PolicyDeleted) || p.AvailabilityKeyDestroyed.Before(*p.ContainersMarked) || p.Message != "" {
			t.Errorf("purged: %+v", p)
		}
		if len(p.Destroy) != 3 || !strings.Contains(p.Limit, "availability keys are files") || !strings.Contains(p.Limit, "vaults of this server") {
			t.Errorf("what is left: %+v", p)
		}
		// Restoring the customer's permission changes nothing.
		w.Vaults.Fail("A-p", nil)
		w.Vaults.Fail("B-p", nil)
		for _, name := range []string{alice, idle} {
			for what, err := range map[string]error{
				"export": w.ExportMail(w.ctx, mailbox(name), io.Discard),
				"list":   e(w.ListMessages(w.ctx, api.ListMailboxItems{MailboxInput: mailbox(name)})),
				"import": e(w.ImportMail(w.ctx, into(name), -1, strings.NewReader(mbox))),
				"assign": e(w.AssignMailbox(w.ctx, assign(name, ""))),
				"state":  e(w.SetMailboxState(w.ctx, newState(name, api.Disabled))),
			} {
				t.Run(what+" "+name, func(t *testing.T) { refused(t, err, api.Gone, name, "purged on") })
			}
			if m := w.show(name); m.Protection.Purged == nil || m.Protection.Policy != "p" || m.AssignedPolicy != "p" {
				t.Errorf("%s shows as %+v", name, m)
			}
		}
		if w.export(bob) != mbox || w.show(bob).Protection.Purged != nil {
			t.Error("another policy's mailbox was touched")
		}
		for _, identity := range []string{"p", p.PolicyID, before.DataEncryptionPolicyID, key.DataEncryptionPolicyID} {
			if show, err := w.ShowPolicy(w.ctx, policyNamed(identity)); err != nil || show.State != api.PurgeDone || show.Enabled || show.Name != "p" {
				t.Errorf("the policy by %s: %+v, %v", identity, show, err)
			}
		}
		refused(t, e(w.AssignMailbox(w.ctx, assign(bob, "p"))), api.Gone)
		refused(t, e(w.RefreshPolicy(w.ctx, refresh("p", ""))), api.Gone)
		refused(t, e(w.RequestPurge(w.ctx, purgeOf("p"))), api.Gone)
		report, err := w.Verify(w.ctx, api.VerifyInput{}, func(api.VerifyProgress) {})
		w.Must(err)
		if len(report.Damaged) != 0 || len(report.Closed) == 0 || report.Items != 1 {
			t.Errorf("verify: %+v", report)
		}
		usage, err := w.ListKeyUsage(w.ctx, api.KeyUsageInput{})
		w.Must(err)
		for _, u := range usage.Items {
			if u.Policy == "p" && u.Verdict != api.SafeToRetire {
				t.Errorf("the ledger: %+v", u)
			}
		}
		w.tidy()
		if log := w.Dump("audit_entry"); !strings.Contains(log, "destroy availability key") || !strings.Contains(log, "marked the containers") {
			t.Error("the steps are not in the log")
		}
	})
}

func TestAPurgedPolicyDoesNotCountAgainstTheLimitAndItsNameIsFree(t *testing.T) {
	each(t, func(w testService) {
		w.mailPolicy()
		w.withMail(alice, "p")
		w.purgePolicy("p")
		first, err := w.ShowPurge(w.ctx, policyNamed("p"))
		w.Must(err)
		w.Vaults.Fail("A-p", nil)
		w.Vaults.Fail("B-p", nil)
		w.Must(e(w.CreatePolicy(w.ctx, newPolicy("P", keyURI("A-p"), keyURI("B-p")))))
		w.Must(e(w.CreateMailbox(w.ctx, newMailbox(bob, "p"))))
		if now, err := w.ShowPolicy(w.ctx, policyNamed("p")); err != nil || now.State != api.Registered || now.ID == first.PolicyID {
			t.Errorf("the name leads to %+v, %v", now, err)
		}
		if p, err := w.ShowPurge(w.ctx, policyNamed(first.PolicyID)); err != nil || p.State != api.Purged {
			t.Errorf("by its GUID: %+v, %v", p, err)
		}
	})
}

func TestSitePolicyIsPurgedAndItsGeoIsFree(t *testing.T) {
	each(t, func(w testService) {
		w.Must(e(w.CreateSite(w.ctx, newSite(team))))
		w.Must(e(w.PutFile(w.ctx, file(team, path), -1, strings.NewReader("content"))))
		w.sitePolicy()
		w.revoke("Sites")
		refused(t, e(w.RequestPurge(w.ctx, purgeOf("Sites"))), api.RollInProgress)
		w.Vaults.Fail("A-Sites", nil)
		w.finishRolls()
		w.purgePolicy("Sites")
		refused(t, w.GetFile(w.ctx, file(team, path), from(0), io.Discard), api.Gone)
		refused(t, e(w.PutFile(w.ctx, file(team, path), -1, strings.NewReader("content"))), api.Gone)
		const next = team + "2"
		w.Must(e(w.CreateSite(w.ctx, newSite(next))))
		w.Vaults.Fail("A-Sites", nil)
		w.Vaults.Fail("B-Sites", nil)
		w.sitePolicy()
		w.finishRolls()
		if s, err := w.ShowSite(w.ctx, site(next)); err != nil || s.Protection.Policy != "Sites" || s.Protection.Purged != nil {
			t.Errorf("the next site: %+v, %v", s, err)
		}
		if s, err := w.ShowSite(w.ctx, site(team)); err != nil || s.Protection.Purged == nil {
			t.Errorf("the purged site: %+v, %v", s, err)
		}
		refused(t, w.GetFile(w.ctx, file(team, path), from(0), io.Discard), api.Gone)
	})
}

func TestServiceManagedPolicyCannotBePurged(t *testing.T) {
	each(t, func(w testService) {
		refused(t, e(w.RequestPurge(w.ctx, purgeOf("Service-managed"))), api.InvalidArgument)
		for _, in := range []api.RequestPurgeInput{{PolicyInput: policyNamed("none")}, {PolicyInput: policyNamed("Service-managed")}} {
			refused(t, e(w.RequestPurge(w.ctx, in)), api.InvalidArgument)
		}
		refused(t, e(w.RequestPurge(w.ctx, purgeOf("none"))), api.NotFound)
	})
}

// Purge while rolling: the roll ends with the request, all containers are purged,
// whether moved or not, and nothing becomes readable again.
func TestPurgeEndsTheRollOfItsPolicy(t *testing.T) {
	each(t, func(w testService) {
		w.mailPolicy()
		w.withMail(alice, "p")
		w.newKey("A-p")
		w.Must(e(w.RefreshPolicy(w.ctx, refresh("p", ""))))
		w.withMail(bob, "p") // under the newer key
		w.purgePolicy("p")
		var ro roll.Roll
		w.View(func(tx *store.Tx) error {
			all, err := roll.List(w.Ctx, tx, w.Tenant, 0, 1000)
			ro = all[0]
			return err
		})
		if ro.State != api.RollSuperseded || !strings.Contains(ro.Message, `the purge of policy "p" was requested`) {
			t.Errorf("the roll: %+v", ro)
		}
		running := ro
		running.State = api.RollRunning // as a roller holds it that took it up before
		if waits, err := w.parts.Roller.Work(w.Ctx, running); waits || err != nil {
			t.Errorf("the roller: %v, %v", waits, err)
		}
		for _, name := range []string{alice, bob} {
			refused(t, w.ExportMail(w.ctx, mailbox(name), io.Discard), api.Gone)
		}
	})
}

// Reading while purging: a stream is cut at the next blob.
func TestAPurgeEndsAStreamAtTheNextBlob(t *testing.T) {
	each(t, func(w testService) {
		w.mailPolicy()
		w.Must(e(w.CreateMailbox(w.ctx, newMailbox(alice, "p"))))
		w.Must(e(w.ImportMail(w.ctx, into(alice), -1, strings.NewReader(strings.Repeat(mbox+"\n", 400)))))
		read := 0
		err := w.ExportMail(w.ctx, mailbox(alice), writerFunc(func(p []byte) (int, error) {
			if read == 0 {
				w.purgePolicy("p")
			}
			read += len(p)
			return len(p), nil
		}))
		refused(t, err, api.Gone)
	})
}

// While the store of availability keys fails to destroy a key, a purge waits and says so.
func TestAPurgeWaitsForTheStoreOfAvailabilityKeys(t *testing.T) {
	each(t, func(w testService) {
		w.mailPolicy()
		w.withMail(alice, "p")
		w.RemoveAvailabilityKeys()
		w.revoke("p")
		w.requestPurge("p")
		w.approve("p")
		if w.carryOut() == nil {
			t.Error("it says that it destroyed what is not there")
		}
		p, err := w.ShowPurge(w.ctx, policyNamed("p"))
		w.Must(err)
		if p.State != api.PurgeApproved || p.ContainersMarked == nil || p.AvailabilityKeyDestroyed != nil || !strings.HasPrefix(p.Message, "waits: availability key") {
			t.Errorf("it shows as %+v", p)
		}
		refused(t, w.ExportMail(w.ctx, mailbox(alice), io.Discard), api.Gone)
	})
}

// Even if responses are lost, a purge finishes, and no key of the policy remains usable,
// not even for a stream that is being read.
func TestAPurgeEndsWhicheverDatabaseAnswersAreLost(t *testing.T) {
	each(t, func(w testService) {
		w.mailPolicy()
		w.withMail(alice, "p")
		w.export(alice)
		var key int64
		w.View(func(tx *store.Tx) error {
			pol, err := w.Policies.Find(w.Ctx, tx, w.Tenant, "p")
			key = pol.Current.ID
			return err
		})
		w.revokeVaults("A-p", "B-p")
		w.requestPurge("p")
		open := func() error {
			k, err := w.Policies.Open(w.Ctx, w.Tenant, key, api.ByUser)
			if err == nil {
				k.Zero()
			}
			return err
		}
		w.Must(open())
		w.approve("p")
		steps := 0
		for ; ; steps++ {
			losing, lost := storetest.LoseAt(w.Ctx, 1+steps)
			err := w.carryOutIn(losing)
			if !lost() {
				w.Must(err)
				break
			}
			if !fail.Is(err, api.Unavailable) {
				t.Fatalf("commit %d lost its answer: %v", 1+steps, err)
			}
		}
		p, err := w.ShowPurge(w.ctx, policyNamed("p"))
		w.Must(err)
		if p.State != api.Purged || p.Containers != 1 || p.Message != "" || steps < 3 {
			t.Errorf("after %d lost answers: %+v", steps, p)
		}
		policytest.Refuses(t, open(), api.Gone)
	})
}

// If the response of the second approval is lost, the purge begins all the same.
func TestAPurgeBeginsAlthoughTheAnswerToItsApprovalIsLost(t *testing.T) {
	each(t, func(w testService) {
		w.mailPolicy()
		w.revoke("p")
		w.requestPurge("p")
		w.Must(e(w.ApprovePurge(w.approver("dana"), policyNamed("p"))))
		running, stop := context.WithCancel(w.Ctx)
		ended := make(chan struct{})
		go func() { defer close(ended); w.parts.Purger.Run(running) }()
		losing, lost := storetest.LoseAt(w.approver("erin"), 1)
		if err := e(w.ApprovePurge(losing, policyNamed("p"))); !lost() || !fail.Is(err, api.Unavailable) {
			t.Fatalf("approve: %v", err)
		}
		for done := false; !done; {
			p, err := w.ShowPurge(w.ctx, policyNamed("p"))
			w.Must(err)
			done = p.State == api.Purged
		}
		stop()
		<-ended
	})
}

// Erased keys are in no file of the database, neither in free pages nor in the
// write-ahead log. This does not cover PostgreSQL's files: docs/threat-model.md.
func TestAfterAPurgeNoDatabaseFileContainsAWrap(t *testing.T) {
	each(t, func(w testService) {
		file, isFile := strings.CutPrefix(w.DB.Shown(), "sqlite://")
		if !isFile {
			return
		}
		w.mailPolicy()
		w.withMail(alice, "p")
		w.newKey("A-p")
		w.Must(e(w.RefreshPolicy(w.ctx, refresh("p", ""))))
		w.finishRolls()
		p, err := w.ShowPolicy(w.ctx, policyNamed("p"))
		w.Must(err)
		var wraps [][]byte
		w.View(func(tx *store.Tx) error {
			rows, err := tx.Query(w.Ctx, `SELECT r.wrap_primary, r.wrap_secondary, r.wrap_availability FROM revision r JOIN policy p ON p.id = r.policy WHERE p.name = ?1 AND r.erased = 0`, "p")
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				var primary, secondary, availability []byte
				if err := rows.Scan(&primary, &secondary, &availability); err != nil {
					return err
				}
				wraps = append(wraps, primary, secondary, availability)
			}
			return rows.Err()
		})
		holds := func() (n int) {
			for _, suffix := range []string{"", "-wal"} {
				raw, err := os.ReadFile(file + suffix)
				w.Must(err)
				for _, wrap := range wraps {
					if bytes.Contains(raw, wrap) {
						n++
					}
				}
			}
			return n
		}
		if len(wraps) == 0 || holds() == 0 {
			w.Fatalf("there are no wraps to look for: %+v", p)
		}
		w.purgePolicy("p")
		if n := holds(); n > 0 {
			w.Errorf("%d of %d wraps are in the files", n, len(wraps))
		}
	})
}
