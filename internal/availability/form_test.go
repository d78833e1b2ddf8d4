package availability_test

import (
	"path/filepath"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/availability"
	"keyroll/internal/availability/availabilitytest"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/node/nodetest"
)

func openAt(t testing.TB, url string) *availability.Store {
	t.Helper()
	s, err := availability.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestFileStoreConforms(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "availability")
	availabilitytest.Run(t, func(t testing.TB) *availability.Store { return openAt(t, "file://"+dir) })
}

func TestVaultStoreConforms(t *testing.T) {
	far := nodetest.StartFar(t)
	availabilitytest.Run(t, func(t testing.TB) *availability.Store { return openAt(t, far.URL) })

	t.Run("as keys that cannot be exported", func(t *testing.T) {
		id, version, err := openAt(t, far.URL).Create(t.Context(), 5)
		if err != nil {
			t.Fatal(err)
		}
		key := far.Script("Get-AzKeyVaultKey -VaultName " + far.Vault + " -Name " + availability.VaultKey(id, version) + " | Format-List KeyType,KeyOps")
		if !strings.Contains(key, "RSA-HSM") {
			t.Errorf("the vault has %s", key)
		}
	})
	t.Run("and a rotation in the vault loses nothing", func(t *testing.T) {
		s := openAt(t, far.URL)
		id, version, err := s.Create(t.Context(), 5)
		if err != nil {
			t.Fatal(err)
		}
		ec := envelope.EncryptionContext{Tenant: 5, Child: 9}
		old, err := s.Wrap(t.Context(), id, version, ec, secret[:64])
		if err != nil {
			t.Fatal(err)
		}
		far.Script("Add-AzKeyVaultKey -VaultName " + far.Vault + " -Name " + availability.VaultKey(id, version) + " -Destination HSM")
		wrapped, err := s.Wrap(t.Context(), id, version, ec, secret[:64])
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range [][]byte{old, wrapped} {
			if got, err := s.Open(t.Context(), id, version, ec, w); err != nil || string(got) != string(secret[:64]) {
				t.Errorf("opened %q, %v", got, err)
			}
		}
	})
	t.Run("but purge protection keeps what is destroyed, and says until when", func(t *testing.T) {
		s := openAt(t, far.AddVault("protected", "-EnablePurgeProtection"))
		id, version, err := s.Create(t.Context(), 5)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			for _, err := range []error{s.DestroyVersion(t.Context(), id, version), s.Destroy(t.Context(), id)} {
				if !fail.Is(err, api.Conflict) || !strings.Contains(err.Error(), "purge protection and keeps it until 2") {
					t.Errorf("destroyed: %v", err)
				}
			}
		}
	})
	t.Run("while it is away it says so", func(t *testing.T) {
		s := openAt(t, far.URL)
		far.Away()
		_, _, created := s.Create(t.Context(), 5)
		_, opened := s.Open(t.Context(), 1, 1, envelope.EncryptionContext{}, append([]byte{1, 'a'}, secret...))
		for _, err := range []error{created, opened, s.Destroy(t.Context(), 1), s.DestroyVersion(t.Context(), 1, 1)} {
			if !fail.Is(err, api.VaultUnavailable) || !strings.Contains(err.Error(), "vault of availability keys "+far.Vault) {
				t.Errorf("got %v", err)
			}
		}
	})
}
