package policy

import (
	"context"

	"keyroll/api"
	"keyroll/internal/audit"
)

// Initiator says who wants a policy key opened. After a deliberate act of the
// customer the availability key serves work that the service itself starts,
// and no user.
type Initiator int

const (
	User   Initiator = iota // what the table does not name, too
	System                  // work that the service itself starts
	initiators
)

// initiated names every operation and every job of the service, as the origin
// of a request has it (audit.Origin.Operation).
//
// What answers a person is the user's, with two exceptions. To assign another
// policy is the way back for a mailbox whose two customer keys are lost: it
// moves a key and shows no content. To roll availability keys is the operators'
// upkeep. A roll is work for the user and stops on revocation, but for one that
// brings containers from another policy, which is that way back, too.
var initiated = map[string]Initiator{
	api.CreateMailbox.Name:     User,
	api.ListMailboxes.Name:     User,
	api.ShowMailbox.Name:       User,
	api.SetMailboxState.Name:   User,
	api.AssignMailbox.Name:     System,
	api.ImportMail.Name:        User,
	api.ExportMail.Name:        User,
	api.ListMessages.Name:      User,
	api.ReadMessage.Name:       User,
	api.CreateSite.Name:        User,
	api.ListSites.Name:         User,
	api.ShowSite.Name:          User,
	api.ListFiles.Name:         User,
	api.PutFile.Name:           User,
	api.GetFile.Name:           User,
	api.ListWorkloads.Name:     User,
	api.ListWorkloadItems.Name: User,
	api.PutWorkloadItem.Name:   User,
	api.GetWorkloadItem.Name:   User,

	api.CreatePolicy.Name:      User,
	api.RegisterSites.Name:     User,
	api.ListPolicies.Name:      User,
	api.ShowPolicy.Name:        User,
	api.SetPolicy.Name:         User,
	api.RefreshPolicy.Name:     User,
	api.UpdatePolicy.Name:      User,
	api.ReplacePolicyKeys.Name: User,
	api.LeavePolicy.Name:       User,
	api.TestPolicy.Name:        User,
	api.AssignPolicy.Name:      User,
	api.ShowAssignment.Name:    User,
	api.RecoverPolicy.Name:     User,
	api.RestoreSites.Name:      User,

	api.ListRolls.Name:    User,
	api.ShowRoll.Name:     User,
	api.PauseRoll.Name:    User,
	api.ResumeRoll.Name:   User,
	api.CancelRoll.Name:   User,
	api.ListKeyUsage.Name: User,
	api.Verify.Name:       User,
	api.CollectBlobs.Name: User,

	api.CreateBackup.Name:  User,
	api.ListBackups.Name:   User,
	api.RestoreBackup.Name: User,
	api.ExpireBackup.Name:  User,

	api.AbandonContainer.Name: User,

	api.AddPurgeApprover.Name:   User,
	api.ListPurgeApprovers.Name: User,
	api.RequestPurge.Name:       User,
	api.ShowPurge.Name:          User,
	api.ListPurges.Name:         User,
	api.ApprovePurge.Name:       User,

	api.CreateTenant.Name:         User,
	api.ListTenants.Name:          User,
	api.ShowTenant.Name:           User,
	api.CreateGeo.Name:            User,
	api.ListGeos.Name:             User,
	api.RollAvailabilityKeys.Name: System,

	JobRoll:     User,
	JobReassign: System,
	JobFollow:   System,
	JobFold:     System,
	JobRetire:   System,
	jobRenew:    System,
}

// The jobs of the service, as the audit log names them.
const (
	JobRoll     = "Roll"     // brings containers to a current policy key
	JobReassign = "Reassign" // the same, from another policy
	JobFollow   = "Follow"   // brings one container there after an access
	JobFold     = "Fold"     // merges small key pages
	JobRetire   = "Retire"   // erases wraps that nothing needs
	jobRenew    = "Renew"    // asks the customer keys again for what is in the cache
)

func initiatorOf(ctx context.Context) Initiator {
	if ctx.Value(forUserKey{}) != nil {
		return User
	}
	return initiated[audit.OriginOf(ctx).Operation]
}

type forUserKey struct{}

// ForUser returns a context in which policy keys are opened as for a user,
// whoever works: a container comes under a policy key only while its customer
// lets users have that key.
func ForUser(ctx context.Context) context.Context {
	return context.WithValue(ctx, forUserKey{}, true)
}
