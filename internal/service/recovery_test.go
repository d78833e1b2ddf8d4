package service_test

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/policy/policytest"
)

func (w testService) get() string {
	w.Helper()
	var out bytes.Buffer
	w.Must(w.GetFile(w.ctx, file(team, path), from(0), &out))
	return out.String()
}

// sites makes a site with a file under the site policy, on its second policy key.
func (w testService) sites() {
	w.Helper()
	w.Must(e(w.CreateSite(w.ctx, newSite(team))))
	w.Must(e(w.PutFile(w.ctx, file(team, path), -1, strings.NewReader("content"))))
	w.sitePolicy()
	w.finishRolls()
}

func restoreTo(primary, secondary api.KeyVersion) (in api.RestoreSitesInput) {
	in.Body.Primary, in.Body.Secondary = primary, secondary
	return in
}

func TestSitesWithLostKeysAreReadableInRecoveryAndUseNewKeysAfterRestore(t *testing.T) {
	each(t, func(w testService) {
		w.sites()
		old, err := w.ShowPolicy(w.ctx, policyNamed("Sites"))
		w.Must(err)
		w.revoke("Sites")
		refused(t, w.GetFile(w.ctx, file(team, path), from(0), io.Discard), api.VaultDenied)
		refused(t, e(w.RestoreSites(w.ctx, restoreTo(w.newKey("C-Sites"), w.newKey("D-Sites")))), api.Conflict, "keyroll policy recover")
		recovered, err := w.RecoverPolicy(w.ctx, policyNamed("Sites"))
		w.Must(err)
		if recovered.State != api.Recovery || recovered.Revision != old.Revision {
			t.Errorf("in recovery: %+v", recovered)
		}
		if got := w.get(); got != "content" {
			t.Errorf("in recovery the file is %q", got)
		}
		w.Vaults.Fail("D-Sites", policytest.Denied())
		refused(t, e(w.RestoreSites(w.ctx, restoreTo(w.newKey("C-Sites"), w.newKey("D-Sites")))), api.VaultDenied)
		refused(t, e(w.RestoreSites(w.ctx, restoreTo(w.newKey("C-Sites"), w.newKey("C-Sites")))), api.InvalidArgument, "two vaults")
		w.Vaults.Fail("D-Sites", nil)
		restored, err := w.RestoreSites(w.ctx, restoreTo(w.newKey("C-Sites"), w.newKey("D-Sites")))
		w.Must(err)
		if restored.State != api.Registered || restored.Revision == old.Revision || restored.Generation != old.Generation || restored.Primary.Vault != "C-Sites" || restored.Secondary.Vault != "D-Sites" {
			t.Errorf("restored: %+v", restored)
		}
		w.Policies.Close()
		w.Availability.Opens.Store(0)
		if got := w.get(); got != "content" || w.Availability.Opens.Load() != 0 {
			t.Errorf("restored the file is %q, by %d uses of the availability key", got, w.Availability.Opens.Load())
		}
		w.revokeVaults("C-Sites", "D-Sites")
		w.Policies.Close()
		refused(t, w.GetFile(w.ctx, file(team, path), from(0), io.Discard), api.VaultDenied)
		usage, err := w.ListKeyUsage(w.ctx, api.KeyUsageInput{Vault: "A-Sites"})
		w.Must(err)
		if len(usage.Items) != 1 || usage.Items[0].Verdict != api.SafeToRetire {
			t.Errorf("the lost key: %+v", usage.Items)
		}
	})
}

func TestRecoveryIsRefusedWhereItIsNotNeeded(t *testing.T) {
	each(t, func(w testService) {
		w.mailPolicy()
		w.sites()
		w.revoke("p")
		refused(t, e(w.RecoverPolicy(w.ctx, policyNamed("p"))), api.InvalidArgument, "no recovery mode")
		refused(t, e(w.RecoverPolicy(w.ctx, policyNamed("Service-managed"))), api.InvalidArgument)
		refused(t, e(w.RecoverPolicy(w.ctx, policyNamed("Sites"))), api.Conflict, "can still decrypt it", "Update-SPODataEncryptionPolicy")
		w.revokeVaults("A-Sites")
		refused(t, e(w.RecoverPolicy(w.ctx, policyNamed("Sites"))), api.Conflict, "its secondary key")
		w.revokeVaults("B-Sites")
		w.Must(e(w.RecoverPolicy(w.ctx, policyNamed("Sites"))))
		refused(t, e(w.RecoverPolicy(w.ctx, policyNamed("Sites"))), api.Conflict, "already")
	})
}

// The lost keys were found again: the policy uses them as before.
func TestRestoreToTheLostKeysEndsRecovery(t *testing.T) {
	each(t, func(w testService) {
		w.sites()
		old, err := w.ShowPolicy(w.ctx, policyNamed("Sites"))
		w.Must(err)
		w.revoke("Sites")
		w.Must(e(w.RecoverPolicy(w.ctx, policyNamed("Sites"))))
		w.Vaults.Fail("A-Sites", nil)
		w.Vaults.Fail("B-Sites", nil)
		restored, err := w.RestoreSites(w.ctx, restoreTo(old.Primary, old.Secondary))
		w.Must(err)
		if restored.State != api.Registered || restored.Revision != old.Revision {
			t.Errorf("restored: %+v", restored)
		}
	})
}

// A purge ends recovery: from the request on nothing can be read.
func TestPurgeEndsRecovery(t *testing.T) {
	each(t, func(w testService) {
		w.sites()
		w.revoke("Sites")
		w.Must(e(w.RecoverPolicy(w.ctx, policyNamed("Sites"))))
		w.Must(e(w.RequestPurge(w.ctx, purgeOf("Sites"))))
		w.Policies.Close()
		refused(t, w.GetFile(w.ctx, file(team, path), from(0), io.Discard), api.VaultDenied)
		refused(t, e(w.RestoreSites(w.ctx, restoreTo(w.newKey("C-Sites"), w.newKey("D-Sites")))), api.Conflict, "purge")
	})
}
