package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"golang.org/x/sys/unix"

	"keyroll/api"
	"keyroll/internal/bench"
	"keyroll/internal/fail"
	"keyroll/internal/node"
)

type benchCommand struct {
	Roll    benchRoll    `cmd:"" help:"Measure the roll beside the cryptography alone, the bare pages, and one row a container."`
	Content benchContent `cmd:"" help:"Measure put and get of a large file beside a plain copy of it and the cryptography alone."`
}

type benchRoll struct {
	Containers int    `name:"containers" default:"200000" placeholder:"N" help:"Mailboxes to roll (${default})."`
	Database   string `name:"database" placeholder:"URL" help:"A PostgreSQL database, postgres://…, in which two schemas are made and dropped; SQLite unless given."`
	Data       string `name:"data" type:"path" placeholder:"DIR" help:"Folder on the disk to measure; a throw-away folder beside the default data folder unless given."`
	PageSlots  slots  `name:"page-slots" default:"${pageSlots}" placeholder:"N" help:"Keys in a key page, 1 to 1024 (${default})."`
}

func (c *benchRoll) Run(e *env) error {
	return inBenchFolder(c.Data, func(data string) error { return c.run(e, data) })
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

func (c *benchRoll) run(e *env, data string) error {
	r, err := bench.Roll(e, bench.RollOptions{
		Data: data, Database: c.Database, Containers: c.Containers, PageSlots: int(c.PageSlots),
		Script:   func(ctx context.Context, n *node.Node, text string) error { return quietly(ctx, n, text) },
		Client:   localClient,
		Progress: func(stage string) { fmt.Fprintln(e.err, stage) },
	})
	if err != nil {
		return err
	}
	return e.object(r, func(w io.Writer) {
		fields(w, "containers", r.Containers, "key pages", fmt.Sprintf("%d of %d slots", r.Pages, r.PageSlots),
			"database", r.Database+", "+r.Durability,
			"roll", rate(r.Range.PerSecond), "cryptography alone", rate(r.Range.CryptoPerSecond),
			"bare pages", rate(r.Range.PagesPerSecond), "row by row", rate(r.Range.RowByRowPerSecond),
			"ratio to bare pages", ratio(r.Range.RatioToPages), "ratio to row by row", ratio(r.Range.RatioToRowByRow),
			"one roll", fmt.Sprintf("%.3f s", r.Seconds), "one refresh at depth root", fmt.Sprintf("%.3f s", r.RootSeconds),
			"peak memory", size(r.PeakRSSBytes), "keys opened and equal", r.KeysOpenedAndEqual)
	})
}

func rate(f bench.Figure) string {
	return fmt.Sprintf("%.0f containers/s (%.0f to %.0f)", f.Median, f.Min, f.Max)
}

func ratio(f bench.Figure) string {
	return fmt.Sprintf("%.2f (%.2f to %.2f)", f.Median, f.Min, f.Max)
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
