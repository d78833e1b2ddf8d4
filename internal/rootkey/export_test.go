package rootkey

import (
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"keyroll/internal/envelope"
)

const MaxAnswer = maxAnswer

// SetTimeout replaces the call timeout.
func (c *Client) SetTimeout(d time.Duration) { c.timeout = d }

// AnswerRow is a row of the table of answers.
type AnswerRow struct {
	Status  int
	Code    string
	Failure Failure
}

// Answers returns the table of answers.
func Answers() (rows []AnswerRow) {
	for _, row := range answers {
		rows = append(rows, AnswerRow{row.status, row.code, row.failure})
	}
	return rows
}

// Causes returns the failures in the table of causes.
func Causes() (failures []Failure) {
	for _, row := range causes {
		failures = append(failures, row.failure)
	}
	return failures
}

// BaseURL returns the base URL of requests to a vault.
func (c *Client) BaseURL(vault string) (string, error) {
	to, err := c.target(envelope.KeyVersion{Vault: vault, Key: "k"})
	return to.url, err
}

// ExternalCredential returns the credential for vaults of an Azure cloud.
func (c *Client) ExternalCredential(authority string) (azcore.TokenCredential, error) {
	return c.external.credential(authority)
}

const MaxConnections = maxConnections

// Connections returns how many connections are kept.
func (c *Client) Connections() int { return len(c.pool.connections) }

// MicrosoftAuthority reports whether Microsoft's login host accepts an authority.
var MicrosoftAuthority = microsoftAuthority

// The failures that only this package distinguishes.
var (
	Unauthenticated    = unauthenticated
	NoToken            = noToken
	TooLargeAnswer     = tooLargeAnswer
	MalformedChallenge = malformedChallenge
	DamagedKey         = damagedKey
)
