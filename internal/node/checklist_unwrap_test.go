package node_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/node"
	"keyroll/internal/policy"
	"keyroll/internal/profiles"
)

func TestChecklist10RandomFirstKeyThenTheOtherAndErrorsApartFromDenials(t *testing.T) {
	x := newOutsideTenancy(t, node.Options{})
	for _, k := range versioned {
		first := map[string]int{}
		for range 30 { // one side alone: once in 2^29 runs
			x.clearKeyCache()
			n := len(x.audited(k.policy))
			x.wantReadable(k, "with both vaults")
			if uses := x.audited(k.policy)[n:]; len(uses) != 1 {
				t.Errorf("%s: opened by %q", k.policy, uses)
			}
			first[strings.Fields(x.openedBy(k.policy))[0]]++
		}
		if len(first) != 2 || first["primary"]+first["secondary"] != 30 {
			t.Errorf("%s: first asked were %v", k.policy, first)
		}
	}
	for _, k := range kinds {
		// An unreachable vault is an error, a refusal is a denial; a single denial is
		// decisive, whatever the other vault returns.
		for _, c := range []struct {
			denied, away []int
			code         api.Code // of a user's request; empty: it is served
		}{
			{away: []int{0}}, {denied: []int{1}}, {denied: []int{0, 1}, code: api.VaultDenied}, {denied: []int{0}, away: []int{1}, code: api.VaultDenied},
		} {
			var away []string
			for _, i := range c.away {
				away = append(away, k.vaults[i])
			}
			for _, i := range c.denied {
				x.Revoke(k.service, k.vaults[i])
			}
			x.disconnect(away...)
			x.clearKeyCache()
			when := fmt.Sprintf("denied %v, away %v", c.denied, c.away)
			if c.code == "" {
				x.wantReadable(k, when)
			} else {
				x.wantRefusedRead(k, c.code, when)
			}
			x.disconnect()
			x.restore(k)
		}
	}
}

func TestChecklist11HedgedDoubleUnwrapFirstWins(t *testing.T) {
	x := newOutsideTenancy(t, node.Options{})
	n := len(x.audited(sites.policy))
	x.hang(sites.vaults[0])
	x.wantReadable(sites, "with a primary vault that never answers")
	if key := x.openedBy(sites.policy); !strings.HasPrefix(key, "secondary key") {
		t.Errorf("opened by %s", key)
	}
	// The primary did not fail: it was slower.
	x.waitUntil("the use of the primary key is broken off", func() bool {
		return slices.ContainsFunc(x.audited(sites.policy)[n:], func(use string) bool {
			return strings.HasPrefix(use, "GetFile broken off unwrap ") && strings.Contains(use, " by its primary key ")
		})
	})
}

func TestChecklist12KeyCacheRenewedTwoHoursBeforeItEndsAndAlert(t *testing.T) {
	x := newOutsideTenancy(t, node.Options{})
	for _, k := range kinds {
		lifetime := profiles.Of(k.PolicyKind).CacheLifetime
		x.wantReadable(k, "at first")
		x.disconnect(k.vaults[:]...)
		x.wantReadable(k, "from the cache, vaults away")
		if key := x.openedBy(k.policy); strings.HasPrefix(key, "availability key") {
			t.Errorf("%s: from the cache, but opened by %s", k.policy, key)
		}
		if k.PolicyKind != api.SitePolicy {
			x.clock.advance(lifetime)
			x.wantReadable(k, "after its time in the cache, vaults away")
			if key := x.openedBy(k.policy); !strings.HasPrefix(key, "availability key") {
				t.Errorf("%s: opened by %s", k.policy, key)
			}
			x.clock.by.Store(0)
			x.disconnect()
			continue
		}
		alerts := func() (n int) {
			for _, entry := range x.audited(k.policy) {
				if strings.HasPrefix(entry, "Renew VaultUnavailable renewing policy key") && strings.Contains(entry, "keeps failing") {
					n++
				}
			}
			return n
		}
		x.clock.advance(lifetime - 2*time.Hour - 10*time.Minute)
		x.wantReadable(k, "before its renewal is due")
		if got := alerts(); got != 0 {
			t.Errorf("%d alerts more than two hours before its end", got)
		}
		x.clock.advance(20 * time.Minute)
		x.wantReadable(k, "with less than two hours left")
		x.wantReadable(k, "with less than two hours left")
		if got := alerts(); got != 1 {
			t.Errorf("%d alerts less than two hours before its end", got)
		}
		x.clock.advance(2 * time.Hour)
		x.wantRefusedRead(k, api.VaultUnavailable, "after its time in the cache")
		x.clock.by.Store(0)
		x.disconnect()
		x.wantReadable(k, "vaults back")

		// Once renewed, it is valid again.
		x.clock.advance(policy.RevocationBound)
		x.wantReadable(k, "when it is renewed")
		x.disconnect(k.vaults[:]...)
		x.clock.advance(lifetime - time.Minute)
		x.wantReadable(k, "as long after its renewal")
		x.clock.by.Store(0)
		x.disconnect()
	}
}

