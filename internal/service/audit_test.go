package service_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/approval"
	"keyroll/internal/fail"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// act is an operation that succeeds once and is refused once.
type act struct {
	operation string
	done      func(ctx context.Context) error
	refused   func(ctx context.Context) error // nil: nothing is refused
	code      api.Code
	target    string // as the log names it
	prepare   func() // nil: nothing is needed beside the acts before it
}

// acts are all operations of the service, in an order in which each can succeed.
func (w testService) acts() []act {
	const unknown, nowhere = "unknown@contoso.com", "https://contoso.sharepoint.com/sites/nowhere"
	type c = context.Context
	var message string
	findMessage := func() {
		list, err := w.ListMessages(w.ctx, api.ListMailboxItems{MailboxInput: mailbox(alice)})
		w.Must(err)
		message = list.Items[0].ID
	}
	var ro api.RollInput
	findRoll := func() {
		list, err := w.ListRolls(w.ctx, api.ListInput{})
		w.Must(err)
		ro.Roll = list.Items[0].ID
	}
	var backup string
	findBackup := func() {
		list, err := w.ListBackups(w.ctx, api.ListInput{})
		w.Must(err)
		backup = list.Items[0].ID
	}
	discard := func(api.VerifyProgress) {}
	tenants := 0
	dana := func() (in api.AddApproverInput) { in.Body.Name = "dana"; return in }
	newToken := func(x c) (in api.CreateTokenInput) {
		in.Body.Name, in.Body.Roles = "token", []api.Role{api.Operator}
		if p, err := access.PrincipalOf(x); err == nil && p.HasAny(api.Global) {
			in.Body.Roles = []api.Role{api.Compliance, api.Auditor}
		}
		return in
	}
	token := api.TokenInput{Token: "token"}
	payroll := func() (in api.CreateApplicationInput) { in.Body.Name = "payroll"; return in }
	application := api.ApplicationInput{Application: "payroll"}
	var credential string
	findCredential := func() {
		list, err := w.ListApplications(w.ctx, api.None{})
		w.Must(err)
		credential = list.Items[0].Secrets[0].ID
	}
	pending, made := make([]api.ApprovalInput, 3), 0
	waits := func() {
		r := approval.Request{ID: store.NewID(), Tenant: w.Tenant, Operation: "AssignMailbox", Requester: w.admin.ID, Requested: time.Now(), Expires: time.Now().Add(time.Hour), Needed: 1}
		d, err := w.parts.Containers.Directory(w.Ctx, w.Tenant)
		w.Must(err)
		r.Target, r.Input = d.Seal(r.ID, alice), d.Seal(r.ID, "{}")
		if made < 2 { // the last one is withdrawn by its requester
			r.Requester = uuid.New()
		}
		w.InTx(func(tx *store.Tx) error { return approval.Insert(w.Ctx, tx, r) })
		pending[made] = api.ApprovalInput{Approval: strconv.FormatInt(r.ID, 10)}
		made++
	}
	restoreSites := func(vaults ...string) (in api.RestoreSitesInput) {
		in.Body.Primary, in.Body.Secondary = w.newKey(vaults[0]), w.newKey(vaults[1])
		return in
	}
	return []act{
		{"CreateMailbox", func(x c) error { return e(w.CreateMailbox(x, newMailbox(alice, ""))) },
			func(x c) error { return e(w.CreateMailbox(x, newMailbox("ALICE@contoso.com", ""))) }, api.AlreadyExists, alice, nil},
		{"ListMailboxes", func(x c) error { return e(w.ListMailboxes(x, api.ListInput{})) },
			func(x c) error { return e(w.ListMailboxes(x, api.ListInput{PageInput: api.PageInput{Limit: -1}})) }, api.InvalidArgument, "", nil},
		{"ShowMailbox", func(x c) error { return e(w.ShowMailbox(x, mailbox(alice))) },
			func(x c) error { return e(w.ShowMailbox(x, mailbox(unknown))) }, api.NotFound, alice, nil},
		{"ImportMail", func(x c) error { return e(w.ImportMail(x, into(alice), int64(len(mbox)), strings.NewReader(mbox))) },
			func(x c) error { return e(w.ImportMail(x, into(alice), -1, strings.NewReader("no mbox"))) }, api.InvalidArgument, alice, nil},
		{"CheckKeys", func(x c) error {
			var in api.CheckKeysInput
			w.newKey("A-check")
			w.newKey("B-check")
			in.Body.Kind, in.Body.Keys = api.MailboxPolicy, []string{keyURI("A-check"), keyURI("B-check")}
			return e(w.CheckKeys(x, in))
		}, func(x c) error { return e(w.CheckKeys(x, api.CheckKeysInput{})) }, api.InvalidArgument, "", nil},
		{"ListMailImports", func(x c) error { return e(w.ListMailImports(x, mailbox(alice))) },
			func(x c) error { return e(w.ListMailImports(x, mailbox(unknown))) }, api.NotFound, alice, nil},
		{"StopMailImport", func(x c) error {
			return e(w.StopMailImport(x, api.MailImportInput{MailboxInput: mailbox(alice), Import: "one"}))
		}, func(x c) error {
			return e(w.StopMailImport(x, api.MailImportInput{MailboxInput: mailbox(unknown), Import: "one"}))
		}, api.NotFound, alice, nil},
		{"ListMessages", func(x c) error { return e(w.ListMessages(x, api.ListMailboxItems{MailboxInput: mailbox(alice)})) },
			func(x c) error { return e(w.ListMessages(x, api.ListMailboxItems{MailboxInput: mailbox(unknown)})) }, api.NotFound, alice, nil},
		{"ReadMessage", func(x c) error {
			return w.ReadMessage(x, api.MessageInput{MailboxInput: mailbox(alice), Message: message}, io.Discard)
		},
			func(x c) error {
				return w.ReadMessage(x, api.MessageInput{MailboxInput: mailbox(alice), Message: "7"}, io.Discard)
			}, api.NotFound, alice, findMessage},
		{"ExportMail", func(x c) error { return w.ExportMail(x, mailbox(alice), io.Discard) },
			func(x c) error { return w.ExportMail(x, mailbox(unknown), io.Discard) }, api.NotFound, alice, nil},
		{"SetMailboxState", func(x c) error { return e(w.SetMailboxState(x, newState(alice, api.Inactive))) },
			func(x c) error { return e(w.SetMailboxState(x, newState(alice, "asleep"))) }, api.InvalidArgument, alice, nil},
		{"CreatePolicy", func(x c) error {
			w.newKey("A-p")
			w.newKey("B-p")
			return e(w.CreatePolicy(x, newPolicy("p", keyURI("A-p"), keyURI("B-p"))))
		}, func(x c) error { return e(w.CreatePolicy(x, newPolicy("q", keyURI("A-p"), keyURI("A-p")))) }, api.InvalidArgument, "p", nil},
		{"AssignMailbox", func(x c) error { return e(w.AssignMailbox(x, assign(alice, "p"))) },
			func(x c) error { return e(w.AssignMailbox(x, assign(alice, "none"))) }, api.NotFound, alice, nil},
		{"CreateBackup", func(x c) error { return e(w.CreateBackup(x, newBackup("mailbox", alice))) },
			func(x c) error { return e(w.CreateBackup(x, newBackup("mailbox", unknown))) }, api.NotFound, alice, nil},
		{"ListBackups", func(x c) error { return e(w.ListBackups(x, api.ListInput{})) },
			func(x c) error { return e(w.ListBackups(x, api.ListInput{PageInput: api.PageInput{Limit: -1}})) }, api.InvalidArgument, "", nil},
		{"RestoreBackup", func(x c) error { return e(w.RestoreBackup(x, restore(backup, "restored@contoso.com", ""))) },
			func(x c) error { return e(w.RestoreBackup(x, restore(backup, alice, ""))) }, api.AlreadyExists, alice + " as restored@contoso.com", findBackup},
		{"ExpireBackup", func(x c) error { return e(w.ExpireBackup(x, api.BackupInput{Backup: backup})) },
			func(x c) error { return e(w.ExpireBackup(x, api.BackupInput{Backup: "x"})) }, api.InvalidArgument, alice, nil},
		{"AbandonContainer", func(x c) error { return e(w.AbandonContainer(x, abandon("mailbox", "lost@contoso.com"))) },
			func(x c) error { return e(w.AbandonContainer(x, abandon("mailbox", alice))) }, api.Conflict, "lost@contoso.com", func() { w.lose("lost@contoso.com") }},
		{"CreateSite", func(x c) error { return e(w.CreateSite(x, newSite(team))) },
			func(x c) error { return e(w.CreateSite(x, newSite("http://x"))) }, api.InvalidArgument, team, nil},
		{"ListSites", func(x c) error { return e(w.ListSites(x, api.ListInput{})) },
			func(x c) error { return e(w.ListSites(x, api.ListInput{PageInput: api.PageInput{After: "1x"}})) }, api.InvalidArgument, "", nil},
		{"ShowSite", func(x c) error { return e(w.ShowSite(x, site(team))) },
			func(x c) error { return e(w.ShowSite(x, site(nowhere))) }, api.NotFound, team, nil},
		{"PutFile", func(x c) error { return e(w.PutFile(x, file(team, path), 7, strings.NewReader("content"))) },
			func(x c) error { return e(w.PutFile(x, file(team, path), 9, strings.NewReader("content"))) }, api.Truncated, team + " " + path, nil},
		{"ListFiles", func(x c) error { return e(w.ListFiles(x, api.ListSiteFiles{SiteInput: site(team)})) },
			func(x c) error { return e(w.ListFiles(x, api.ListSiteFiles{SiteInput: site(nowhere)})) }, api.NotFound, team, nil},
		{"GetFile", func(x c) error { return w.GetFile(x, file(team, path), from(0), io.Discard) },
			func(x c) error { return w.GetFile(x, file(team, path), from(99), io.Discard) }, api.RangeNotSatisfiable, team + " " + path, nil},
		{"RegisterSites", func(x c) error { return e(w.RegisterSites(x, register(w.newKey("A-Sites"), w.newKey("B-Sites")))) },
			func(x c) error { return e(w.RegisterSites(x, register(w.newKey("A-Sites"), w.newKey("B-Sites")))) }, api.AlreadyExists, "Sites", nil},
		{"ListPolicies", func(x c) error { return e(w.ListPolicies(x, api.ListInput{})) }, nil, "", "", nil},
		{"ShowPolicy", func(x c) error { return e(w.ShowPolicy(x, api.PolicyInput{Policy: "p"})) },
			func(x c) error { return e(w.ShowPolicy(x, api.PolicyInput{Policy: "none"})) }, api.NotFound, "p", nil},
		{"RefreshPolicy", func(x c) error { w.newKey("A-p"); return e(w.RefreshPolicy(x, refresh("p", ""))) },
			func(x c) error { return e(w.RefreshPolicy(x, refresh("p", ""))) }, api.NoNewVersion, "p", nil},
		{"RollAvailabilityKeys", func(x c) error { return e(w.RollAvailabilityKeys(x, rollAvailability("p"))) },
			func(x c) error { return e(w.RollAvailabilityKeys(x, rollAvailability("none"))) }, api.NotFound, "p", nil},
		{"PauseRoll", func(x c) error { return e(w.PauseRoll(x, ro)) }, func(x c) error { return e(w.PauseRoll(x, ro)) }, api.Conflict, "", findRoll},
		{"ResumeRoll", func(x c) error { return e(w.ResumeRoll(x, ro)) }, func(x c) error { return e(w.ResumeRoll(x, ro)) }, api.Conflict, "", nil},
		{"ShowRoll", func(x c) error { return e(w.ShowRoll(x, ro)) },
			func(x c) error { return e(w.ShowRoll(x, api.RollInput{Roll: "x"})) }, api.InvalidArgument, "", nil},
		{"ListRolls", func(x c) error { return e(w.ListRolls(x, api.ListInput{})) }, nil, "", "", nil},
		{"CancelRoll", func(x c) error { return e(w.CancelRoll(x, ro)) }, func(x c) error { return e(w.CancelRoll(x, ro)) }, api.Conflict, "", nil},
		{"UpdatePolicy", func(x c) error { return e(w.UpdatePolicy(x, update("Sites", "primary", w.newKey("A-Sites")))) },
			func(x c) error { return e(w.UpdatePolicy(x, update("Sites", "third", w.newKey("A-Sites")))) }, api.InvalidArgument, "Sites", w.finishRolls},
		{"CreateTenant", func(x c) error { tenants++; return e(w.CreateTenant(x, newTenant(fmt.Sprint("fabrikam ", tenants)))) },
			func(x c) error { return e(w.CreateTenant(x, newTenant("fabrikam 1"))) }, api.AlreadyExists, "fabrikam 1", nil},
		{"ListTenants", func(x c) error { return e(w.ListTenants(x, api.ListInput{})) },
			func(x c) error { return e(w.ListTenants(x, api.ListInput{PageInput: api.PageInput{Limit: -1}})) }, api.InvalidArgument, "", nil},
		{"ShowTenant", func(x c) error { return e(w.ShowTenant(x, api.TenantInput{Tenant: "fabrikam 1"})) },
			func(x c) error { return e(w.ShowTenant(x, api.TenantInput{Tenant: "unknown"})) }, api.NotFound, "fabrikam 1", nil},
		{"SetTenant", func(x c) error {
			return e(w.SetTenant(x, outsideOf("fabrikam 1", "72f988bf-86f1-41af-91ab-2d7cd011db47")))
		},
			func(x c) error { return e(w.SetTenant(x, outsideOf("fabrikam 1", "no GUID"))) }, api.InvalidArgument, "fabrikam 1", nil},
		{"CreateGeo", func(x c) error { return e(w.CreateGeo(x, newGeo("EU", "contoso-eu.sharepoint.com"))) },
			func(x c) error { return e(w.CreateGeo(x, newGeo("eu", "contoso-x.sharepoint.com"))) }, api.AlreadyExists, "EU", nil},
		{"ListGeos", func(x c) error { return e(w.ListGeos(x, api.ListInput{})) }, nil, "", "", nil},
		{"TestPolicy", func(x c) error { return e(w.TestPolicy(x, api.PolicyInput{Policy: "p"})) },
			func(x c) error { return e(w.TestPolicy(x, api.PolicyInput{Policy: "none"})) }, api.NotFound, "p", nil},
		{"ListKeyUsage", func(x c) error { return e(w.ListKeyUsage(x, api.KeyUsageInput{})) }, nil, "", "", nil},
		{"Verify", func(x c) error { return e(w.Verify(x, api.VerifyInput{Policy: "p"}, discard)) },
			func(x c) error { return e(w.Verify(x, api.VerifyInput{Policy: "none"}, discard)) }, api.NotFound, "p", nil},
		{"CollectBlobs", func(x c) error { return e(w.CollectBlobs(x, collectBlobs(3600), func(api.CollectedBlobs) {})) },
			func(x c) error { return e(w.CollectBlobs(x, collectBlobs(-1), nil)) }, api.InvalidArgument, "", nil},
		{"PutWorkloadItem", func(x c) error {
			return e(w.PutWorkloadItem(x, item(chats, "thread"), 7, strings.NewReader("content")))
		},
			func(x c) error {
				return e(w.PutWorkloadItem(x, item(chats, "thread"), 9, strings.NewReader("content")))
			}, api.Truncated, chats + " thread", nil},
		{"ListWorkloads", func(x c) error { return e(w.ListWorkloads(x, api.ListInput{})) }, nil, "", "", nil},
		{"ListWorkloadItems", func(x c) error {
			return e(w.ListWorkloadItems(x, api.ListStoreItems{WorkloadInput: api.WorkloadInput{Workload: chats}}))
		},
			func(x c) error {
				return e(w.ListWorkloadItems(x, api.ListStoreItems{WorkloadInput: api.WorkloadInput{Workload: "faxes"}}))
			}, api.InvalidArgument, chats, nil},
		{"GetWorkloadItem", func(x c) error { return w.GetWorkloadItem(x, item(chats, "thread"), io.Discard) },
			func(x c) error { return w.GetWorkloadItem(x, item(chats, "none"), io.Discard) }, api.NotFound, chats + " thread", nil},
		{"AssignPolicy", func(x c) error { return e(w.AssignPolicy(x, assignment("m"))) },
			func(x c) error { return e(w.AssignPolicy(x, assignment("p"))) }, api.InvalidArgument, "m", func() { w.workPolicy("m") }},
		{"ShowAssignment", func(x c) error { return e(w.ShowAssignment(x, api.None{})) }, nil, "", "", nil},
		{"SetPolicy", func(x c) error { return e(w.SetPolicy(x, setting("p", "", nil))) },
			func(x c) error { return e(w.SetPolicy(x, setting("p", " p", nil))) }, api.InvalidArgument, "p", nil},
		{"ReplacePolicyKeys", func(x c) error {
			w.newKey("C-p")
			w.newKey("D-p")
			return e(w.ReplacePolicyKeys(x, replace("p", api.DepthPolicy, keyURI("C-p"), keyURI("D-p"))))
		}, func(x c) error {
			return e(w.ReplacePolicyKeys(x, replace("p", api.DepthPolicy, keyURI("C-p"), keyURI("C-p"))))
		}, api.InvalidArgument, "p", nil},
		{"LeavePolicy", func(x c) error { return e(w.LeavePolicy(x, leave("m"))) },
			func(x c) error { return e(w.LeavePolicy(x, leave("m"))) }, api.Conflict, "m", w.finishRolls},
		{"RecoverPolicy", func(x c) error { return e(w.RecoverPolicy(x, policyNamed("Sites"))) },
			func(x c) error { return e(w.RecoverPolicy(x, policyNamed("Sites"))) }, api.Conflict, "Sites", func() { w.finishRolls(); w.revoke("Sites") }},
		{"RestoreSites", func(x c) error { return e(w.RestoreSites(x, restoreSites("C-Sites", "D-Sites"))) },
			func(x c) error { return e(w.RestoreSites(x, restoreSites("C-Sites", "D-Sites"))) }, api.Conflict, "", nil},
		{"WhoAmI", func(x c) error { return e(w.WhoAmI(x, api.None{})) }, nil, "", "", nil},
		{"CreateToken", func(x c) error { return e(w.CreateToken(x, newToken(x))) },
			func(x c) error { return e(w.CreateToken(x, newToken(x))) }, api.AlreadyExists, "token", nil},
		{"ListTokens", func(x c) error { return e(w.ListTokens(x, api.None{})) }, nil, "", "", nil},
		{"RotateToken", func(x c) error { return e(w.RotateToken(x, api.RotateTokenInput{TokenInput: token})) },
			func(x c) error {
				return e(w.RotateToken(x, api.RotateTokenInput{TokenInput: api.TokenInput{Token: "none"}}))
			}, api.NotFound, "token", nil},
		{"RevokeToken", func(x c) error { return e(w.RevokeToken(x, token)) },
			func(x c) error { return e(w.RevokeToken(x, token)) }, api.NotFound, "token", nil},
		{"AddApprover", func(x c) error { return e(w.AddApprover(x, dana())) },
			func(x c) error { return e(w.AddApprover(x, dana())) }, api.AlreadyExists, "dana", nil},
		{"ListApprovers", func(x c) error { return e(w.ListApprovers(x, api.ApproverTenant{})) }, nil, "", "", nil},
		{"RemoveApprover", func(x c) error { return e(w.RemoveApprover(x, api.RemoveApproverInput{Approver: "dana"})) },
			func(x c) error { return e(w.RemoveApprover(x, api.RemoveApproverInput{Approver: "dana"})) }, api.NotFound, "dana", nil},
		{"CreateApplication", func(x c) error { return e(w.CreateApplication(x, payroll())) },
			func(x c) error { return e(w.CreateApplication(x, payroll())) }, api.AlreadyExists, "payroll", nil},
		{"ListApplications", func(x c) error { return e(w.ListApplications(x, api.None{})) }, nil, "", "", nil},
		{"AddApplicationCredential", func(x c) error {
			return e(w.AddApplicationCredential(x, api.AddApplicationCredentialInput{ApplicationInput: application}))
		}, func(x c) error {
			return e(w.AddApplicationCredential(x, api.AddApplicationCredentialInput{ApplicationInput: api.ApplicationInput{Application: "none"}}))
		}, api.NotFound, "payroll", nil},
		{"RemoveApplicationCredential", func(x c) error {
			return e(w.RemoveApplicationCredential(x, api.RemoveApplicationCredentialInput{ApplicationInput: application, Credential: credential}))
		}, func(x c) error {
			return e(w.RemoveApplicationCredential(x, api.RemoveApplicationCredentialInput{ApplicationInput: application, Credential: credential}))
		}, api.NotFound, "payroll", findCredential},
		{"RemoveApplication", func(x c) error {
			return e(w.RemoveApplication(x, api.RemoveApplicationInput{ApplicationInput: application}))
		},
			func(x c) error {
				return e(w.RemoveApplication(x, api.RemoveApplicationInput{ApplicationInput: application}))
			}, api.NotFound, "payroll", nil},
		{"RequestPurge", func(x c) error { return e(w.RequestPurge(x, purgeOf("p"))) },
			func(x c) error { return e(w.RequestPurge(x, purgeOf("p"))) }, api.Conflict, "p", func() { w.finishRolls(); w.revokeVaults("A-p", "B-p", "C-p", "D-p") }},
		{"ShowPurge", func(x c) error { return e(w.ShowPurge(x, policyNamed("p"))) },
			func(x c) error { return e(w.ShowPurge(x, policyNamed("Sites"))) }, api.NotFound, "p", nil},
		{"ListPurges", func(x c) error { return e(w.ListPurges(x, api.ListInput{})) }, nil, "", "", nil},
		{"ApprovePurge", func(x c) error { return e(w.ApprovePurge(x, policyNamed("Sites"))) },
			func(x c) error { return e(w.ApprovePurge(x, policyNamed("Sites"))) }, api.Conflict, "Sites", func() {
				other := access.Principal{ID: uuid.New(), Tenant: w.Tenant, Name: "who requests", Roles: []api.Role{api.Global}}
				w.revokeVaults("C-Sites", "D-Sites")
				w.Must(e(w.RequestPurge(w.as(other), purgeOf("Sites"))))
				w.InTx(func(tx *store.Tx) error { // so that the word's name is found
					_, err := tx.Exec(w.Ctx, `INSERT INTO principal (tenant, id, name, roles, secret_hash, created, kind) VALUES (?1, ?2, 'alice the admin', 'admin approver', ?3, 0, 'code')`,
						w.Tenant, w.admin.ID.String(), []byte("no secret has this hash"))
					return err
				})
			}},
		{"ListApprovals", func(x c) error { return e(w.ListApprovals(x, api.ListApprovalsInput{})) },
			func(x c) error {
				return e(w.ListApprovals(x, api.ListApprovalsInput{PageInput: api.PageInput{Limit: -1}}))
			}, api.InvalidArgument, "", nil},
		{"ShowApproval", func(x c) error { return e(w.ShowApproval(x, pending[0])) },
			func(x c) error { return e(w.ShowApproval(x, api.ApprovalInput{Approval: "1"})) }, api.NotFound, "", func() { waits(); waits(); waits() }},
		{"ApproveAct", func(x c) error { return e(w.ApproveAct(x, pending[0])) },
			func(x c) error { return e(w.ApproveAct(x, pending[0])) }, api.Conflict, "", nil},
		{"RejectAct", func(x c) error { return e(w.RejectAct(x, pending[1])) },
			func(x c) error { return e(w.RejectAct(x, pending[1])) }, api.Conflict, "", nil},
		{"WithdrawAct", func(x c) error { return e(w.WithdrawAct(x, pending[2])) },
			func(x c) error { return e(w.WithdrawAct(x, pending[2])) }, api.Conflict, "", nil},
		{"EnrolApprover", func(x c) error {
			p, err := access.PrincipalOf(x)
			if err != nil {
				return e(w.EnrolApprover(x, api.None{}))
			}
			p.Kind = access.ByCode
			return e(w.EnrolApprover(w.as(p), api.None{}))
		}, func(x c) error { return e(w.EnrolApprover(x, api.None{})) }, api.Conflict, "", nil},
	}
}

