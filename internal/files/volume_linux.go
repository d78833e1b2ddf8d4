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

// Sync calls syncfs(2), which reports failed writes since Linux 5.8. For 256 files of
// 4 KiB it takes 7 ms, concurrent fsyncs take 25 ms and sequential ones 120 ms (ext4).
func (v volume) Sync() error {
	if err := unix.Syncfs(int(v.Fd())); err != nil {
		return fmt.Errorf("syncfs: %w", err)
	}
	return nil
}
