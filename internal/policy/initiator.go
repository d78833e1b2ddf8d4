package policy

import "keyroll/api"

// Initiator says on whose behalf a policy key is opened. That of an operation is in
// the table of package api; a job of the service names its own when it opens a key.
type Initiator = api.Initiator

// The initiators, as this package calls them.
const (
	User     = api.ByUser
	System   = api.BySystem
	Recovery = api.ForRecovery
)

// The jobs of the service, as the audit log names them.
const (
	JobRoll      = "Roll"      // moves containers to a current policy key; for users
	JobReassign  = "Reassign"  // the same, from another policy; for a recovery
	JobFollow    = "Follow"    // moves one container to the current policy key after an access
	JobFold      = "Fold"      // merges small key pages
	JobRetire    = "Retire"    // erases wraps that nothing needs
	JobLocalWrap = "LocalWrap" // replaces wraps that external vaults made by local ones
	JobRenew     = "Renew"     // unwraps cached policy keys again by the customer keys
)