func collectBlobs(grace int64) (in api.CollectBlobsInput) {
	in.Body.GraceSeconds = grace
	return in
}

func TestEveryOperationWritesExactlyOneAuditEntry(t *testing.T) {
	each(t, func(w testService) {
		seen := map[int64]bool{}
		var tested []string
		for _, a := range w.acts() {
			if a.prepare != nil {
				a.prepare()
			}
			w.entries(seen)
			if err := a.done(w.ctx); err != nil {
				t.Fatalf("%s: %v", a.operation, err)
			}
			got := w.singleEntry(seen, a.operation, "done")
			if actor := w.opened(got, got.actor); actor != w.admin.Name {
				t.Errorf("%s: the actor is %q", a.operation, actor)
			}
			if a.target != "" && w.opened(got, got.target) != a.target {
				t.Errorf("%s: the target is %q, want %q", a.operation, w.opened(got, got.target), a.target)
			}
			if a.refused != nil {
				before := w.state()
				policytest.Refuses(t, a.refused(w.ctx), a.code)
				w.singleEntry(seen, a.operation, string(a.code))
				if w.state() != before {
					t.Errorf("%s: its refusal changed something", a.operation)
				}
			}
			tested = append(tested, a.operation)
		}
		for _, op := range api.Operations() {
			if !slices.Contains(tested, op.Name) {
				t.Errorf("operation %s is not tested", op.Name)
			}
		}
		w.namesNoOne()
	})
}

