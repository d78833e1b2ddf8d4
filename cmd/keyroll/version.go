package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

type versionCommand struct{}

func (versionCommand) Run(e *env) error {
	v := versionOf(debug.ReadBuildInfo())
	return e.Object(v, func(w io.Writer) { fmt.Fprintln(w, v) })
}

// version is what the Go toolchain wrote into the binary.
type version struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"` // of the repository that it was built in
	Modified bool   `json:"modified,omitempty"` // there were changes that are in no commit
	Go       string `json:"go"`
}

func versionOf(info *debug.BuildInfo, ok bool) version {
	v := version{Version: "unknown", Go: runtime.Version()}
	if !ok {
		return v
	}
	v.Version = info.Main.Version
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}

func (v version) String() string {
	text := "keyroll " + v.Version
	if v.Revision != "" {
		text += " (" + v.Revision[:min(12, len(v.Revision))]
		if v.Modified {
			text += ", modified"
		}
		text += ")"
	}
	return text + ", " + v.Go
}
