package main

import (
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/terminal"
)

func (c *rollWatch) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		seen := func(api.Roll) error { return nil }
		if e.JSON {
			seen = stream(terminal.NewEncoder(e.Out))
		}
		r, err := watchEach(e, k, c.Roll, seen)
		if err != nil {
			return err
		}
		if !e.JSON {
			needed, err := stillNeeded(e, k, r)
			if err != nil {
				return err
			}
			showRoll(e.Out, r, needed)
		}
		if r.State != api.RollFinished {
			return statusError(1)
		}
		return nil
	})
}

const (
	// watchEvery is how often a watched roll is requested.
	watchEvery = 250 * time.Millisecond
	// streamEvery bounds how often a roll that runs is printed.
	streamEvery = time.Second
)

// stream prints a roll whenever something has changed, and once when it has ended.
func stream(to *json.Encoder) func(api.Roll) error {
	var last api.Roll
	var at time.Time
	return func(r api.Roll) error {
		if r.State == api.RollRunning && (time.Since(at) < streamEvery || reflect.DeepEqual(r, last)) {
			return nil
		}
		last, at = r, time.Now()
		return to.Encode(r)
	}
}

// watch follows a roll with a progress bar until it no longer runs.
func watch(e *env, k *client.Client, id string) (api.Roll, error) {
	return watchEach(e, k, id, func(api.Roll) error { return nil })
}

// watchEach is watch, and calls seen with each state of the roll.
func watchEach(e *env, k *client.Client, id string, seen func(api.Roll) error) (api.Roll, error) {
	r, err := k.ShowRoll(e, api.RollInput{Roll: id})
	if err != nil {
		return r, err
	}
	_, total := rollProgress(r)
	bar := e.Progress("roll of "+r.Policy, total)
	defer bar.End()
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		done, total := rollProgress(r)
		bar.SetTotal(total)
		bar.Set(done)
		bar.SetNote(rollNote(r))
		if err := seen(r); err != nil {
			return r, err
		}
		if r.State != api.RollRunning {
			return r, nil
		}
		select {
		case <-e.Done():
			return r, e.Err()
		case <-tick.C:
		}
		if r, err = k.ShowRoll(e, api.RollInput{Roll: id}); err != nil {
			return r, err
		}
	}
}

// rollProgress returns how far a roll is, in the unit that its depth counts:
// containers, blobs or bytes.
func rollProgress(r api.Roll) (done, total int64) {
	switch r.Depth {
	case api.DepthContainer:
		return r.BlobsDone, r.BlobsTotal
	case api.DepthContent:
		return r.BytesDone, r.BytesTotal
	}
	return r.Done, r.Total
}

// rollRate is the rate of a roll in the unit that its stage counts.
func rollRate(r api.Roll) string {
	switch r.Stage {
	case api.StageContainer:
		return fmt.Sprintf("%.0f blobs/s", r.PerSecond)
	case api.StageContent:
		return terminal.Size(int64(r.PerSecond)) + "/s"
	}
	return fmt.Sprintf("%.0f containers/s", r.PerSecond)
}

// wholeSeconds prints a time in whole seconds.
func wholeSeconds(s float64) string {
	return time.Duration(min(s, 1e9) * float64(time.Second)).Round(time.Second).String()
}

// rollNote is the text behind the progress figure of a roll that is watched.
func rollNote(r api.Roll) string {
	var notes []string
	if r.PerSecond > 0 {
		notes = append(notes, rollRate(r))
	}
	if n := len(r.Nodes); n > 1 {
		notes = append(notes, fmt.Sprintf("%d nodes", n))
	}
	if r.Retries > 0 {
		notes = append(notes, fmt.Sprintf("%d retries", r.Retries))
	}
	if r.SkippedCount > 0 {
		notes = append(notes, fmt.Sprintf("%d skipped", r.SkippedCount))
		if len(r.Skipped) > 0 {
			notes = append(notes, "the first: "+r.Skipped[0])
		}
	}
	if r.Late {
		notes = append(notes, "late for "+terminal.Time(r.Deadline))
	}
	if r.Message != "" {
		notes = append(notes, r.Message)
	} else if r.PerSecond > 0 {
		notes = append(notes, wholeSeconds(r.ETASeconds)+" left")
	}
	return terminal.Escape(strings.Join(notes, ", "))
}

