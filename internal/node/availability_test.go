package node_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
)

const (
	ourMail   = "From a@contoso.com Thu Jan  1 00:00:00 2026\nSubject: one\n\nbody\n\n"
	underOurs = "alice@contoso.com" // under a mailbox policy
	underNone = "bob@contoso.com"   // under the service-managed policy
)

// withMail is a keyroll whose availability keys are in the vault of the far keyroll.
func withMail(t *testing.T, far *nodetest.Far) *nodetest.World {
	w := nodetest.Start(t, node.Options{Data: nodetest.Folder(t), PageSlots: 4, Availability: far.URL})
	w.StageMail()
	w.Mailbox(underOurs, nodetest.MailboxPolicy)
	w.Mailbox(underNone, "")
	w.Import(underOurs, ourMail)
	w.Import(underNone, ourMail)
	return w
}

// codeOf is the code of a failed request.
func codeOf(err error) api.Code {
	var p *api.Problem
	if errors.As(err, &p) {
		return p.Code
	}
	return fail.CodeOf(err)
}

func TestAvailabilityKeysInAVaultAreOnNoDiskOfThisServer(t *testing.T) {
	far := nodetest.StartFar(t)
	w := withMail(t, far)
	w.RefreshMail()
	w.FinishRoll(nodetest.MailboxPolicy)
	for _, policy := range []string{nodetest.MailboxPolicy, "Service-managed"} {
		if got := w.RollAvailability(policy); got.Version != 2 || got.Wraps != 1 || got.Destroyed != 1 {
			t.Errorf("rolled %+v of %s", got, policy)
		}
	}
	w.VerifyClean()
	if _, err := os.Stat(filepath.Join(w.Data, "availability")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is a folder of availability keys: %v", err)
	}
	if !strings.Contains(w.Node.CopyWarning(), "the availability keys are in "+far.Vault+".vault.localhost") {
		t.Errorf("the warning about copies is %q", w.Node.CopyWarning())
	}
	w.Restart(func(o *node.Options) { o.Availability = "" }) // that of the last start
	if got := w.Export(underNone); got != ourMail {
		t.Errorf("read %q", got)
	}
	w.Stop()

	// An attacker with a copy of the disk who cannot access the vault.
	copied := filepath.Join(t.TempDir(), "copied")
	nodetest.CopyFolder(t, w.Data, copied)
	far.Away()
	thief := nodetest.Start(t, node.Options{Data: copied})
	_, err := exportMail(t.Context(), thief, underNone)
	if codeOf(err) != api.VaultUnavailable {
		t.Errorf("a copy without the vault: %v", err)
	}
	thief.Stop()
	if _, err := node.Start(t.Context(), node.Options{Data: copied, Availability: "file://" + filepath.Join(t.TempDir(), "availability")}); codeOf(err) != api.Conflict {
		t.Errorf("with another store: %v", err)
	}
}

func TestAnOutageOfTheVaultOfAvailabilityKeysStopsOnlyWhatNeedsIt(t *testing.T) {
	far := nodetest.StartFar(t)
	w := withMail(t, far)
	far.Away()
	for _, name := range []string{underOurs, underNone} {
		w.Import(name, ourMail)
		if got := w.Export(name); got != ourMail+ourMail {
			t.Errorf("%s reads %q", name, got)
		}
	}
	w.Mailbox("carol@contoso.com", nodetest.MailboxPolicy)
	w.Assign(underNone, nodetest.MailboxPolicy)
	w.Assign(underNone, "")
	const again = "Another"
	create := api.CreatePolicyInput{}
	create.Body.Name, create.Body.Keys = again, []string{w.KeyURI(nodetest.VaultA1), w.KeyURI(nodetest.VaultA2)}
	refresh := api.RefreshPolicyInput{PolicyInput: api.PolicyInput{Policy: nodetest.MailboxPolicy}}
	w.AddKey(nodetest.VaultA1)
	_, created := w.Client.CreatePolicy(t.Context(), create)
	_, refreshed := w.Client.RefreshPolicy(t.Context(), refresh)
	for act, err := range map[string]error{"create": created, "refresh": refreshed} {
		if codeOf(err) != api.VaultUnavailable || !strings.Contains(err.Error(), "the vault of availability keys "+far.Vault) {
			t.Errorf("%s: %v", act, err)
		}
	}
	w.Restart(nil) // it starts all the same, and says why nothing can be read yet
	if _, err := exportMail(t.Context(), w, underOurs); codeOf(err) != api.VaultUnavailable || !strings.Contains(err.Error(), "the vault of availability keys "+far.Vault) {
		t.Errorf("after a start: %v", err)
	}
	far.Back()
	if got := w.Export(underNone); got != ourMail+ourMail {
		t.Errorf("once it is back: read %q", got)
	}
	if _, err := w.Client.CreatePolicy(t.Context(), create); err != nil {
		t.Error(err)
	}
	if _, err := w.Client.RefreshPolicy(t.Context(), refresh); err != nil {
		t.Error(err)
	}
	w.FinishRoll(nodetest.MailboxPolicy)
	w.VerifyClean()
}

func TestDatabaseIsBoundToItsStoreOfAvailabilityKeys(t *testing.T) {
	far := nodetest.StartFar(t)
	files := nodetest.Start(t, node.Options{Data: nodetest.Folder(t)})
	files.Mailbox(underNone, "")
	files.Import(underNone, ourMail)
	files.Stop()
	vault := nodetest.Start(t, node.Options{Data: nodetest.Folder(t), Availability: far.URL})
	vault.Stop()
	for name, o := range map[string]node.Options{
		"files, then a vault":   {Data: files.Data, Availability: far.URL},
		"a vault, then another": {Data: vault.Data, Availability: far.AddVault("elsewhere", "")},
		"a vault, then files":   {Data: vault.Data, Availability: "file://" + filepath.Join(t.TempDir(), "availability")},
	} {
		if _, err := node.Start(context.Background(), o); codeOf(err) != api.Conflict || !strings.Contains(err.Error(), "the availability keys of this database are in") {
			t.Errorf("%s: %v", name, err)
		}
	}
	moved := filepath.Join(t.TempDir(), "moved")
	nodetest.CopyFolder(t, filepath.Join(files.Data, "availability"), moved)
	files.Restart(func(o *node.Options) { o.Availability = "file://" + moved })
	if got := files.Export(underNone); got != ourMail {
		t.Errorf("from a moved folder: read %q", got)
	}
	if !strings.Contains(files.Node.CopyWarning(), moved) {
		t.Errorf("the warning about copies is %q", files.Node.CopyWarning())
	}
}

func TestOwnVaultsAreRefusedForAvailabilityKeysAndTheFolderIsUnlocked(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	_, port, _ := net.SplitHostPort(address)
	o := node.Options{Data: filepath.Join(t.TempDir(), "data"), Listen: address, Availability: "https://OWN.vault.localhost:" + port}
	if _, err := node.Start(context.Background(), o); codeOf(err) != api.InvalidArgument || !strings.Contains(err.Error(), "a vault of this keyroll") {
		t.Errorf("own vault: %v", err)
	}
	nodetest.Start(t, node.Options{Data: o.Data}).Mailbox(underNone, "")
}
