package api

import "net/http"

// RolledAvailabilityKeys says what a roll of availability keys did.
type RolledAvailabilityKeys struct {
	Keys      int `json:"keys" doc:"availability keys that got a new version"`
	Wraps     int `json:"wraps" doc:"wraps that were replaced"`
	Destroyed int `json:"destroyed" doc:"older versions that nothing needs any more, and that are gone"`
}

type RollAvailabilityKeysInput struct {
	Body struct {
		Policy string `json:"policy,omitempty" doc:"only this policy's availability key; all of the tenant's unless given"`
	}
}

// RollAvailabilityKeys is the operator's; nobody sees a key.
var RollAvailabilityKeys = define[RollAvailabilityKeysInput, RolledAvailabilityKeys](Meta{Name: "RollAvailabilityKeys", Method: http.MethodPost, Path: "/v1/availability/roll", Role: Operator, Initiator: BySystem,
	Summary: "Give availability keys a new version, replace all wraps under the older ones, and destroy those"})
