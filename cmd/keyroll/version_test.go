package main

import (
	"runtime/debug"
	"testing"
)

func TestVersionNamesTheCommitAndWhetherItWasChanged(t *testing.T) {
	info := &debug.BuildInfo{Main: debug.Module{Version: "v0.1.0"}, Settings: []debug.BuildSetting{
		{Key: "vcs.revision", Value: "0123456789abcdef0123"}, {Key: "vcs.modified", Value: "true"}}}
	v := versionOf(info, true)
	v.Go = "go1.99"
	if got, want := v.String(), "keyroll v0.1.0 (0123456789ab, modified), go1.99"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := versionOf(nil, false); got.Version != "unknown" || got.Go == "" {
		t.Errorf("without build information: %+v", got)
	}
}