// namesNoOne searches the log for names in the clear.
func (w testService) namesNoOne() {
	w.Helper()
	log := strings.ToLower(w.Dump("audit_entry"))
	for _, name := range []string{"alice", "contoso", "plans", "secret plan", "hello"} {
		for _, form := range []string{name, fmt.Sprintf("%d", []byte(name))} {
			if strings.Contains(log, strings.Trim(form, "[]")) {
				w.Errorf("the audit log has %q in the clear", name)
			}
		}
	}
}

func TestRequestWithoutAPrincipalIsRefused(t *testing.T) {
	w := newTestService(policytest.New(t, storetest.One(t)))
	before := w.Dump()
	for _, a := range w.acts() {
		policytest.Refuses(t, a.done(w.Ctx), api.Unauthenticated)
	}
	if w.Dump() != before {
		t.Error("something changed")
	}
}

// A stream that was cut off has sent content, so the log has one entry of success.
func TestInterruptedStreamIsAuditedOnce(t *testing.T) {
	each(t, func(w testService) {
		w.Must(e(w.CreateMailbox(w.ctx, newMailbox(alice, ""))))
		w.Must(e(w.ImportMail(w.ctx, into(alice), -1, strings.NewReader(mbox))))
		seen := map[int64]bool{}
		w.entries(seen)
		broken := errors.New("the caller went away")
		if err := w.ExportMail(w.ctx, mailbox(alice), &breaking{after: 10, err: broken}); !errors.Is(err, broken) {
			t.Errorf("error is %v", err)
		}
		w.singleEntry(seen, "ExportMail", "done")
	})
}

