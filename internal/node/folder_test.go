package node_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"keyroll/internal/files"
	"keyroll/internal/files/filestest"
	"keyroll/internal/node"
)

// written is the expected content of InfoFile.
type written struct {
	acknowledged string
	begun        []string
}

func (w *written) write(f files.FS, url string) error {
	w.begun = append(w.begun, url)
	err := node.Info{URL: url}.Write(f, durableFolder)
	if err == nil {
		w.acknowledged, w.begun = url, nil
	}
	return err
}

const durableFolder = "/srv/keyroll/data"

func TestDataFolderSurvivesAPowerCutAtEveryFileOperation(t *testing.T) {
	start := func(f files.FS, w *written, urls ...string) error {
		if err := node.MakeFolder(f, durableFolder); err != nil {
			return err
		}
		unlock, err := node.LockFolder(f, durableFolder)
		if err != nil {
			return err
		}
		defer func() { _ = unlock() }()
		for _, url := range urls {
			if err := w.write(f, url); err != nil {
				return err
			}
		}
		return nil
	}
	filestest.Run(t, filestest.Scenario[written]{
		Act: func(f files.FS, w *written) { _ = start(f, w, "https://first", "https://second") },
		Check: func(t testing.TB, f files.FS, w *written, nth int) {
			var info node.Info
			body, there := f.(*filestest.FS).Files()[durableFolder+"/"+node.InfoFile]
			if err := json.Unmarshal(body, &info); there && err != nil {
				t.Errorf("%s is torn: %q", node.InfoFile, body)
			}
			if info.URL != w.acknowledged && !slices.Contains(w.begun, info.URL) {
				t.Errorf("%s says %q; acknowledged was %q", node.InfoFile, info.URL, w.acknowledged)
			}
			if err := start(f, w, fmt.Sprint("https://check-", nth)); err != nil {
				t.Errorf("start once more: %v", err)
			}
		},
	})
}
