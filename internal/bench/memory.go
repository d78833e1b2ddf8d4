package bench

import (
	"bufio"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
)

// status reads a size of this process from /proc/self/status, in bytes.
func status(name string) (int64, error) { return statusOf("self", name) }

// statusOf is status of another process.
func statusOf(process, name string) (int64, error) {
	f, err := os.Open("/proc/" + process + "/status")
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
	return 0, fmt.Errorf("/proc/%s/status has no %s", process, name)
}

// idleRSS returns the resident memory after free memory has been returned to the system.
func idleRSS() (int64, error) {
	debug.FreeOSMemory()
	return status("VmRSS")
}

// resetPeak returns free memory to the system and resets the peak
// (proc_pid_clear_refs(5): 5 resets VmHWM).
func resetPeak() error {
	debug.FreeOSMemory()
	return os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)
}
