package node_test

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/node"
)

// occupiedAddress is an address that is in use.
func occupiedAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require(t, err)
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

func TestAFirstStartThatFailsLeavesNoFolder(t *testing.T) {
	missing, empty := filepath.Join(t.TempDir(), "a", "data"), t.TempDir()
	for _, data := range []string{missing, empty} {
		_, err := node.Start(t.Context(), node.Options{Data: data, Listen: occupiedAddress(t)})
		refusedFolder(t, err)
	}
	if _, err := os.Stat(missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder that was missing is there: %v", err)
	}
	if left, err := os.ReadDir(empty); err != nil || len(left) > 0 {
		t.Errorf("the empty folder has %v (%v)", left, err)
	}
}

func TestALaterStartThatFailsDeletesNothing(t *testing.T) {
	data := t.TempDir()
	n, err := node.Start(t.Context(), node.Options{Data: data})
	require(t, err)
	require(t, n.Close())
	before := namesIn(t, data)
	_, err = node.Start(t.Context(), node.Options{Data: data, Listen: occupiedAddress(t)})
	refusedFolder(t, err)
	if after := namesIn(t, data); after != before {
		t.Errorf("before %s\nafter %s", before, after)
	}
	// A folder that is not empty is not a new one.
	other := t.TempDir()
	require(t, os.WriteFile(filepath.Join(other, "notes"), nil, 0o600))
	_, err = node.Start(t.Context(), node.Options{Data: other, Listen: occupiedAddress(t)})
	refusedFolder(t, err)
	if _, err := os.Stat(filepath.Join(other, "notes")); err != nil {
		t.Error(err)
	}
}

// namesIn lists the files in a folder, except those of an open database.
func namesIn(t *testing.T, folder string) string {
	t.Helper()
	var list []string
	require(t, filepath.WalkDir(folder, func(path string, _ fs.DirEntry, err error) error {
		if !strings.HasSuffix(path, "-wal") && !strings.HasSuffix(path, "-shm") {
			list = append(list, path)
		}
		return err
	}))
	return strings.Join(list, " ")
}

func TestADataFolderThatOtherUsersMayWriteIsRefused(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	require(t, os.Mkdir(data, 0o700))
	require(t, os.Chmod(data, 0o777))
	_, err := node.Start(t.Context(), node.Options{Data: data})
	refusedFolder(t, err)
	if left, err := os.ReadDir(data); err != nil || len(left) > 0 {
		t.Errorf("it has %v (%v)", left, err)
	}
	require(t, os.Chmod(data, 0o770))
	var log bytes.Buffer
	n, err := node.Start(t.Context(), node.Options{Data: data, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	require(t, err)
	require(t, n.Close())
	if !strings.Contains(log.String(), "level=WARN") || !strings.Contains(log.String(), "chmod 700") {
		t.Errorf("the log has %s", &log)
	}
}

// The InfoFile of a killed server does not mislead clients while another server starts.
func TestServerJSONOfAnEarlierServerIsRemovedAtStart(t *testing.T) {
	data := t.TempDir()
	n, err := node.Start(t.Context(), node.Options{Data: data})
	require(t, err)
	require(t, n.Close())
	stale := filepath.Join(data, node.InfoFile)
	require(t, os.WriteFile(stale, []byte("{}"), 0o600))
	_, err = node.Start(t.Context(), node.Options{Data: data, Listen: occupiedAddress(t)})
	refusedFolder(t, err)
	if _, err := os.Stat(stale); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is there: %v", err)
	}
}

func require(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func refusedFolder(t *testing.T, err error) {
	t.Helper()
	if !fail.Is(err, api.InvalidArgument) {
		t.Fatalf("%v", err)
	}
}
