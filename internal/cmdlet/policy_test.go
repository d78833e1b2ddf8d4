package cmdlet

import (
	"context"
	"strings"
	"testing"
)

func TestPoliciesOfBothKindsAreSet(t *testing.T) {
	const keys = "https://a.vault.azure.net/keys/k, https://b.vault.azure.net/keys/k"
	for _, test := range []struct{ line, calls string }{
		{"New-DataEncryptionPolicy p -AzureKeyIDs " + keys + " -Enabled $false", "CreatePolicy {Kind:mailbox Name:p Description: Keys:[https://a.vault.azure.net/keys/k https://b.vault.azure.net/keys/k]}; SetPolicy " + guid1 + ` {"enabled":false}`},
		{"New-M365DataAtRestEncryptionPolicy p -AzureKeyIDs " + keys + " -DomainController dc1", "CreatePolicy {Kind:multi-workload Name:p Description: Keys:[https://a.vault.azure.net/keys/k https://b.vault.azure.net/keys/k]}"},
		{"Set-DataEncryptionPolicy USA_mailboxes -Replace -AzureKeyIDs " + keys + " -Depth Root", "ReplacePolicyKeys USA_mailboxes [https://a.vault.azure.net/keys/k https://b.vault.azure.net/keys/k] root"},
		{"Set-DataEncryptionPolicy USA_mailboxes -Name new -Description 'for all' -Enabled $false", `SetPolicy USA_mailboxes {"name":"new","description":"for all","enabled":false}`},
		{"Set-DataEncryptionPolicy USA_mailboxes -Refresh -Enabled $true", `SetPolicy USA_mailboxes {"enabled":true}; RefreshPolicy ` + guid1 + " {Depth: AllGenerations:false}"},
		{"Set-DataEncryptionPolicy USA_mailboxes -PermanentDataPurgeRequested -PermanentDataPurgeReason exit -PermanentDataPurgeContact Ann -Force -Confirm:$false",
			"RequestPurge USA_mailboxes {Reason:exit Contact:Ann Force:true}"},
		{"Set-M365DataAtRestEncryptionPolicy Contoso_Global -Refresh -Force", "RefreshPolicy Contoso_Global {Depth: AllGenerations:false}"},
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

// A confirmation and -WhatIf name the policy, whatever it was named by; only they have to
// read it first.
func TestADescribedChangeOfAPolicyNamesIt(t *testing.T) {
	const identity = guid1
	for _, test := range []struct{ line, description string }{
		{"-Refresh", "Refresh policy USA_mailboxes"},
		{"-Name new", "Change policy USA_mailboxes"},
		{"-PermanentDataPurgeRequested -PermanentDataPurgeReason exit -PermanentDataPurgeContact Ann",
			"Request the purge of policy USA_mailboxes and of all that it protects, irreversibly"},
	} {
		line := "Set-DataEncryptionPolicy " + identity + " " + test.line
		asked := ""
		got := mustRun(t, line+" -Confirm", func(o *Options) {
			o.Confirm = func(_ context.Context, question string) (bool, error) { asked = question; return true, nil }
		})
		if asked != test.description+"?" || len(got.calls) != 2 || got.calls[0] != "ShowPolicy "+identity {
			t.Errorf("%s asked %q, %q", line, asked, got.calls)
		}
		if got := mustRun(t, line+" -WhatIf", nil); got.out != "What if: "+test.description+".\n" {
			t.Errorf("%s: %q", line, got.out)
		}
		if got := mustRun(t, line+" -Confirm:$false", nil); len(got.calls) != 1 || strings.HasPrefix(got.calls[0], "ShowPolicy") {
			t.Errorf("%s: %q", line, got.calls)
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
