package main

import (
	"fmt"
	"io"
	"time"

	"keyroll/api"
)

// rollFlags say how a roll goes about its work.
type rollFlags struct {
	IncludeInactive     bool     `name:"include-inactive" help:"Bring over, too, what no roll does by itself: inactive, disconnected and disabled mailboxes, and the keys of backups."`
	ContainersPerSecond int64    `name:"containers-per-second" placeholder:"N" help:"Rate limit of the roll, however many nodes work on it; there is none unless given."`
	BytesPerSecond      byteSize `name:"bytes-per-second" placeholder:"BYTES" help:"Depth content: rate limit of the roll, however many nodes work on it; KiB, MiB and GiB may follow the number. There is none unless given."`
	Deadline            string   `name:"deadline" placeholder:"TIME" help:"How long the roll may take before it is late, as 24h or 1h30m; 72h unless given. It goes on all the same."`
	DryRun              bool     `name:"dry-run" help:"Change nothing; check the keys, count what the roll would do, and estimate how long that takes."`
}

func (f rollFlags) options() api.RollOptions {
	return api.RollOptions{IncludeInactive: f.IncludeInactive, ContainersPerSecond: f.ContainersPerSecond, BytesPerSecond: int64(f.BytesPerSecond),
		Deadline: f.Deadline, DryRunOption: api.DryRunOption{DryRun: f.DryRun}}
}

func showEstimate(w io.Writer, policy string, e api.Estimate) {
	pairs := []any{"dry run", "nothing was changed", "policy", policy, "policy keys to wrap", e.PolicyKeys, "containers to bring over", e.Containers}
	if e.Stays > 0 {
		pairs = append(pairs, "stay under older keys", fmt.Sprintf("%d mailboxes that are not active, and backups; --include-inactive brings them over", e.Stays))
	}
	if e.Blobs > 0 {
		pairs = append(pairs, "blobs", e.Blobs)
	}
	if e.Bytes > 0 {
		pairs = append(pairs, "content", size(e.Bytes))
	}
	fields(w, append(pairs, "time", seconds(e.Seconds), "by", e.Basis)...)
}

// seconds prints a time in whole seconds, and a short one more exactly.
func seconds(s float64) string {
	if s < 10 {
		return time.Duration(s * float64(time.Second)).Round(time.Millisecond).String()
	}
	return whole(s)
}