func TestChecklist13AutomaticFallbackTellsUserFromSystemAndNeverServesSites(t *testing.T) {
	x := newOutsideTenancy(t, node.Options{})
	x.newVault(stores, "Row13-A", 0)
	x.newVault(stores, "Row13-B", 1)
	for _, vault := range []string{"Row13-A", "Row13-B"} {
		x.newKey(vault, "Key001")
	}
	if _, err := x.create(stores, "Row13work", x.uri("Row13-A", "Key001"), x.uri("Row13-B", "Key001")); err != nil {
		t.Fatal(err)
	}
	x.Mailbox("carol@contoso.com", mailboxes.policy)
	x.Import("carol@contoso.com", said)
	for _, k := range kinds {
		x.disconnect(k.vaults[:]...)
		x.clearKeyCache()
		if k.PolicyKind == api.SitePolicy {
			x.wantRefusedRead(k, api.VaultUnavailable, "both vaults away")
		} else {
			x.wantReadable(k, "both vaults away")
		}
		x.disconnect()
		x.revoke(k)
		x.wantRefusedRead(k, api.VaultDenied, "access removed")
	}
	for _, entry := range x.audited(sites.policy) {
		if strings.Contains(entry, "Fallback") {
			t.Errorf("a site: %s", entry)
		}
	}
	// Moving containers to another policy is work of the service, so it is done. The keys
	// unwrapped for it are not used for any user.
	x.Script("Set-M365DataAtRestEncryptionPolicyAssignment Row13work")
	x.FinishRoll("Row13work")
	x.wantReadable(stores, "brought under another policy")
	x.Script("Set-Mailbox alice@contoso.com -DataEncryptionPolicy $null")
	x.wantReadable(mailboxes, "brought under another policy")
	carol := mailboxes
	carol.unit = "carol@contoso.com"
	x.wantRefusedRead(carol, api.VaultDenied, "after the service's own work")
}

func TestChecklist14AvailabilityKeyUseIsAudited(t *testing.T) {
	x := newOutsideTenancy(t, node.Options{})
	uses := func(k kind) (list []string) {
		for _, entry := range x.audited(k.policy) {
			if strings.Contains(entry, "CustomerKeyServiceEncryption") {
				list = append(list, entry)
			}
		}
		return list
	}
	for _, k := range kinds {
		x.wantReadable(k, "with both vaults")
		if got := uses(k); got != nil {
			t.Errorf("%s: without a fallback the log has %q", k.policy, got)
		}
		if k.PolicyKind == api.SitePolicy {
			x.revoke(k)
			if _, err := x.Client.RecoverPolicy(t.Context(), api.PolicyInput{Policy: k.policy}); err != nil {
				t.Fatal(err)
			}
		} else {
			x.disconnect(k.vaults[:]...)
		}
		x.clearKeyCache()
		x.wantReadable(k, "by the availability key")
		p := x.show(k.policy)
		job := map[api.PolicyKind]string{api.MailboxPolicy: "ExportMail", api.SitePolicy: "GetFile", api.MultiWorkloadPolicy: "GetWorkloadItem"}[k.PolicyKind]
		record := regexp.MustCompile(fmt.Sprintf(`^%s done unwrap .*CustomerKeyServiceEncryption: Fallback to Availability Key, PolicyId %s, ScopeKeyVersionId %s, RequestId \S+, job %s$`, job, p.ID, p.Revision, job))
		if got := uses(k); len(got) != 1 || !record.MatchString(got[0]) {
			t.Errorf("%s: the log has %q, want %s", k.policy, got, record)
		}
	}
}
