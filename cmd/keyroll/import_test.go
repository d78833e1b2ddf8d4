package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// An import that is interrupted says how much it has stored, and the same file
// imported again is stored once. The mail comes from a pipe that stays open, so
// that there is an import to interrupt.
func TestAnInterruptedImportIsContinued(t *testing.T) {
	h := serve(t, filepath.Join(t.TempDir(), "data"))
	h.must("mailbox", "create", "alice@contoso.com")
	var mail strings.Builder
	for i := range 1500 { // three commits
		fmt.Fprintf(&mail, "From a@contoso.com Thu Jan  1 00:00:00 2026\nSubject: message %d\nMessage-ID: <%d@contoso.com>\n\nbody\n\n", i, i)
	}
	dir := t.TempDir()
	file, pipe := filepath.Join(dir, "mail.mbox"), filepath.Join(dir, "pipe")
	if err := os.WriteFile(file, []byte(mail.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("keyroll", "mailbox", "import", "alice@contoso.com", pipe, "--data", h.data)
	var errOut strings.Builder
	cmd.Stderr = &errOut
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w, err := os.OpenFile(pipe, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := io.WriteString(w, mail.String()[:mail.Len()*9/10]); err != nil {
		t.Fatal(err)
	}
	for h.textOf("items", "mailbox", "show", "alice@contoso.com") != "1024" {
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("%v", err)
	}
	if !strings.Contains(errOut.String(), "keyroll: interrupted: 1024 messages are stored\nhint: run the same command again: it continues after the messages that are stored\n") {
		t.Errorf("it said\n%s", &errOut)
	}
	// Standard input cannot be compared with the unfinished import, so it is refused.
	if o := h.run(mail.String(), "mailbox", "import", "alice@contoso.com", "-"); o.status != 1 || !strings.Contains(o.errOut, "1024 messages are stored") || !strings.Contains(o.errOut, "--no-continue") {
		t.Errorf("standard input: %d\n%s", o.status, o.errOut)
	}
	// Another file is another import.
	other := filepath.Join(dir, "other.mbox")
	if err := os.WriteFile(other, []byte(strings.ReplaceAll(mail.String(), "message 7\n", "massage 7\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	h.must("mailbox", "create", "bob@contoso.com")
	if o := h.run("", "mailbox", "import", "alice@contoso.com", other); o.status != 0 || !strings.HasPrefix(o.out, "1500 messages, ") || strings.Contains(o.out, "before") {
		t.Errorf("another file: %d\n%s%s", o.status, o.out, o.errOut)
	}
	o := h.run("", "mailbox", "import", "alice@contoso.com", file)
	if o.status != 0 || !strings.HasPrefix(o.out, "476 messages, ") || !strings.Contains(o.out, "; 1024 were stored before\n") {
		t.Errorf("the same again: %d\n%s%s", o.status, o.out, o.errOut)
	}
	if items := h.textOf("items", "mailbox", "show", "alice@contoso.com"); items != strconv.Itoa(2*1500) {
		t.Errorf("%s messages", items)
	}
	// A finished import is not continued: the same file is imported a second time.
	if o := h.run("", "mailbox", "import", "alice@contoso.com", file); o.status != 0 || !strings.HasPrefix(o.out, "1500 messages, ") {
		t.Errorf("a third time: %d\n%s%s", o.status, o.out, o.errOut)
	}
}
