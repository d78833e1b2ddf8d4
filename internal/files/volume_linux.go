package files

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

type volume struct{ *os.File }

func openVolume(folder string) (Volume, error) {
	file, err := os.Open(folder)
	if err != nil {
		return nil, err
	}
	return volume{file}, nil
}

// Sync is syncfs(2), which reports failed writes since Linux 5.8. 256 files of
// 4 KiB take 7 ms so, 25 ms by fsyncs side by side and 120 ms by one after the
// other (ext4).
func (v volume) Sync() error {
	if err := unix.Syncfs(int(v.Fd())); err != nil {
		return fmt.Errorf("syncfs: %w", err)
	}
	return nil
}
