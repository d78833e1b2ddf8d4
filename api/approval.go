package api

import (
	"fmt"
	"net/http"
	"time"
)

// ApprovalState is how far an act that needs a second person has come.
type ApprovalState string

const (
	// ApprovalPending waits for approvals; nothing of the act was done.
	ApprovalPending ApprovalState = "pending"
	// ApprovalApproved has its approvals and is being done.
	ApprovalApproved ApprovalState = "approved"
	// ApprovalDone was done.
	ApprovalDone ApprovalState = "done"
	// ApprovalFailed was approved and then refused.
	ApprovalFailed ApprovalState = "failed"
	// ApprovalRejected was rejected by an approver.
	ApprovalRejected ApprovalState = "rejected"
	// ApprovalWithdrawn was withdrawn by the requester or an approver.
	ApprovalWithdrawn ApprovalState = "withdrawn"
	// ApprovalExpired was not approved in time.
	ApprovalExpired ApprovalState = "expired"
)

// Approval is an act that needs a second person.
type Approval struct {
	ID        string           `json:"id"`
	Operation string           `json:"operation" doc:"the operation that is done once it is approved"`
	Target    string           `json:"target" doc:"what it is done to"`
	Act       string           `json:"act" doc:"the act in words"`
	State     ApprovalState    `json:"state"`
	Requester string           `json:"requester" doc:"name of the principal"`
	Requested time.Time        `json:"requested"`
	Expires   time.Time        `json:"expires"`
	Needed    int              `json:"needed" doc:"number of approvals that it needs"`
	Decisions []ApprovalChoice `json:"decisions"`
	Ended     *time.Time       `json:"ended,omitempty"`
	Outcome   string           `json:"outcome,omitempty" doc:"why it failed"`
}

// Pending is part of the result of an operation that may need a second person.
type Pending struct {
	PendingApproval string `json:"pendingApproval,omitempty" doc:"id of the request that waits for approval; nothing was changed yet"`
}

// Notice says that nothing was changed yet; empty if the operation was done.
func (p Pending) Notice() string {
	if p.PendingApproval == "" {
		return ""
	}
	return fmt.Sprintf("nothing was changed yet: request %s waits for an approver (keyroll approval approve %s)", p.PendingApproval, p.PendingApproval)
}

// ApprovalChoice is what one approver said of an act.
type ApprovalChoice struct {
	Approver string    `json:"approver"`
	Approves bool      `json:"approves"`
	At       time.Time `json:"at"`
}

// ApprovalInput names an act that needs a second person.
type ApprovalInput struct {
	Approval string `path:"approval" doc:"id"`
}

// ListApprovalsInput selects acts that need a second person.
type ListApprovalsInput struct {
	PageInput
	All bool `query:"all" doc:"those that wait for no decision too"`
}

// Acts that need a second person.
var (
	ListApprovals = define[ListApprovalsInput, List[Approval]](Meta{Name: "ListApprovals", Method: http.MethodGet, Path: "/v1/approvals",
		Summary: "List the acts that wait for a second person"})
	ShowApproval = define[ApprovalInput, Approval](Meta{Name: "ShowApproval", Method: http.MethodGet, Path: "/v1/approvals/{approval}",
		Summary: "Show an act that needs a second person"})
	ApproveAct = define[ApprovalInput, Approval](Meta{Name: "ApproveAct", Method: http.MethodPost, Path: "/v1/approvals/{approval}/approve",
		Summary: "Approve an act; with the last approval that it needs it is done"})
	RejectAct = define[ApprovalInput, Approval](Meta{Name: "RejectAct", Method: http.MethodPost, Path: "/v1/approvals/{approval}/reject",
		Summary: "Reject an act, which ends it"})
	WithdrawAct = define[ApprovalInput, Approval](Meta{Name: "WithdrawAct", Method: http.MethodPost, Path: "/v1/approvals/{approval}/withdraw",
		Summary: "Withdraw an act that was not approved yet: its requester or any approver"})
)
