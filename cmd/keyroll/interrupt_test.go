package main

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"keyroll/internal/longtest"
)

// interruptCommand starts keyroll, sends it SIGINT once a line of its output contains
// sign, and returns its outcome.
func interruptCommand(t *testing.T, sign string, env []string, args ...string) outcome {
	t.Helper()
	cmd := exec.Command("keyroll", args...)
	cmd.Env = append(os.Environ(), env...)
	both, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer both.Close()
	var errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	sent := false
	for lines := bufio.NewScanner(both); lines.Scan(); {
		errOut.WriteString(lines.Text() + "\n")
		if !sent && strings.Contains(lines.Text(), sign) {
			sent = true
			if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); !sent || cmd.ProcessState == nil {
		t.Fatalf("%v; %q was not seen in\n%s", err, sign, &errOut)
	}
	return outcome{status: cmd.ProcessState.ExitCode(), errOut: errOut.String()}
}

func entries(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range list {
		names = append(names, entry.Name())
	}
	return names
}

// onDisk is a temporary folder among the sources: bench refuses a folder in
// memory, where the system's temporary folders may be.
func onDisk(t *testing.T) string {
	t.Helper()
	here, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(here, "temporary-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestInterruptedBenchRemovesItsFolder(t *testing.T) {
	parent := onDisk(t)
	for _, sign := range []string{"fill 50000 mailboxes", "round 1 of 5"} {
		o := interruptCommand(t, sign, nil, "bench", "roll", "--containers", "50000", "--data", parent)
		if o.status != 1 || !strings.Contains(o.errOut, "keyroll: interrupted") {
			t.Errorf("at %q: exit status %d\n%s", sign, o.status, o.errOut)
		}
		if left := entries(t, parent); len(left) > 0 {
			t.Errorf("at %q: left behind %v", sign, left)
		}
	}
}

func TestInterruptedDemoRemovesATemporaryFolderAndKeepsANamedOne(t *testing.T) {
	temporary := t.TempDir()
	for _, sign := range []string{"data folder: ", "== Mail ==", "== Two more customer keys"}[longtest.Of(2, 0):] {
		o := interruptCommand(t, sign, []string{"TMPDIR=" + temporary}, "demo", "--files", "testdata")
		if o.status != 1 || !strings.Contains(o.errOut, "keyroll: interrupted") {
			t.Errorf("at %q: exit status %d\n%s", sign, o.status, o.errOut)
		}
		if left := entries(t, temporary); len(left) > 0 {
			t.Errorf("at %q: left behind %v", sign, left)
		}
	}
	named := filepath.Join(t.TempDir(), "data")
	if o := interruptCommand(t, "== The roll of the mailbox policy", nil, "demo", "--files", "testdata", "--data", named); o.status != 1 {
		t.Errorf("exit status %d\n%s", o.status, o.errOut)
	}
	if o := (&runningServer{t: t, data: named}).run("", "verify", "--require-open"); o.status != 0 {
		t.Errorf("verify of what an interrupted demo left: %d\n%s%s", o.status, o.out, o.errOut)
	}
}

func TestInterruptedWatchLeavesTheRollRunning(t *testing.T) {
	h := serve(t, filepath.Join(t.TempDir(), "data"), "--page-slots", "1", "--roll-rate", "1")
	h.must("shell", "-c", stage)
	first := h.textOf("Id", "shell", "-c", "Add-AzKeyVaultKey -VaultName vs1 -Name key -Destination Software")
	for i := range 9 {
		h.must("site", "create", "https://contoso.sharepoint.com/sites/more"+strconv.Itoa(i))
	}
	id := h.textOf("policy.roll.id", "policy", "update", "Sites", "--key-type", "primary", "--key", first)
	o := interruptCommand(t, "roll of Sites: ", nil, "roll", "watch", id, "--data", h.data)
	if o.status != 1 || !strings.Contains(o.errOut, "keyroll: interrupted") {
		t.Errorf("exit status %d\n%s", o.status, o.errOut)
	}
	if state := h.textOf("state", "roll", "show", id); state != "running" {
		t.Errorf("the roll is %s", state)
	}
}