// The audit entry of a stream is durable before its first byte is sent.
func TestEntryOfAStreamIsWrittenBeforeItsFirstByte(t *testing.T) {
	each(t, func(w testService) {
		w.Must(e(w.CreateSite(w.ctx, newSite(team))))
		w.Must(e(w.PutFile(w.ctx, file(team, path), -1, strings.NewReader("content"))))
		seen := map[int64]bool{}
		w.entries(seen)
		wrote := false
		w.Must(w.GetFile(w.ctx, file(team, path), from(0), writerFunc(func(p []byte) (int, error) {
			if !wrote {
				wrote = true
				w.singleEntry(seen, "GetFile", "done")
			}
			return len(p), nil
		})))
		if !wrote {
			t.Error("nothing was written")
		}
		w.Must(e(w.PutFile(w.ctx, file(team, "empty"), 0, strings.NewReader(""))))
		w.entries(seen)
		w.Must(w.GetFile(w.ctx, file(team, "empty"), from(0), io.Discard))
		w.singleEntry(seen, "GetFile", "done")
	})
}

// Recovery when both customer keys are lost: a new policy is assigned. The availability
// key of the old policy is used to move the mailbox's key, not for users before that;
// nothing can be moved to a revoked policy.
func TestMailboxWithLostKeysIsReadableUnderAnotherPolicy(t *testing.T) {
	each(t, func(w testService) {
		w.mailPolicy()
		w.Must(e(w.CreateMailbox(w.ctx, newMailbox(alice, "p"))))
		w.Must(e(w.ImportMail(w.ctx, into(alice), -1, strings.NewReader(mbox))))
		w.newKey("A-q")
		w.newKey("B-q")
		w.Must(e(w.CreatePolicy(w.ctx, newPolicy("q", keyURI("A-q"), keyURI("B-q")))))
		shut := func(policy string, err error) {
			w.Vaults.Fail("A-"+policy, err)
			w.Vaults.Fail("B-"+policy, err)
			w.Policies.Close()
		}
		shut("p", policytest.Denied())
		shut("q", policytest.Denied())
		policytest.Refuses(t, e(w.AssignMailbox(w.ctx, assign(alice, "q"))), api.VaultDenied)
		shut("q", nil)
		policytest.Refuses(t, w.ExportMail(w.ctx, mailbox(alice), io.Discard), api.VaultDenied)
		w.Must(e(w.AssignMailbox(w.ctx, assign(alice, "q"))))
		if got := w.export(alice); !strings.Contains(got, "hello") {
			t.Errorf("the mailbox has %q", got)
		}
		if log := w.Dump("audit_entry"); !strings.Contains(log, "Fallback to Availability Key") || !strings.Contains(log, ", job AssignMailbox") {
			t.Errorf("the log says nothing of the availability key:\n%s", log)
		}
	})
}

