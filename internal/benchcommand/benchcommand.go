// Package benchcommand is the command keyroll bench: the flags of each benchmark, and how its
// figures are printed. It measures nothing itself. Start reading at Command.
package benchcommand

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/bench"
	"keyroll/internal/fail"
	"keyroll/internal/node"
	"keyroll/internal/terminal"
)

// Program is what a benchmark needs of the program that it is part of.
type Program struct {
	context.Context
	terminal.Terminal
	// Script runs cmdlet lines against a node of this process and discards their output.
	Script func(ctx context.Context, n *node.Node, text string) error
	// Client connects to a node of this process.
	Client func(n *node.Node) (*client.Client, error)
	// Data is the default data folder.
	Data string
}

// Command is the command and its subcommands.
type Command struct {
	Roll    roll    `cmd:"" help:"Measure a roll and, in the same run, the upper bounds of its speed."`
	Growth  growth  `cmd:"" help:"Measure a roll at growing numbers of containers."`
	Readers readers `cmd:"" help:"Measure how long reading a message takes, with no roll running and while rolls run at half their full rate."`
	List    list    `cmd:"" help:"Measure the list of all mailboxes: its first line, its memory, and the processor time of the server."`
	Items   items   `cmd:"" help:"Measure many small messages and files: import, put, get and list with several numbers of clients, compared with plain writes."`
	Content content `cmd:"" help:"Measure storing and reading a large file, compared with a plain copy and with the cryptography only."`
}

// Slots is a number of keys in a key page.
type Slots int

// Validate is called by kong when flags have been read.
func (s Slots) Validate() error {
	if s < 1 || s > 1024 {
		return fmt.Errorf("%d is not within 1 to 1024", s)
	}
	return nil
}

// place says on which database and disk a roll is measured.
type place struct {
	Database  string `name:"database" placeholder:"URL" help:"PostgreSQL database, postgres://…, in which schemas are created and dropped (default: SQLite)."`
	Data      string `name:"data" type:"path" placeholder:"DIR" help:"Folder on the disk to measure (default: a temporary folder next to the default data folder)."`
	PageSlots Slots  `name:"page-slots" default:"${pageSlots}" placeholder:"N" help:"Keys in a key page, 1 to 1024 (default: ${default})."`
	Rounds    int    `name:"rounds" default:"5" placeholder:"N" help:"Number of interleaved rounds (default: ${default})."`
}

// measureIn runs measure with these options in a new folder.
func (c place) measureIn(p *Program, measure func(o bench.Options) error) error {
	return p.inFolder(c.Data, func(data string) error {
		return measure(bench.Options{Data: data, Database: c.Database, PageSlots: int(c.PageSlots), Rounds: c.Rounds,
			Script: p.Script, Client: p.Client, Progress: func(stage string) { fmt.Fprintln(p.ErrOut, stage) }})
	})
}

// inFolder runs measure in a new folder, which is removed afterwards, on the
// disk of parent, or on that of the default data folder if parent is empty.
func (p *Program) inFolder(parent string, measure func(data string) error) (err error) {
	if parent == "" {
		parent = filepath.Dir(p.Data)
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

func (*roll) Help() string {
	return terminal.Help("Measures in interleaved rounds in one run, on the same database, disk, driver and durability; at the end every key is decrypted again, or all content is read. "+
		"Figures are medians with their range; ratios are medians of the ratios within each round.",
		"keyroll bench roll --containers 200000 -o json",
		"keyroll bench roll --depth content --database postgres:///keyroll?host=/run/postgresql")
}

func (*growth) Help() string {
	return terminal.Help("Creates policies of 1,000, 10,000, 100,000 mailboxes and so on, and rolls each of them at depth policy, then at depth root, in interleaved rounds of one run.",
		"keyroll bench growth --containers 10000000")
}

func (*readers) Help() string {
	return terminal.Help("In each round one roll runs with no rate limit and no other load; then a client reads messages at a steady pace, first with no roll running, then while rolls limited to half that rate run one after another. "+
		"The time of a read is counted from the moment at which it was due.",
		"keyroll bench readers --depth content")
}

func (*list) Help() string {
	return terminal.Help("Runs keyroll mailbox list as a process of its own against a node with that many mailboxes, and counts the processor time that the server uses meanwhile.",
		"keyroll bench list --containers 100000 --rounds 3")
}

func (*items) Help() string {
	return terminal.Help("Imports messages into mailboxes, puts files into a site, gets them and lists the messages, with each number of clients, in interleaved rounds with plain writes and fsync of the same bytes, the rows of the import alone, and gets without audit entries. "+
		"Each client has connections of its own that stay open. Clients and node are one process on the same cores, with TLS between them. At the end all messages are exported and compared; each file is compared when it is read.",
		"keyroll bench items --size 4KiB --items 2000",
		"keyroll bench items --size 500 --clients 1,16,64 --database postgres:///keyroll?host=/run/postgresql -o json")
}

func (*content) Help() string {
	return terminal.Help("Stores a file in a site and reads it back, in interleaved rounds with io.Copy with fsync on the same disk. Client and node are one process on the same cores, with TLS between them.",
		"keyroll bench content --size 1GiB -o json")
}
