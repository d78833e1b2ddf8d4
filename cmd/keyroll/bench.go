package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"keyroll/api"
	"keyroll/internal/bench"
	"keyroll/internal/connect"
	"keyroll/internal/fail"
	"keyroll/internal/node"
	"keyroll/internal/terminal"
)

type benchCommand struct {
	Roll    benchRoll    `cmd:"" help:"Measure a roll and, in the same run, the upper bounds of its speed."`
	Growth  benchGrowth  `cmd:"" help:"Measure a roll at growing numbers of containers."`
	Readers benchReaders `cmd:"" help:"Measure how long reading a message takes, with no roll running and while rolls run at half their full rate."`
	List    benchList    `cmd:"" help:"Measure the list of all mailboxes: its first line, its memory, and the processor time of the server."`
	Items   benchItems   `cmd:"" help:"Measure many small messages and files: import, put, get and list with several numbers of clients, compared with plain writes."`
	Content benchContent `cmd:"" help:"Measure storing and reading a large file, compared with a plain copy and with the cryptography only."`
}

// benchPlace says on which database and disk a roll is measured.
type benchPlace struct {
	Database  string `name:"database" placeholder:"URL" help:"PostgreSQL database, postgres://…, in which schemas are created and dropped (default: SQLite)."`
	Data      string `name:"data" type:"path" placeholder:"DIR" help:"Folder on the disk to measure (default: a temporary folder next to the default data folder)."`
	PageSlots slots  `name:"page-slots" default:"${pageSlots}" placeholder:"N" help:"Keys in a key page, 1 to 1024 (default: ${default})."`
	Rounds    int    `name:"rounds" default:"5" placeholder:"N" help:"Number of interleaved rounds (default: ${default})."`
}

// measureIn runs measure with these options in a new folder.
func (c benchPlace) measureIn(e *env, measure func(o bench.Options) error) error {
	return inBenchFolder(c.Data, func(data string) error {
		return measure(bench.Options{Data: data, Database: c.Database, PageSlots: int(c.PageSlots), Rounds: c.Rounds,
			Script: quietly, Client: localClient, Progress: func(stage string) { fmt.Fprintln(e.ErrOut, stage) }})
	})
}

// inBenchFolder runs measure in a new folder, which is removed afterwards, on the
// disk of parent, or on that of the default data folder if parent is empty.
func inBenchFolder(parent string, measure func(data string) error) (err error) {
	if parent == "" {
		parent = filepath.Dir(defaultData())
	}
	data, remove, err := bench.Folder(parent)
	if err != nil {
		return err
	}
	defer func() {
		if removed := remove(); err == nil {
			err = removed
		}
	}()
	var fs unix.Statfs_t
	if err := unix.Statfs(data, &fs); err != nil {
		return err
	}
	if fs.Type == unix.TMPFS_MAGIC {
		return fail.New(api.InvalidArgument, "%s is in memory (tmpfs), so that no disk would be measured", parent).WithHint("name a folder on a disk with --data")
	}
	return measure(data)
}

// figures prints lines as fields does, and adds the database and the rounds. A value
// of type ratio, inSeconds, inMilliseconds, perSecond or bytesPerSecond names a figure of b.
func figures(w io.Writer, b bench.Base, pairs ...any) {
	for i, value := range pairs {
		switch f := value.(type) {
		case ratio:
			pairs[i] = spread(b.Range[string(f)], 1, "%.2f", "")
		case inMilliseconds:
			pairs[i] = spread(b.Range[string(f)], 0.001, "%.1f", "ms")
		case inSeconds:
			pairs[i] = spread(b.Range[string(f)], 1, "%.3f", "s")
		case perSecond:
			pairs[i] = spread(b.Range[f.name], 1, "%.0f", f.unit+"/s")
		case bytesPerSecond:
			pairs[i] = spread(b.Range[string(f)], 1<<20, "%.0f", "MiB/s")
		}
	}
	terminal.Fields(w, append(pairs, "database", fmt.Sprintf("%s, %s, %s", b.Database, b.Durability, terminal.Size(b.DatabaseBytes)), "rounds", b.Rounds)...)
}

type (
	ratio          string
	inSeconds      string
	inMilliseconds string
	bytesPerSecond string
	perSecond      struct{ name, unit string }
)

// spread prints a median with its range.
func spread(f bench.Figure, scale float64, format, unit string) string {
	median := strings.TrimSpace(fmt.Sprintf(format+" "+unit, f.Median/scale))
	return fmt.Sprintf("%s ("+format+" to "+format+")", median, f.Min/scale, f.Max/scale)
}

// quietly runs cmdlet lines against a node of this process and discards their output.
func quietly(ctx context.Context, n *node.Node, text string) error {
	t, err := connect.TargetOf(n.Info)
	if err != nil {
		return err
	}
	shell, err := newShell(t, &env{ctx, terminal.Terminal{Out: io.Discard, ErrOut: io.Discard}})
	if err != nil {
		return err
	}
	defer shell.close()
	return shell.run(ctx, text)
}
