package main

import (
	"bytes"
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
	"keyroll/internal/store"
)

func TestOperatorRollsAvailabilityKeysOnTheCommandLine(t *testing.T) {
	w := nodetest.Start(t, node.Options{})
	w.StageMail()
	err := w.Node.DB.InTx(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(t.Context(), `UPDATE principal SET roles = 'admin operator' WHERE name = 'admin'`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	command := func(args ...string) string {
		t.Helper()
		var out, errOut bytes.Buffer
		if status := run(t.Context(), append(args, "--data", w.Data), nil, &out, &errOut); status != 0 {
			t.Fatalf("%v: exit status %d: %s", args, status, &errOut)
		}
		return out.String()
	}
	var rolled api.RolledAvailabilityKeys
	if err := json.Unmarshal([]byte(command("availability", "roll", "-o", "json")), &rolled); err != nil {
		t.Fatal(err)
	}
	if want := (api.RolledAvailabilityKeys{Keys: 2, Wraps: 2, Destroyed: 2}); rolled != want {
		t.Errorf("rolled %+v, want %+v", rolled, want)
	}
	if out := command("availability", "roll", "--policy", nodetest.MailboxPolicy); !strings.Contains(out, "availability keys rolled:") {
		t.Errorf("it prints %q", out)
	}
	if out := command("policy", "show", nodetest.MailboxPolicy); !strings.Contains(out, "version 3, used by this policy only") {
		t.Errorf("policy show prints %q", out)
	}
	w.VerifyClean()
}

func TestServeRefusesAnInvalidStoreOfAvailabilityKeys(t *testing.T) {
	for _, row := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"--availability", "ftp://x/y"}, 2, `"ftp://x/y" is not a valid store of availability keys`},
		{[]string{"--availability", "https://contoso.vault.azure.net/keys/k"}, 2, "is not a valid store of availability keys"},
		{[]string{"--availability-roll-every", "0s"}, 2, "is not a valid age"},
	} {
		var out, errOut bytes.Buffer
		args := append([]string{"serve", "--listen", "127.0.0.1:0", "--data", filepath.Join(t.TempDir(), "data")}, row.args...)
		if status := run(context.Background(), args, nil, &out, &errOut); status != row.status || !strings.Contains(errOut.String(), row.says) {
			t.Errorf("%v: exit status %d, %s", row.args, status, &errOut)
		}
	}
}
