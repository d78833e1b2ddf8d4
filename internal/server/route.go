package server

import (
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/httpcheck"
	"keyroll/internal/service"
)

// operations is the table of the service: each operation of package api with the method
// that does it. The context of a call carries the principal (access.PrincipalOf) and the
// origin (audit.OriginOf) with the request's id.
func operations(s *service.Service) []operation {
	return []operation{
		call(api.CreateMailbox, s.CreateMailbox),
		call(api.ListMailboxes, s.ListMailboxes),
		call(api.ShowMailbox, s.ShowMailbox),
		call(api.SetMailboxState, s.SetMailboxState),
		call(api.AssignMailbox, s.AssignMailbox),
		receive(api.ImportMail, s.ImportMail),
		call(api.ListMailImports, s.ListMailImports),
		call(api.StopMailImport, s.StopMailImport),
		send(api.ExportMail, s.ExportMail),
		call(api.ListMessages, s.ListMessages),
		send(api.ReadMessage, s.ReadMessage),

		call(api.CreateSite, s.CreateSite),
		call(api.ListSites, s.ListSites),
		call(api.ShowSite, s.ShowSite),
		call(api.ListFiles, s.ListFiles),
		receive(api.PutFile, s.PutFile),
		fileOperation{s.GetFile},

		call(api.CreatePolicy, s.CreatePolicy),
		call(api.CheckKeys, s.CheckKeys),
		call(api.RegisterSites, s.RegisterSites),
		call(api.ListPolicies, s.ListPolicies),
		call(api.ShowPolicy, s.ShowPolicy),
		call(api.RefreshPolicy, s.RefreshPolicy),
		call(api.UpdatePolicy, s.UpdatePolicy),
		call(api.TestPolicy, s.TestPolicy),
		call(api.SetPolicy, s.SetPolicy),
		call(api.ReplacePolicyKeys, s.ReplacePolicyKeys),
		call(api.LeavePolicy, s.LeavePolicy),
		call(api.AssignPolicy, s.AssignPolicy),
		call(api.ShowAssignment, s.ShowAssignment),

		call(api.ListWorkloads, s.ListWorkloads),
		call(api.ListWorkloadItems, s.ListWorkloadItems),
		receive(api.PutWorkloadItem, s.PutWorkloadItem),
		send(api.GetWorkloadItem, s.GetWorkloadItem),

		call(api.RollAvailabilityKeys, s.RollAvailabilityKeys),

		call(api.CreateBackup, s.CreateBackup),
		call(api.ListBackups, s.ListBackups),
		call(api.RestoreBackup, s.RestoreBackup),
		call(api.ExpireBackup, s.ExpireBackup),
		call(api.AbandonContainer, s.AbandonContainer),

		call(api.ListRolls, s.ListRolls),
		call(api.ShowRoll, s.ShowRoll),
		call(api.PauseRoll, s.PauseRoll),
		call(api.ResumeRoll, s.ResumeRoll),
		call(api.CancelRoll, s.CancelRoll),

		call(api.CreateTenant, s.CreateTenant),
		call(api.ListTenants, s.ListTenants),
		call(api.ShowTenant, s.ShowTenant),
		call(api.SetTenant, s.SetTenant),
		call(api.CreateGeo, s.CreateGeo),
		call(api.ListGeos, s.ListGeos),

		call(api.WhoAmI, s.WhoAmI),
		call(api.CreateToken, s.CreateToken),
		call(api.ListTokens, s.ListTokens),
		call(api.RotateToken, s.RotateToken),
		call(api.RevokeToken, s.RevokeToken),
		call(api.ListApprovals, s.ListApprovals),
		call(api.ShowApproval, s.ShowApproval),
		call(api.ApproveAct, s.ApproveAct),
		call(api.RejectAct, s.RejectAct),
		call(api.WithdrawAct, s.WithdrawAct),
		call(api.AddApprover, s.AddApprover),
		call(api.EnrolApprover, s.EnrolApprover),
		call(api.ListApprovers, s.ListApprovers),
		call(api.RemoveApprover, s.RemoveApprover),

		call(api.CreateApplication, s.CreateApplication),
		call(api.ListApplications, s.ListApplications),
		call(api.RemoveApplication, s.RemoveApplication),
		call(api.AddApplicationCredential, s.AddApplicationCredential),
		call(api.RemoveApplicationCredential, s.RemoveApplicationCredential),

		call(api.RequestPurge, s.RequestPurge),
		call(api.ShowPurge, s.ShowPurge),
		call(api.ListPurges, s.ListPurges),
		call(api.ApprovePurge, s.ApprovePurge),
		call(api.RecoverPolicy, s.RecoverPolicy),
		call(api.RestoreSites, s.RestoreSites),

		call(api.ListKeyUsage, s.ListKeyUsage),
		follow(api.Verify, s.Verify, verifyEvent),
		follow(api.CollectBlobs, s.CollectBlobs, collectBlobsEvent),
	}
}

// routes is the mux for huma. It adds the checks that all operations share to each
// route.
type routes struct {
	http.Handler
	h *handler
}

func (t routes) HandleFunc(pattern string, next func(http.ResponseWriter, *http.Request)) {
	t.h.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			t.h.notFound(w, r) // the mux would route HEAD as GET; the table has no HEAD
			return
		}
		requestOf(r.Context()).route = pattern
		err := t.h.checkRole(r.Context(), t.h.operations[pattern])
		if err == nil {
			err = httpcheck.CheckCoding(r)
		}
		if err == nil {
			err = checkQuery(r.URL.RawQuery)
		}
		if err != nil {
			u := newUpload(w, r)
			t.h.refuse(w, r, err)
			u.linger()
			return
		}
		next(w, r)
	})
}

// prepareBody returns a middleware that prepares the body of a request for its operation.
func (h *handler) prepareBody(sends api.Body) func(huma.Context, func(huma.Context)) {
	return func(c huma.Context, next func(huma.Context)) {
		r, w := humago.Unwrap(c)
		switch sends {
		case api.JSON:
			if err := readJSON(w, r); err != nil {
				h.refuse(w, r, err)
				return
			}
		case api.Bytes:
			u := newUpload(w, r)
			next(huma.WithValue(c, uploadKey{}, u))
			u.linger()
			return
		default:
			if r.ContentLength != 0 {
				h.refuse(w, r, fail.New(api.InvalidArgument, "the operation has no request body"))
				return
			}
		}
		next(c)
	}
}
