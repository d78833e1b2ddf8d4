package api

import "net/http"

// RolledAvailabilityKeys says what a roll of availability keys did.
type RolledAvailabilityKeys struct {
	Keys      int `json:"keys" doc:"availability keys that got a new version"`
	Wraps     int `json:"wraps" doc:"wraps that were replaced"`
	Destroyed int `json:"destroyed" doc:"older versions that nothing needed any more and that were destroyed"`
}

type RollAvailabilityKeysInput struct {
	Body struct {
		Policy string `json:"policy,omitempty" doc:"roll only this policy's availability key; default: all of the tenant's"`
	}
}

// RollAvailabilityKeys is an operation of the operator; it returns no key.
var RollAvailabilityKeys = define[RollAvailabilityKeysInput, RolledAvailabilityKeys](Meta{Name: "RollAvailabilityKeys", Method: http.MethodPost, Path: "/v1/availability/roll", Initiator: BySystem,
	Summary: "Give availability keys a new version, replace all wraps by older versions, and destroy the older versions"})
