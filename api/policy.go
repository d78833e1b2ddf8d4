package api

import "net/http"

// Probe is the result of wrapping and unwrapping with one root key of a policy.
type Probe struct {
	Root         string  `json:"root" doc:"primary, secondary or availability"`
	Key          string  `json:"key" doc:"URI of the key version; for an availability key, its id and version"`
	Wraps        bool    `json:"wraps"`
	Unwraps      bool    `json:"unwraps"`
	Milliseconds float64 `json:"milliseconds" doc:"time of both operations together"`
	Detail       string  `json:"detail,omitempty" doc:"why an operation failed"`
}

// GeoInput names a geo.
type GeoInput struct {
	Geo string `json:"geo,omitempty" doc:"name of the geo, or the URL of its admin site; default: the default geo"`
}

type (
	// SetPolicyInput changes the members that are given.
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
			Kind PolicyKind `json:"kind" enum:"mailbox,multi-workload,site" doc:"kind of the policy that the keys are for"`
			Keys []string   `json:"keys" doc:"two key URIs; without a version the newest is checked"`
		}
	}
	ReplacePolicyKeysInput struct {
		PolicyInput
		Body struct {
			Keys  []string `json:"keys" doc:"two key URIs without a version, in two vaults"`
			Depth Depth    `json:"depth,omitempty" enum:"root,policy,container,content" doc:"default: policy"`
			RollOptions
		}
	}
	LeavePolicyInput struct {
		PolicyInput
		DryRun bool `query:"dryRun" doc:"change nothing, but fail where the change would fail"`
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

// KeyCheck is whether a policy would accept two keys.
type KeyCheck struct {
	Refusals []Refusal `json:"refusals" doc:"reasons for which the keys are refused; empty if they are accepted"`
	Warnings []string  `json:"warnings" doc:"findings that do not refuse the keys"`
}

// Refusal is one reason for which keys are refused.
type Refusal struct {
	Code   Code   `json:"code"`
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"`
}

// Further operations on policies.
var (
	CheckKeys = define[CheckKeysInput, KeyCheck](Meta{Name: "CheckKeys", Method: http.MethodPost, Path: "/v1/key-check",
		Summary: "Check two keys for a policy and return all refusals and warnings; nothing is created"})
	SetPolicy = define[SetPolicyInput, Policy](Meta{Name: "SetPolicy", Method: http.MethodPatch, Path: "/v1/policies/{policy}",
		Summary: "Change a policy's name or description; enable or disable it"})
	ReplacePolicyKeys = define[ReplacePolicyKeysInput, Refreshed](Meta{Name: "ReplacePolicyKeys", Method: http.MethodPost, Path: "/v1/policies/{policy}/replace",
		Summary: "Replace both customer keys of a policy, and roll"})
	LeavePolicy = define[LeavePolicyInput, Refreshed](Meta{Name: "LeavePolicy", Method: http.MethodPost, Path: "/v1/policies/{policy}/leave",
		Summary: "Return everything that a policy protects to the policy that applies without it, and disable the policy"})
	TestPolicy = define[PolicyInput, List[Probe]](Meta{Name: "TestPolicy", Method: http.MethodPost, Path: "/v1/policies/{policy}/test",
		Summary: "Test each root key of a policy by wrapping and unwrapping"})
	AssignPolicy = define[AssignPolicyInput, Policy](Meta{Name: "AssignPolicy", Method: http.MethodPut, Path: "/v1/assignment",
		Summary: "Assign a multi-workload policy to the tenant, replacing the one assigned before"})
	ShowAssignment = define[None, Policy](Meta{Name: "ShowAssignment", Method: http.MethodGet, Path: "/v1/assignment",
		Summary: "Show the multi-workload policy that is assigned to the tenant"})
	RecoverPolicy = define[PolicyInput, Policy](Meta{Name: "RecoverPolicy", Method: http.MethodPost, Path: "/v1/policies/{policy}/recover",
		Summary: "Put a site policy whose customer keys are lost into recovery mode: its availability key is used until the customer keys are restored"})
	RestoreSites = define[RestoreSitesInput, Policy](Meta{Name: "RestoreSites", Method: http.MethodPost, Path: "/v1/policies/sites/restore",
		Summary: "Put a site policy in recovery mode under two new customer keys"})
)
