package benchcommand

import (
	"context"
	"io"
	"os"
	"os/exec"

	"keyroll/internal/bench"
	"keyroll/internal/node"
	"keyroll/internal/terminal"
)

type list struct {
	Containers int `name:"containers" default:"100000" placeholder:"N" help:"Number of mailboxes to list (default: ${default})."`
	Items      int `name:"items" default:"10" placeholder:"N" help:"Messages in each mailbox (default: ${default})."`
	place
}

func (c *list) Run(p *Program) error {
	return c.measureIn(p, func(o bench.Options) error {
		o.Containers, o.Items = c.Containers, c.Items
		r, err := bench.List(p, bench.ListOptions{Options: o, Command: ListCommand})
		if err != nil {
			return err
		}
		return p.Object(r, func(w io.Writer) {
			figures(w, r.Base, "processor time of the server for 1,000 mailboxes", inSeconds("serverSecondsPer1000"),
				"first line of keyroll mailbox list", inSeconds("firstLineSeconds"), "all lines", inSeconds("seconds"),
				"peak memory of keyroll mailbox list", terminal.Size(r.PeakRSSBytes), "mailboxes", r.Containers, "messages in each", r.Items)
		})
	})
}

// ListCommand is this program as it lists the mailboxes of a node.
func ListCommand(ctx context.Context, n *node.Node) (*exec.Cmd, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, "mailbox", "list", "--server", n.Info.URL, "--ca-file", n.Info.CAFile, "--token-file", n.Info.AdminTokenFile)
	cmd.Stderr = os.Stderr
	return cmd, nil
}
