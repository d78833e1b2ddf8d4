package rootkey_test

import (
	"strings"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/rootkey"
)

func TestUsable(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(d time.Duration) *time.Time {
		t := now.Add(d)
		return &t
	}
	const key = `key "k1" version ` + version1 + ` in vault "Contoso-A" `
	const update = "Update-AzKeyVaultKey -VaultName Contoso-A -Name k1 -Version " + version1 + " "
	for _, test := range []struct {
		name   string
		change func(*rootkey.KeyInfo)
		detail string // empty: usable
		hint   string
	}{
		{name: "as made", change: func(*rootkey.KeyInfo) {}},
		{name: "software key", change: func(k *rootkey.KeyInfo) { k.Type = "RSA" }},
		{name: "valid from this moment", change: func(k *rootkey.KeyInfo) { k.NotBefore = at(0) }},
		{name: "valid for a moment more", change: func(k *rootkey.KeyInfo) { k.Expires = at(1) }},
		{"elliptic curve", func(k *rootkey.KeyInfo) { k.Type, k.Bits = "EC", 0 }, "is of type EC; a customer key is an RSA key", "add one to a new name: Add-AzKeyVaultKey -VaultName Contoso-A -Name NAME -Destination HSM -KeyOps wrapKey,unwrapKey"},
		{"short", func(k *rootkey.KeyInfo) { k.Bits = 1024 }, "has 1024 bits; a customer key has 2048 or more", "Add-AzKeyVaultKey"},
		{"disabled", func(k *rootkey.KeyInfo) { k.Enabled = false }, "is disabled", update + "-Enable $true"},
		{"not yet valid", func(k *rootkey.KeyInfo) { k.NotBefore = at(time.Second) }, "is not valid before 2026-01-02 03:04:06Z", update + "-NotBefore (Get-Date)"},
		{"expired", func(k *rootkey.KeyInfo) { k.Expires = at(0) }, "expired at 2026-01-02 03:04:05Z", update + `-Expires (Get-Date -Date "12/31/9999")`},
		{"no wrapKey", func(k *rootkey.KeyInfo) { k.Ops = []string{"unwrapKey"} }, "does not allow the operation wrapKey", update + "-KeyOps wrapKey,unwrapKey"},
		{"no unwrapKey", func(k *rootkey.KeyInfo) { k.Ops = []string{"wrapKey", "sign"} }, "does not allow the operation unwrapKey", update + "-KeyOps wrapKey,unwrapKey"},
	} {
		info := rootkey.KeyInfo{KeyVersion: k1(version1), Type: "RSA-HSM", Bits: 2048, Ops: []string{"wrapKey", "unwrapKey"}, Enabled: true}
		test.change(&info)
		err := rootkey.Usable(info, now)
		if test.detail == "" {
			if err != nil {
				t.Errorf("%s: %v", test.name, err)
			}
			continue
		}
		code, detail, hint := fail.Public(err)
		if code != api.KeyUnusable || detail != key+test.detail || !strings.Contains(hint, test.hint) {
			t.Errorf("%s: %s %q, hint %q", test.name, code, detail, hint)
		}
	}
}
