package cmdlet

import (
	"strings"
	"testing"
)

func TestPoliciesOfBothKindsAreSet(t *testing.T) {
	const keys = "https://a.vault.azure.net/keys/k, https://b.vault.azure.net/keys/k"
	for _, test := range []struct{ line, calls string }{
		{"New-DataEncryptionPolicy p -AzureKeyIDs " + keys + " -Enabled $false", "CreatePolicy {Kind:mailbox Name:p Description: Keys:[https://a.vault.azure.net/keys/k https://b.vault.azure.net/keys/k]}; SetPolicy " + guid1 + ` {"enabled":false}`},
		{"New-M365DataAtRestEncryptionPolicy p -AzureKeyIDs " + keys + " -DomainController dc1", "CreatePolicy {Kind:multi-workload Name:p Description: Keys:[https://a.vault.azure.net/keys/k https://b.vault.azure.net/keys/k]}"},
		{"Set-DataEncryptionPolicy USA_mailboxes -Replace -AzureKeyIDs " + keys + " -Depth Root", "ShowPolicy USA_mailboxes; ReplacePolicyKeys " + guid1 + " [https://a.vault.azure.net/keys/k https://b.vault.azure.net/keys/k] root"},
		{"Set-DataEncryptionPolicy USA_mailboxes -Name new -Description 'for all' -Enabled $false", "ShowPolicy USA_mailboxes; SetPolicy " + guid1 + ` {"name":"new","description":"for all","enabled":false}`},
		{"Set-DataEncryptionPolicy USA_mailboxes -Refresh -Enabled $true", "ShowPolicy USA_mailboxes; SetPolicy " + guid1 + ` {"enabled":true}; RefreshPolicy ` + guid1 + " {Depth: AllGenerations:false}"},
		{"Set-DataEncryptionPolicy USA_mailboxes -PermanentDataPurgeRequested -PermanentDataPurgeReason exit -PermanentDataPurgeContact Ann -Force -Confirm:$false",
			"ShowPolicy USA_mailboxes; RequestPurge " + guid1 + " {Reason:exit Contact:Ann Force:true}"},
		{"Set-M365DataAtRestEncryptionPolicy Contoso_Global -Refresh -Force", "ShowPolicy Contoso_Global; RefreshPolicy " + guid4 + " {Depth: AllGenerations:false}"},
		{"Get-M365DataAtRestEncryptionPolicy $null", "ListPolicies"},
		{"Set-M365DataAtRestEncryptionPolicyAssignment Contoso_Global", "AssignPolicy Contoso_Global"},
		{"Set-M365DataAtRestEncryptionPolicyAssignment $null", "ShowAssignment; LeavePolicy " + guid4},
		{"Get-M365DataAtRestEncryptionPolicyAssignment", "ShowAssignment"},
		{"Test-M365DataAtRestEncryptionPolicy", "ListPolicies; TestPolicy " + guid4},
		{"Test-M365DataAtRestEncryptionPolicy USA_mailboxes", "ShowPolicy USA_mailboxes; TestPolicy " + guid1},
		{"Restore-SPODataEncryptionPolicy https://contosoEUR-admin.sharepoint.com -PrimaryKeyVaultUri u -SecondaryKeyVaultUri v", "ListGeos; RestoreSites eur {Vault: Key: Version: URI:u} {Vault: Key: Version: URI:v}"},
		{"Register-SPODataEncryptionPolicy -Identity https://contosoeur.sharepoint.com -PrimaryKeyVaultUri u -SecondaryKeyVaultUri v", "ListGeos; RegisterSites eur {Vault: Key: Version: URI:u} {Vault: Key: Version: URI:v}"},
		{"Get-SPODataEncryptionPolicy eur", "ListGeos"},
		{"Get-SPODataEncryptionPolicy https://fabrikam-admin.sharepoint.com", "ListGeos; ShowPolicy Sites"},
	} {
		if got := mustRun(t, test.line, nil); strings.Join(got.calls, "; ") != test.calls {
			t.Errorf("%s\n got %s\nwant %s", test.line, strings.Join(got.calls, "; "), test.calls)
		}
	}
}

func TestNoAssignmentIsShownBeforeThereIsOne(t *testing.T) {
	r := newRecorder()
	for i := range r.policies {
		r.policies[i].Assigned = false
	}
	got := runWith(r, "Get-M365DataAtRestEncryptionPolicyAssignment; Set-M365DataAtRestEncryptionPolicyAssignment $null", nil)
	if got.failure != nil || got.out != "" || len(r.changes()) > 0 {
		t.Errorf("%v, %q, %v", got.failure, got.out, r.calls)
	}
}

func TestPolicyTestReportsWhichRootFailsAndWhy(t *testing.T) {
	got := mustRun(t, "Test-M365DataAtRestEncryptionPolicy Contoso_Global | fl Root, Wraps, Unwraps, Detail", nil)
	want := "\nRoot    : primary\nWraps   : True\nUnwraps : True\nDetail  :\n\nRoot    : secondary\nWraps   : False\nUnwraps : False\nDetail  : the key is disabled\n\n"
	if got.out != want {
		t.Errorf("%q", got.out)
	}
}

func TestRequestedPurgeShowsWhatItWaitsFor(t *testing.T) {
	r := newRecorder()
	r.limit = "files cannot promise it"
	got := runWith(r, "Set-DataEncryptionPolicy USA_mailboxes -PermanentDataPurgeRequested -PermanentDataPurgeReason exit -PermanentDataPurgeContact Ann -Confirm:$false", nil)
	want := "WARNING: the purge of policy USA_mailboxes waits for two approvers: keyroll purge status USA_mailboxes shows them\nWARNING: files cannot promise it\n"
	if got.failure != nil || got.out != "" || got.err != want {
		t.Errorf("%v, %q, %q", got.failure, got.out, got.err)
	}
}
