package main

import (
	"testing"
	"time"

	"keyroll/api"
)

// The text that a watched roll shows behind its figure.
func TestWatchShowsTheStateOfARoll(t *testing.T) {
	deadline := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for _, test := range []struct {
		roll api.Roll
		want string
	}{
		{api.Roll{}, ""},
		{api.Roll{PerSecond: 1234.5, ETASeconds: 61.4}, "1234 containers/s, 1m1s left"},
		{api.Roll{Stage: api.StageContainer, PerSecond: 2, ETASeconds: 1}, "2 blobs/s, 1s left"},
		{api.Roll{PerSecond: 1, ETASeconds: 5, Retries: 2, SkippedCount: 1, Skipped: []string{"key page 7"}, Late: true, Deadline: deadline, Message: "waits: the vault refused"},
			"1 containers/s, 2 retries, 1 skipped, the first: key page 7, late for 2026-03-04 05:06:07, waits: the vault refused"},
	} {
		if got := rollNote(test.roll); got != test.want {
			t.Errorf("%+v: %q, want %q", test.roll, got, test.want)
		}
	}
}
