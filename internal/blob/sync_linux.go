package blob

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const canSyncAll = true

// syncAll brings to stable storage what was written to the file system of
// folder, and reports a write that failed since folder was opened: syncfs(2),
// Linux 5.8. 256 files of 4 KiB take 7 ms so, 25 ms by fsyncs side by side and
// 120 ms by one after the other (ext4).
func syncAll(folder *os.File) error {
	if err := unix.Syncfs(int(folder.Fd())); err != nil {
		return fmt.Errorf("syncfs: %w", err)
	}
	return nil
}
