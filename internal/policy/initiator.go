package policy

import "keyroll/api"

// Initiator says on whose behalf a policy key is opened. Operations have theirs
// in the table of package api; each job of the service names its own where it
// opens a key.
type Initiator = api.Initiator

const (
	User     = api.ByUser
	System   = api.BySystem
	Recovery = api.ForRecovery
)

// The jobs of the service, as the audit log names them.
const (
	JobRoll      = "Roll"      // moves containers to a current policy key; for users
	JobReassign  = "Reassign"  // the same, from another policy; for a recovery
	JobFollow    = "Follow"    // moves one container there after an access
	JobFold      = "Fold"      // merges small key pages
	JobRetire    = "Retire"    // erases wraps that nothing needs
	JobLocalWrap = "LocalWrap" // replaces wraps that external vaults made
	JobRenew     = "Renew"     // asks the customer keys again for what is in the cache
)