// stillNeeded lists, for a roll that has ended, the older key versions that its
// policy still needs, and for what.
func stillNeeded(e *env, k *client.Client, r api.Roll) ([]string, error) {
	if e.JSON || r.State == api.RollRunning || r.State == api.RollPaused {
		return nil, nil
	}
	p, err := k.ShowPolicy(e, api.PolicyInput{Policy: r.PolicyID})
	if err != nil {
		return nil, err
	}
	usage, err := k.ListKeyUsage(e, api.KeyUsageInput{})
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, u := range usage.Items {
		current := u.Vault == p.Primary.Vault && u.Version == p.Primary.Version || u.Vault == p.Secondary.Vault && u.Version == p.Secondary.Version
		if u.Policy == p.Name && u.Verdict == api.InUse && !current {
			lines = append(lines, fmt.Sprintf("version %s of key %s in vault %s, by %s", u.Version, u.Key, u.Vault, usersOf(u)))
		}
	}
	return lines, nil
}

// usersOf lists what needs a key version.
func usersOf(u api.KeyUsage) string {
	var list []string
	for _, of := range []struct {
		n    int64
		what string
	}{{u.Active, "active"}, {u.Inactive, "inactive"}, {u.Disconnected, "disconnected"}, {u.Disabled, "disabled"},
		{u.Sites, "sites"}, {u.Workloads, "workload stores"}, {u.Backups, "backups"}} {
		if of.n > 0 {
			list = append(list, fmt.Sprintf("%d %s", of.n, of.what))
		}
	}
	if len(list) == 0 {
		return "its policy keys only"
	}
	return strings.Join(list, ", ")
}

// showRoll prints a roll, and the older key versions that are still needed after it.
func showRoll(w io.Writer, r api.Roll, needed []string) {
	pairs := []any{"roll", r.ID, "policy", r.Policy, "depth", r.Depth, "state", r.State,
		"done", fmt.Sprintf("%d of %d (%.1f %%)", r.Done, r.Total, r.PercentComplete), "started", terminal.Time(r.Started)}
	if r.BlobsTotal > 0 {
		pairs = append(pairs, "blobs", fmt.Sprintf("%d of %d", r.BlobsDone, r.BlobsTotal))
	}
	if r.BytesTotal > 0 {
		pairs = append(pairs, "content", fmt.Sprintf("%s of %s", terminal.Size(r.BytesDone), terminal.Size(r.BytesTotal)))
	}
	if r.Stage != "" {
		pairs = append(pairs, "stage", r.Stage)
	}
	if r.Source != "" {
		pairs = append(pairs, "from policy", r.Source)
	}
	if r.Finished != nil {
		pairs = append(pairs, "finished", terminal.Time(*r.Finished))
	} else {
		deadline := terminal.Time(r.Deadline)
		if r.Late {
			deadline += " (late)"
		}
		pairs = append(pairs, "deadline", deadline)
	}
	if r.ContainersPerSecond > 0 {
		pairs = append(pairs, "limit", fmt.Sprintf("%d containers/s", r.ContainersPerSecond))
	}
	if r.BytesPerSecond > 0 {
		pairs = append(pairs, "limit", terminal.Size(r.BytesPerSecond)+"/s")
	}
	if r.PerSecond > 0 {
		pairs = append(pairs, "rate", rollRate(r), "remaining time", wholeSeconds(r.ETASeconds))
	}
	if len(r.Nodes) > 0 {
		pairs = append(pairs, "nodes", strings.Join(r.Nodes, ", "))
	}
	if r.Retries > 0 {
		pairs = append(pairs, "retries", r.Retries)
	}
	if r.Message != "" {
		pairs = append(pairs, "message", r.Message)
	}
	for _, s := range r.Skipped {
		pairs = append(pairs, "skipped", s)
	}
	if more := r.SkippedCount - int64(len(r.Skipped)); more > 0 {
		pairs = append(pairs, "skipped", fmt.Sprintf("%d more", more))
	}
	for _, n := range needed {
		pairs = append(pairs, "still needed", n)
	}
	terminal.Fields(w, pairs...)
}
