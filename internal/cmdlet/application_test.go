package cmdlet

import (
	"strings"
	"testing"
)

func TestApplicationsAreManagedAsInAzure(t *testing.T) {
	for _, test := range []struct{ line, calls, out string }{
		{"New-AzADServicePrincipal -DisplayName Payroll -EndDate 2199-01-31", "CreateApplication Payroll 2199-01-31", guid5},
		{"(New-AzADServicePrincipal -DisplayName Payroll).AppId", "CreateApplication Payroll 0001-01-01", guid5},
		{"(New-AzADServicePrincipal -DisplayName Payroll).PasswordCredentials.SecretText", "CreateApplication Payroll 0001-01-01", secretText},
		{"(New-AzADServicePrincipal -DisplayName Payroll).PasswordCredentials.KeyId", "CreateApplication Payroll 0001-01-01", guid2},
		{"(New-AzADAppCredential -AppId " + strings.ToUpper(guid5) + " -EndDate 2199-01-31).SecretText", "AddApplicationCredential " + guid5 + " 2199-01-31", secretText},
		{"(Get-AzADServicePrincipal).DisplayName", "ListApplications", "Payroll\nArchive\n"},
		{"(Get-AzADServicePrincipal -DisplayName archive).Id", "ListApplications", guid4},
		{"(Get-AzADServicePrincipal -ApplicationId " + guid5 + ").DisplayName", "ListApplications", "Payroll"},
		{"Get-AzADServicePrincipal -DisplayName none", "ListApplications", ""},
		{"(Get-AzADAppCredential -ApplicationId " + guid5 + ").KeyId", "ListApplications", guid2 + "\n" + guid3 + "\n"},
		{"Remove-AzADServicePrincipal -DisplayName payroll -Confirm:$false -PassThru", "ListApplications; RemoveApplication " + guid5, "True"},
		{"Get-AzADServicePrincipal -DisplayName payroll | Remove-AzADServicePrincipal -Confirm:$false", "ListApplications; ListApplications; RemoveApplication " + guid5, ""},
		{"Remove-AzADAppCredential -ApplicationId " + guid5 + " -KeyId " + guid3 + " -Confirm:$false", "RemoveApplicationCredential " + guid5 + " " + guid3, ""},
		{"Remove-AzADAppCredential -ApplicationId " + guid5 + " -Confirm:$false", "ListApplications; RemoveApplicationCredential " + guid5 + " " + guid2 + "; RemoveApplicationCredential " + guid5 + " " + guid3, ""},
	} {
		r := newRecorder()
		got := runWith(r, test.line, nil)
		if calls := strings.Join(r.calls, "; "); got.failure != nil || calls != test.calls || !strings.Contains(got.out, test.out) || test.out == "" && got.out != "" {
			t.Errorf("%s\n%v, %q, %q", test.line, got.failure, calls, got.out)
		}
	}
}

func TestSecretsAreShownOnlyWhenTheyAreMade(t *testing.T) {
	for line, shown := range map[string]bool{
		"New-AzADServicePrincipal -DisplayName Payroll":         false, // in the object, not in the table
		"New-AzADAppCredential -ApplicationId " + guid5:         true,
		"New-AzADServicePrincipal -DisplayName Payroll -WhatIf": false,
		"Get-AzADAppCredential -ApplicationId " + guid5:         false,
	} {
		got := runWith(newRecorder(), line, nil)
		if got.failure != nil || strings.Contains(got.out+got.err, secretText) != shown {
			t.Errorf("%s: %v, %q, %q", line, got.failure, got.out, got.err)
		}
	}
}

func TestUnknownApplicationsAreRefused(t *testing.T) {
	for line, want := range map[string]string{
		"Remove-AzADServicePrincipal -DisplayName none -Confirm:$false":                      `application "none" does not exist`,
		"Remove-AzADServicePrincipal -ApplicationId " + guid1 + " -Confirm:$false":           "does not exist",
		"Get-AzADAppCredential -ApplicationId " + guid1:                                      "does not exist",
		"New-AzADAppCredential -ApplicationId Payroll":                                       "-ApplicationId needs a GUID",
		"Remove-AzADAppCredential -ApplicationId " + guid5 + " -KeyId first -Confirm:$false": "-KeyId needs a GUID",
		"Remove-AzADAppCredential -ApplicationId '" + guid5 + "/../x' -KeyId " + guid2:       "-ApplicationId needs a GUID",
	} {
		r := newRecorder()
		got := runWith(r, line, nil)
		if got.failure == nil || !strings.Contains(got.failure.Error(), want) || len(r.changes()) > 0 {
			t.Errorf("%s: %v, %v", line, got.failure, r.calls)
		}
	}
}
