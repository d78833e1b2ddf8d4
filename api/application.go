package api

import (
	"net/http"
	"time"
)

// ApplicationInfo is a program that uses vaults and logs in with secrets of its own.
type ApplicationInfo struct {
	ID      string       `json:"id" doc:"application id and object id, a GUID"`
	Name    string       `json:"name"`
	Created time.Time    `json:"created"`
	Secrets []Credential `json:"secrets"`
}

// Credential is a secret of an application, without the secret itself.
type Credential struct {
	ID      string    `json:"id" doc:"GUID"`
	Name    string    `json:"name,omitempty"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
}

// CreatedCredential is a new secret, which is returned only once.
type CreatedCredential struct {
	Credential
	Secret string `json:"secret,omitempty" doc:"absent after a dry run"`
}

// CreatedApplication is a new application with its first secret, which is returned only once.
type CreatedApplication struct {
	ApplicationInfo
	Secret string `json:"secret,omitempty" doc:"absent after a dry run"`
}

// ApplicationInput names an application.
type ApplicationInput struct {
	Application string `path:"application" doc:"name, or application id"`
}

type (
	CreateApplicationInput struct {
		Body struct {
			Name    string    `json:"name"`
			Expires time.Time `json:"expires,omitzero" doc:"when the secret expires; default: in one year"`
			DryRunOption
		}
	}
	RemoveApplicationInput struct {
		ApplicationInput
		DryRun bool `query:"dryRun" doc:"change nothing, but fail where the change would fail"`
	}
	AddApplicationCredentialInput struct {
		ApplicationInput
		Body struct {
			Name    string    `json:"name,omitempty"`
			Expires time.Time `json:"expires,omitzero" doc:"default: in one year"`
			DryRunOption
		}
	}
	RemoveApplicationCredentialInput struct {
		ApplicationInput
		Credential string `path:"credential" doc:"GUID of the secret"`
		DryRun     bool   `query:"dryRun" doc:"change nothing, but fail where the change would fail"`
	}
)

// Applications.
var (
	CreateApplication = define[CreateApplicationInput, CreatedApplication](Meta{Name: "CreateApplication", Method: http.MethodPost, Path: "/v1/applications",
		Summary: "Register an application; its first secret is in this response and is never returned again"})
	ListApplications = define[None, List[ApplicationInfo]](Meta{Name: "ListApplications", Method: http.MethodGet, Path: "/v1/applications",
		Summary: "List the applications with their secrets' ids and expiry"})
	RemoveApplication = define[RemoveApplicationInput, None](Meta{Name: "RemoveApplication", Method: http.MethodDelete, Path: "/v1/applications/{application}",
		Summary: "Remove an application; its tokens are refused at once"})
	AddApplicationCredential = define[AddApplicationCredentialInput, CreatedCredential](Meta{Name: "AddApplicationCredential", Method: http.MethodPost, Path: "/v1/applications/{application}/credentials",
		Summary: "Add a secret to an application; it is in this response and is never returned again"})
	RemoveApplicationCredential = define[RemoveApplicationCredentialInput, None](Meta{Name: "RemoveApplicationCredential", Method: http.MethodDelete, Path: "/v1/applications/{application}/credentials/{credential}",
		Summary: "Remove a secret of an application; tokens that were issued for it expire within an hour"})
)