// A revoked tenant can read nothing, and the log has only the refusal.
func TestRefusedStreamWritesNothingAndIsAuditedAsRefused(t *testing.T) {
	each(t, func(w testService) {
		w.mailPolicy()
		w.Must(e(w.CreateMailbox(w.ctx, newMailbox(alice, "p"))))
		w.Must(e(w.ImportMail(w.ctx, into(alice), -1, strings.NewReader(mbox))))
		w.Vaults.Fail("A-p", policytest.Denied())
		w.Vaults.Fail("B-p", policytest.Denied())
		w.Policies.Close()
		seen := map[int64]bool{}
		w.entries(seen)
		var out bytes.Buffer
		policytest.Refuses(t, w.ExportMail(w.ctx, mailbox(alice), &out), api.VaultDenied)
		if out.Len() != 0 {
			t.Errorf("%d bytes left", out.Len())
		}
		w.singleEntry(seen, "ExportMail", string(api.VaultDenied))
		policytest.Refuses(t, e(w.ListMessages(w.ctx, api.ListMailboxItems{MailboxInput: mailbox(alice)})), api.VaultDenied)
		w.singleEntry(seen, "ListMessages", string(api.VaultDenied))
		policytest.Refuses(t, e(w.ImportMail(w.ctx, into(alice), -1, strings.NewReader(mbox))), api.VaultDenied)
		w.singleEntry(seen, "ImportMail", string(api.VaultDenied))
		w.show(alice) // a listing or a statistic is no access
	})
}

