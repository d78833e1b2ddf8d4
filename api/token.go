package api

import (
	"net/http"
	"time"
)

// Token is a principal that authenticates by a token of keyroll.
type Token struct {
	ID       string     `json:"id" doc:"GUID of the principal"`
	Name     string     `json:"name"`
	Roles    []Role     `json:"roles"`
	Issuer   string     `json:"issuer,omitempty" doc:"name of who issued it, or GUID if that is not of this tenant"`
	Created  time.Time  `json:"created"`
	Expires  *time.Time `json:"expires,omitempty"`
	LastUsed *time.Time `json:"lastUsed,omitempty" doc:"to the minute"`
}

// CreatedToken is a principal with its new token, which is returned only once.
type CreatedToken struct {
	Token
	Secret string `json:"token"`
}

// Identity is who a caller is.
type Identity struct {
	ID       string     `json:"id" doc:"GUID of the principal"`
	Name     string     `json:"name"`
	Tenant   string     `json:"tenant"`
	TenantID string     `json:"tenantId"`
	Roles    []Role     `json:"roles"`
	Expires  *time.Time `json:"expires,omitempty" doc:"when the token expires"`
}

// TokenInput names a token.
type TokenInput struct {
	Token string `path:"token" doc:"name, or GUID of its principal"`
}

type (
	CreateTokenInput struct {
		Body struct {
			Name    string    `json:"name"`
			Roles   []Role    `json:"roles" doc:"roles that the caller may grant: an operator operator, a global admin those within its tenant but approver"`
			Expires time.Time `json:"expires,omitzero" doc:"default: never"`
		}
	}
	RotateTokenInput struct {
		TokenInput
		Body struct {
			Expires time.Time `json:"expires,omitzero" doc:"default: never"`
		}
	}
)

// Tokens.
var (
	CreateToken = define[CreateTokenInput, CreatedToken](Meta{Name: "CreateToken", Method: http.MethodPost, Path: "/v1/tokens",
		Summary: "Create a token with a name and roles; it is in this response and is never returned again"})
	ListTokens = define[None, List[Token]](Meta{Name: "ListTokens", Method: http.MethodGet, Path: "/v1/tokens",
		Summary: "List tokens, their roles and when they were last used"})
	RotateToken = define[RotateTokenInput, CreatedToken](Meta{Name: "RotateToken", Method: http.MethodPost, Path: "/v1/tokens/{token}/rotate",
		Summary: "Replace a token by a new one, at once; everybody may replace their own"})
	RevokeToken = define[TokenInput, None](Meta{Name: "RevokeToken", Method: http.MethodDelete, Path: "/v1/tokens/{token}",
		Summary: "Revoke a token"})
	WhoAmI = define[None, Identity](Meta{Name: "WhoAmI", Method: http.MethodGet, Path: "/v1/whoami",
		Summary: "Show whose token the request has, and its roles"})
)
