package bench

import (
	"bufio"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
)

// status reads a size of this process from /proc/self/status, in bytes.
func status(name string) (int64, error) {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), name+":"); ok {
			var kib int64
			_, err := fmt.Sscanf(strings.TrimSpace(rest), "%d kB", &kib)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/self/status has no %s", name)
}

// idleRSS returns the resident memory once all that is free has been given back.
func idleRSS() (int64, error) {
	debug.FreeOSMemory()
	return status("VmRSS")
}

// resetPeak gives free memory back and begins to measure the peak anew
// (proc_pid_clear_refs(5): 5 resets VmHWM).
func resetPeak() error {
	debug.FreeOSMemory()
	return os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)
}
