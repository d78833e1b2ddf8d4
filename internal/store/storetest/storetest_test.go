package storetest_test

import (
	"bufio"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"keyroll/internal/store/storetest"
)

// childEnv makes this test binary a test process that waits to be killed.
const childEnv = "KEYROLL_STORETEST_CHILD"

func TestKilledTestProcessLeavesNoServerAndNoFolder(t *testing.T) {
	if os.Getenv(childEnv) != "" {
		fmt.Println("address", storetest.PostgresURL(t))
		_, _ = io.Copy(io.Discard, os.Stdin)
		return
	}
	child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	child.Env = append(os.Environ(), childEnv+"=1")
	output, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	address := ""
	for lines := bufio.NewScanner(output); address == "" && lines.Scan(); {
		address, _ = strings.CutPrefix(lines.Text(), "address ")
	}
	u, err := url.Parse(address)
	if err != nil || u.Query().Get("host") == "" {
		t.Fatalf("no address from the child: %q", address)
	}
	folder := u.Query().Get("host")
	server := pidOf(t, folder)
	shell := parentOf(t, server)
	watched, err := unix.PidfdOpen(shell, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watched)

	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(watched), Events: unix.POLLIN}}, -1); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(server, 0); err != unix.ESRCH {
		t.Errorf("server %d after its test process was killed: %v", server, err)
	}
	if _, err := os.Stat(folder); !os.IsNotExist(err) {
		t.Errorf("folder %s after its test process was killed: %v", folder, err)
	}
}

// pidOf returns the server's process id, the first line of postmaster.pid.
func pidOf(t *testing.T, folder string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, "data", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func parentOf(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\nPPid:")
	line, _, _ := strings.Cut(rest, "\n")
	parent, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	return parent
}