// If the audit log cannot be written, nothing is done, because its entry is in the same
// transaction; and the caller does not see the database's error text.
func TestOperationFailsIfItsAuditEntryCannotBeWritten(t *testing.T) {
	each(t, func(w testService) {
		w.Must(e(w.CreateMailbox(w.ctx, newMailbox(alice, ""))))
		w.InTx(func(tx *store.Tx) error {
			_, err := tx.Exec(w.Ctx, `ALTER TABLE audit_entry RENAME TO audit_entry_gone`)
			return err
		})
		before := w.state()
		for name, err := range map[string]error{
			"a change":  e(w.SetMailboxState(w.ctx, newState(alice, api.Inactive))),
			"a refusal": e(w.CreateMailbox(w.ctx, newMailbox(alice, ""))),
			"a read":    e(w.ShowMailbox(w.ctx, mailbox(alice))),
		} {
			if code, detail, _ := fail.Public(err); err == nil || code != api.Internal || strings.Contains(detail, "audit_entry") {
				t.Errorf("%s: %v", name, err)
			}
		}
		if w.state() != before {
			t.Error("something changed")
		}
	})
}

type breaking struct {
	after int
	err   error
}

func (b *breaking) Write(p []byte) (int, error) {
	if b.after -= len(p); b.after < 0 {
		return 0, b.err
	}
	return len(p), nil
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// from selects all of a file from off on.
func from(off int64) func(api.File) (int64, int64, error) {
	return func(api.File) (int64, int64, error) { return off, -1, nil }
}
