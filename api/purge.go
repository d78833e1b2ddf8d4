package api

import (
	"net/http"
	"time"
)

// PurgeState is how far a purge has come.
type PurgeState string

const (
	// PurgeRequested waits for approvals; the policy no longer accepts containers.
	PurgeRequested PurgeState = "requested"
	// PurgeApproved has its approvals and is being carried out.
	PurgeApproved PurgeState = "approved"
	// Purged is complete: the availability key is destroyed.
	Purged PurgeState = "purged"
)

// Purge irreversibly destroys what a policy protects.
type Purge struct {
	Policy    string          `json:"policy" doc:"name of the policy"`
	PolicyID  string          `json:"policyId" doc:"GUID"`
	State     PurgeState      `json:"state"`
	Reason    string          `json:"reason"`
	Contact   string          `json:"contact"`
	Requested time.Time       `json:"requested"`
	Approvals []PurgeApproval `json:"approvals"`
	// PolicyDeleted, ContainersMarked and AvailabilityKeyDestroyed are when each
	// step was done, in that order.
	PolicyDeleted            *time.Time `json:"policyDeleted,omitempty"`
	ContainersMarked         *time.Time `json:"containersMarked,omitempty"`
	AvailabilityKeyDestroyed *time.Time `json:"availabilityKeyDestroyed,omitempty"`
	Containers               int64      `json:"containers" doc:"number of containers that the policy protects, or protected"`
	// Message says what a purge waits for.
	Message string `json:"message,omitempty"`
	// Destroy lists the key versions that the customer must still destroy.
	Destroy []KeyVersion `json:"destroy"`
	// Limit says what the purge cannot promise where it runs.
	Limit    string   `json:"limit,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
}

// PurgeApproval is one approval of a purge.
type PurgeApproval struct {
	Approver string    `json:"approver"`
	At       time.Time `json:"at"`
}

type (
	RequestPurgeInput struct {
		PolicyInput
		Body struct {
			Reason  string `json:"reason"`
			Contact string `json:"contact"`
			Force   bool   `json:"force,omitempty" doc:"a vault or a key of the policy has been deleted already"`
			DryRunOption
		}
	}
)

// Purges.
var (
	RequestPurge = define[RequestPurgeInput, Purge](Meta{Name: "RequestPurge", Method: http.MethodPost, Path: "/v1/policies/{policy}/purge",
		Summary: "Request the purge of a policy and of all that it protects; it waits for two approvers"})
	ShowPurge = define[PolicyInput, Purge](Meta{Name: "ShowPurge", Method: http.MethodGet, Path: "/v1/policies/{policy}/purge",
		Summary: "Show the progress of the purge of a policy"})
	ListPurges = define[ListInput, List[Purge]](Meta{Name: "ListPurges", Method: http.MethodGet, Path: "/v1/purges",
		Summary: "List purges"})
	ApprovePurge = define[PolicyInput, Purge](Meta{Name: "ApprovePurge", Method: http.MethodPost, Path: "/v1/policies/{policy}/purge/approve",
		Summary: "Approve the purge of a policy; the second approval carries it out"})
)
