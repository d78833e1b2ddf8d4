package main

import (
	"context"
	"os/exec"
	"testing"

	"keyroll/internal/bench"
	"keyroll/internal/benchcommand"
	"keyroll/internal/node"
)

func TestBenchmarkOfListsReadsThemToTheirEnd(t *testing.T) {
	t.Parallel()
	o := bench.Options{Data: t.TempDir(), Containers: 205, Items: 3, PageSlots: 8, Rounds: 1, Script: quietly, Client: localClient, Progress: func(string) {}}
	r, err := bench.List(t.Context(), bench.ListOptions{Options: o, Command: func(ctx context.Context, n *node.Node) (*exec.Cmd, error) {
		cmd, err := benchcommand.ListCommand(ctx, n)
		cmd.Args[0] = "keyroll" // the test's own binary is the command under this name
		return cmd, err
	}})
	if err != nil || r.Containers != 205 || r.Items != 3 || r.PeakRSSBytes <= 0 || r.ServerSecondsPer1000 <= 0 || r.FirstLineSeconds <= 0 || r.FirstLineSeconds > r.Seconds {
		t.Errorf("%+v, %v", r, err)
	}
}
