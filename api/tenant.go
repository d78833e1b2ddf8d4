package api

import (
	"net/http"
	"time"
)

// Tenant is an organisation.
type Tenant struct {
	ID      string    `json:"id" doc:"GUID"`
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	Outside
}

// Outside lists the vaults outside this keyroll that a tenant may use.
type Outside struct {
	Directories []string `json:"directories,omitempty" doc:"GUIDs of Entra directories, all of whose vaults the tenant may use; a directory belongs to one tenant"`
	Vaults      []string `json:"vaults,omitempty" doc:"URLs of vaults"`
}

// CreatedTenant is a new tenant with its admin's token, which is returned only once.
type CreatedTenant struct {
	Tenant
	AdminToken string `json:"adminToken"`
}

// Geo is a named part of a tenant; a site policy covers every site of one geo.
type Geo struct {
	Name string `json:"name"`
	// Default is whether the geo has all sites whose host no other geo has.
	Default bool      `json:"default"`
	Hosts   []string  `json:"hosts" doc:"host names of its sites; the admin site of HOST.sharepoint.com is HOST-admin.sharepoint.com"`
	Policy  string    `json:"policy" doc:"name of its site policy; empty if the geo is under service-managed keys"`
	Sites   int64     `json:"sites"`
	Created time.Time `json:"created"`
}

// TenantHeader is the request header that may name the tenant that a request is
// meant for, by name or GUID, percent-encoded. A token of another tenant is then
// refused.
const TenantHeader = "Keyroll-Tenant"

// TenantInput names a tenant.
type TenantInput struct {
	Tenant string `path:"tenant" doc:"name or GUID"`
}

type (
	CreateTenantInput struct {
		Body struct {
			Name     string `json:"name"`
			Operator bool   `json:"operator,omitempty" doc:"its admin runs the installation too, like that of the first tenant"`
		}
	}
	SetTenantInput struct {
		TenantInput
		Body struct {
			Add    Outside `json:"add,omitzero"`
			Remove Outside `json:"remove,omitzero"`
		}
	}
	CreateGeoInput struct {
		Body struct {
			Name  string   `json:"name"`
			Hosts []string `json:"hosts"`
		}
	}
)

// Tenants and geos.
var (
	CreateTenant = define[CreateTenantInput, CreatedTenant](Meta{Name: "CreateTenant", Method: http.MethodPost, Path: "/v1/tenants",
		Summary: "Create a tenant; its admin's token is in this response and is never returned again"})
	ListTenants = define[ListInput, List[Tenant]](Meta{Name: "ListTenants", Method: http.MethodGet, Path: "/v1/tenants",
		Summary: "List tenants"})
	ShowTenant = define[TenantInput, Tenant](Meta{Name: "ShowTenant", Method: http.MethodGet, Path: "/v1/tenants/{tenant}",
		Summary: "Show a tenant"})
	SetTenant = define[SetTenantInput, Tenant](Meta{Name: "SetTenant", Method: http.MethodPatch, Path: "/v1/tenants/{tenant}",
		Summary: "Set which vaults outside this keyroll a tenant may use"})
	CreateGeo = define[CreateGeoInput, Geo](Meta{Name: "CreateGeo", Method: http.MethodPost, Path: "/v1/geos",
		Summary: "Create a geo for the sites of some hosts"})
	ListGeos = define[ListInput, List[Geo]](Meta{Name: "ListGeos", Method: http.MethodGet, Path: "/v1/geos",
		Summary: "List geos"})
)
