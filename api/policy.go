package api

import "net/http"

// Probe is what one root of a policy did when it was asked to wrap and unwrap.
type Probe struct {
	Root         string  `json:"root" doc:"primary, secondary or availability"`
	Key          string  `json:"key" doc:"URI of the key version; of an availability key its id and version"`
	Wraps        bool    `json:"wraps"`
	Unwraps      bool    `json:"unwraps"`
	Milliseconds float64 `json:"milliseconds" doc:"for both together"`
	Detail       string  `json:"detail,omitempty" doc:"why it did not"`
}

// GeoInput names a geo.
type GeoInput struct {
	Geo string `json:"geo,omitempty" doc:"name of the geo, or the URL of its admin site; the default geo unless given"`
}

type (
	// SetPolicyInput changes what is given.
	SetPolicyInput struct {
		PolicyInput
		Body struct {
			Name        *string `json:"name,omitempty"`
			Description *string `json:"description,omitempty"`
			Enabled     *bool   `json:"enabled,omitempty"`
			DryRunOption
		}
	}
	CheckKeysInput struct {
		Body struct {
			Kind PolicyKind `json:"kind" enum:"mailbox,multi-workload,site" doc:"of the policy that the keys are for"`
			Keys []string   `json:"keys" doc:"two key URIs; without a version the newest is checked"`
		}
	}
	ReplacePolicyKeysInput struct {
		PolicyInput
		Body struct {
			Keys  []string `json:"keys" doc:"two key URIs without a version, in two vaults"`
			Depth Depth    `json:"depth,omitempty" enum:"root,policy,container,content" doc:"policy unless given"`
			RollOptions
		}
	}
	LeavePolicyInput struct {
		PolicyInput
		DryRun bool `query:"dryRun" doc:"refuse what would be refused, and change nothing"`
	}
	AssignPolicyInput struct {
		Body struct {
			Policy string `json:"policy" doc:"a multi-workload policy"`
			DryRunOption
		}
	}
	RestoreSitesInput struct {
		Body struct {
			GeoInput
			Primary   KeyVersion `json:"primary"`
			Secondary KeyVersion `json:"secondary"`
			DryRunOption
		}
	}
)

// KeyCheck is what a policy would make of two keys.
type KeyCheck struct {
	Refusals []Refusal `json:"refusals" doc:"each of them refuses the keys"`
	Warnings []string  `json:"warnings" doc:"what would be let pass"`
}

// Refusal is one reason for which keys are refused.
type Refusal struct {
	Code   Code   `json:"code"`
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"`
}

// What is done with policies beside creating, refreshing and updating them.
var (
	CheckKeys = define[CheckKeysInput, KeyCheck](Meta{Name: "CheckKeys", Method: http.MethodPost, Path: "/v1/key-check",
		Summary: "Say what a policy would refuse of two keys, all at once; make nothing"})
	SetPolicy = define[SetPolicyInput, Policy](Meta{Name: "SetPolicy", Method: http.MethodPatch, Path: "/v1/policies/{policy}",
		Summary: "Change a policy's name or description, enable or disable it"})
	ReplacePolicyKeys = define[ReplacePolicyKeysInput, Refreshed](Meta{Name: "ReplacePolicyKeys", Method: http.MethodPost, Path: "/v1/policies/{policy}/replace",
		Summary: "Put a policy under two other customer keys and roll"})
	LeavePolicy = define[LeavePolicyInput, Refreshed](Meta{Name: "LeavePolicy", Method: http.MethodPost, Path: "/v1/policies/{policy}/leave",
		Summary: "Bring everything that a policy protects back to where it stands without it, and disable the policy"})
	TestPolicy = define[PolicyInput, List[Probe]](Meta{Name: "TestPolicy", Method: http.MethodPost, Path: "/v1/policies/{policy}/test",
		Summary: "Have each root of a policy wrap and unwrap"})
	AssignPolicy = define[AssignPolicyInput, Policy](Meta{Name: "AssignPolicy", Method: http.MethodPut, Path: "/v1/assignment",
		Summary: "Assign a multi-workload policy to the tenant, in place of the one assigned before"})
	ShowAssignment = define[None, Policy](Meta{Name: "ShowAssignment", Method: http.MethodGet, Path: "/v1/assignment",
		Summary: "Show the multi-workload policy that is assigned to the tenant"})
	RecoverPolicy = define[PolicyInput, Policy](Meta{Name: "RecoverPolicy", Method: http.MethodPost, Path: "/v1/policies/{policy}/recover",
		Summary: "Put a site policy whose customer keys are lost into recovery mode: the availability key opens it until its keys are restored"})
	RestoreSites = define[RestoreSitesInput, Policy](Meta{Name: "RestoreSites", Method: http.MethodPost, Path: "/v1/policies/sites/restore",
		Summary: "Put a site policy in recovery mode under two new customer keys"})
)
