package main

import (
	"fmt"
	"io"
	"time"

	"keyroll/api"
	"keyroll/internal/terminal"
)

// rollFlags are the options of a roll.
type rollFlags struct {
	IncludeInactive     bool              `name:"include-inactive" help:"Also move the keys that a roll leaves out otherwise: those of inactive, disconnected and disabled mailboxes, and of backups."`
	ContainersPerSecond int64             `name:"containers-per-second" placeholder:"N" help:"Rate limit of the roll on all nodes together (default: none)."`
	BytesPerSecond      terminal.ByteSize `name:"bytes-per-second" placeholder:"BYTES" help:"With depth content, rate limit of the roll on all nodes together, for example 20MiB (default: none)."`
	Deadline            string            `name:"deadline" placeholder:"TIME" help:"How long the roll may take before it is reported as late, for example 24h or 1h30m (default: 72h). A late roll continues."`
	DryRun              bool              `name:"dry-run" help:"Change nothing: check the keys, count what the roll would do, and estimate how long it would take."`
}

func (f rollFlags) options() api.RollOptions {
	return api.RollOptions{IncludeInactive: f.IncludeInactive, ContainersPerSecond: f.ContainersPerSecond, BytesPerSecond: int64(f.BytesPerSecond),
		Deadline: f.Deadline, DryRunOption: api.DryRunOption{DryRun: f.DryRun}}
}

func showEstimate(w io.Writer, policy string, e api.Estimate) {
	pairs := []any{"dry run", "nothing was changed", "policy", policy, "policy keys to wrap", e.PolicyKeys, "containers to move", e.Containers}
	if e.Stays > 0 {
		pairs = append(pairs, "stay under older keys", fmt.Sprintf("%s of inactive mailboxes and backups; --include-inactive moves them", terminal.Count(e.Stays, "container key")))
	}
	if e.Blobs > 0 {
		pairs = append(pairs, "blobs", e.Blobs)
	}
	if e.Bytes > 0 {
		pairs = append(pairs, "content", terminal.Size(e.Bytes))
	}
	terminal.Fields(w, append(pairs, "time", seconds(e.Seconds), "estimated from", e.Basis)...)
}

// seconds prints a time in whole seconds, and a short one more exactly.
func seconds(s float64) string {
	if s < 10 {
		return time.Duration(s * float64(time.Second)).Round(time.Millisecond).String()
	}
	return wholeSeconds(s)
}
