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
	"keyroll/internal/fail"
	"keyroll/internal/node"
)

type benchCommand struct {
	Roll    benchRoll    `cmd:"" help:"Measure the roll beside its limits in the same run."`
	Growth  benchGrowth  `cmd:"" help:"Measure the roll at growing numbers of containers."`
	Readers benchReaders `cmd:"" help:"Measure how long reading a message takes, at rest and while rolls at half their free rate run."`
	Content benchContent `cmd:"" help:"Measure put and get of a large file beside a plain copy of it and the cryptography alone."`
}

// benchPlace is where a roll is measured.
type benchPlace struct {
	Database  string `name:"database" placeholder:"URL" help:"A PostgreSQL database, postgres://…, in which schemas are made and dropped; SQLite unless given."`
	Data      string `name:"data" type:"path" placeholder:"DIR" help:"Folder on the disk to measure; a throw-away folder beside the default data folder unless given."`
	PageSlots slots  `name:"page-slots" default:"${pageSlots}" placeholder:"N" help:"Keys in a key page, 1 to 1024 (${default})."`
	Rounds    int    `name:"rounds" default:"5" placeholder:"N" help:"Interleaved rounds (${default})."`
}

// in runs measure in a folder of its own with these options.
func (c benchPlace) in(e *env, measure func(o bench.Options) error) error {
	return inBenchFolder(c.Data, func(data string) error {
		return measure(bench.Options{Data: data, Database: c.Database, PageSlots: int(c.PageSlots), Rounds: c.Rounds,
			Script: quietly, Client: localClient, Progress: func(stage string) { fmt.Fprintln(e.err, stage) }})
	})
}

// inBenchFolder runs measure in a folder of its own, which is removed after it,
// on the disk of parent, or of the default data folder if that is empty.
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
		return fail.New(api.InvalidArgument, "%s stands in memory, which says nothing of a disk", parent).WithHint("name a folder on a disk with --data")
	}
	return measure(data)
}

// figures prints lines as fields does, and where they were taken. A value may be
// the name of a figure, as ratio and its like.
func figures(w io.Writer, b bench.Base, pairs ...any) {
	for i, value := range pairs {
		switch f := value.(type) {
		case ratio:
			pairs[i] = spread(b.Range[string(f)], 1, "%.2f", "")
		case inSeconds:
			pairs[i] = spread(b.Range[string(f)], 1, "%.3f", "s")
		case perSecond:
			pairs[i] = spread(b.Range[f.name], 1, "%.0f", f.unit+"/s")
		case bytesPerSecond:
			pairs[i] = spread(b.Range[string(f)], 1<<20, "%.0f", "MiB/s")
		}
	}
	fields(w, append(pairs, "database", fmt.Sprintf("%s, %s, %s", b.Database, b.Durability, size(b.DatabaseBytes)), "rounds", b.Rounds)...)
}

type (
	ratio          string
	inSeconds      string
	bytesPerSecond string
	perSecond      struct{ name, unit string }
)

// spread prints a median with its range.
func spread(f bench.Figure, scale float64, format, unit string) string {
	median := strings.TrimSpace(fmt.Sprintf(format+" "+unit, f.Median/scale))
	return fmt.Sprintf("%s ("+format+" to "+format+")", median, f.Min/scale, f.Max/scale)
}

// quietly runs cmdlet lines against a node of this process and drops what they emit.
func quietly(ctx context.Context, n *node.Node, text string) error {
	t, err := targetOf(n.Info)
	if err != nil {
		return err
	}
	shell, err := t.shell(&env{Context: ctx, out: io.Discard, err: io.Discard})
	if err != nil {
		return err
	}
	defer shell.close()
	return shell.run(ctx, text)
}
