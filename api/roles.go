package api

import (
	"fmt"
	"slices"
	"strings"
)

// Role permits a principal some operations within its own tenant. The use of keys in vaults is
// not permitted by roles but by each vault's access policies.
type Role string

const (
	// Global manages everything within the tenant, and approves nothing.
	Global Role = "global"
	// Compliance manages policies and rolls, and requests purges.
	Compliance Role = "compliance"
	// Exchange manages mailboxes and their mail.
	Exchange Role = "exchange"
	// SharePoint manages sites, their files and geos.
	SharePoint Role = "sharepoint"
	// Vault manages vaults and their access policies.
	Vault Role = "vault"
	// Approver approves acts that need a second person.
	Approver Role = "approver"
	// Auditor reads what keys protect and what was done, and no content.
	Auditor Role = "auditor"
	// Operator runs the installation: it creates tenants and rolls availability keys.
	Operator Role = "operator"
	// Enrolling is an approver whose one-time code has not been exchanged for a token yet.
	Enrolling Role = "enrolling"
	// Application is a program that uses vaults: it may do what their access policies permit.
	Application Role = "application"
)

// Roles are all roles.
var Roles = []Role{Global, Compliance, Exchange, SharePoint, Vault, Approver, Auditor, Operator, Enrolling, Application}

// JoinRoles returns the names of roles with a separator between them.
func JoinRoles(roles []Role, separator string) string {
	names := make([]string, len(roles))
	for i, r := range roles {
		names[i] = string(r)
	}
	return strings.Join(names, separator)
}

// Grantable returns the roles of tokens that a principal with a role may issue: an approver
// enrols, and never gets a token from another person.
func (r Role) Grantable() []Role {
	switch r {
	case Global:
		return []Role{Global, Compliance, Exchange, SharePoint, Vault, Auditor}
	case Operator:
		return []Role{Operator}
	}
	return nil
}

// permissions says which roles permit which operations.
var permissions = []struct {
	roles      []Role
	operations string
}{
	{[]Role{Operator}, "CreateTenant ListTenants ShowTenant SetTenant RollAvailabilityKeys CollectBlobs"},
	{[]Role{Approver}, "ApprovePurge ApproveAct RejectAct"},
	{[]Role{Global, Compliance, Exchange, SharePoint, Approver}, "WithdrawAct"},
	{[]Role{Global, Compliance, Exchange, SharePoint, Approver, Auditor}, "ListApprovals ShowApproval"},
	{[]Role{Enrolling}, "EnrolApprover"},
	{Roles, "WhoAmI"},
	{[]Role{Global}, "CreateApplication ListApplications RemoveApplication AddApplicationCredential RemoveApplicationCredential"},
	{[]Role{Global, Operator}, "CreateToken RevokeToken AddApprover"},
	{[]Role{Global, Operator, Auditor}, "ListTokens"},
	{[]Role{Global, Compliance, Exchange, SharePoint, Vault, Approver, Auditor, Operator}, "RotateToken"},
	{[]Role{Global, Approver, Operator}, "RemoveApprover"},
	{[]Role{Global}, "AbandonContainer RestoreBackup ExpireBackup ListWorkloadItems PutWorkloadItem GetWorkloadItem"},
	{[]Role{Global, Compliance}, "CreatePolicy RegisterSites RefreshPolicy UpdatePolicy SetPolicy ReplacePolicyKeys LeavePolicy TestPolicy AssignPolicy " +
		"RecoverPolicy RestoreSites CheckKeys Verify PauseRoll ResumeRoll CancelRoll RequestPurge CreateBackup"},
	{[]Role{Global, Compliance, Auditor}, "ShowAssignment ListBackups ListKeyUsage ListWorkloads"},
	{[]Role{Global, Compliance, Approver, Auditor, Operator}, "ListApprovers"},
	{[]Role{Global, Compliance, Approver, Auditor}, "ShowPurge ListPurges"},
	{[]Role{Global, Compliance, Exchange, SharePoint, Auditor}, "ListPolicies ShowPolicy ListRolls ShowRoll"},
	{[]Role{Global, Exchange}, "CreateMailbox SetMailboxState ImportMail ListMailImports StopMailImport ExportMail ListMessages ReadMessage"},
	{[]Role{Global, Compliance, Exchange}, "AssignMailbox"},
	{[]Role{Global, Compliance, Exchange, Auditor}, "ListMailboxes ShowMailbox"},
	{[]Role{Global, SharePoint}, "CreateSite ListFiles PutFile GetFile CreateGeo"},
	{[]Role{Global, Compliance, SharePoint, Auditor}, "ListSites ShowSite ListGeos"},
}

// rolesOf returns the roles that permit an operation.
func rolesOf(operation string) []Role {
	for _, p := range permissions {
		if slices.Contains(strings.Fields(p.operations), operation) {
			return p.roles
		}
	}
	panic(fmt.Sprintf("api: no role permits the operation %s", operation))
}
