package api

import (
	"net/http"
	"time"
)

// ApproverInfo is a person who may approve acts that need a second person.
type ApproverInfo struct {
	ID       string     `json:"id" doc:"GUID of the principal"`
	Name     string     `json:"name"`
	State    string     `json:"state" enum:"invited,enrolled,earlier" doc:"invited: the one-time code was not exchanged yet. earlier: registered by a version without enrolment, and has to enrol again"`
	Issuer   string     `json:"issuer,omitempty" doc:"name of who issued the code, or GUID if that is not of this tenant"`
	Since    time.Time  `json:"since" doc:"of the state"`
	Expires  *time.Time `json:"expires,omitempty" doc:"when the code expires"`
	LastUsed *time.Time `json:"lastUsed,omitempty" doc:"to the minute"`
}

// InvitedApprover is a new approver with the one-time code, which is returned only once.
type InvitedApprover struct {
	ApproverInfo
	Code string `json:"code"`
}

// ApproverTenant names the tenant of an approver, for an operator.
type ApproverTenant struct {
	Tenant string `query:"tenant" doc:"name or GUID of the tenant of the approver, for an operator; default: the caller's own"`
}

type (
	AddApproverInput struct {
		ApproverTenant
		Body struct {
			Name string `json:"name"`
		}
	}
	RemoveApproverInput struct {
		ApproverTenant
		Approver string `path:"approver" doc:"name or GUID"`
	}
)

// Approvers.
var (
	AddApprover = define[AddApproverInput, InvitedApprover](Meta{Name: "AddApprover", Method: http.MethodPost, Path: "/v1/approvers",
		Summary: "Register an approver; the one-time code with which that person enrols is in this response and is never returned again"})
	EnrolApprover = define[None, CreatedToken](Meta{Name: "EnrolApprover", Method: http.MethodPost, Path: "/v1/enrolment",
		Summary: "Exchange a one-time code, which the request has as its token, for the approver's own token"})
	ListApprovers = define[ApproverTenant, List[ApproverInfo]](Meta{Name: "ListApprovers", Method: http.MethodGet, Path: "/v1/approvers",
		Summary: "List the approvers"})
	RemoveApprover = define[RemoveApproverInput, None](Meta{Name: "RemoveApprover", Method: http.MethodDelete, Path: "/v1/approvers/{approver}",
		Summary: "Remove an approver: another approver does, for the last one the operator, and before that person has enrolled an admin"})
)
