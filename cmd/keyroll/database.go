package main

import (
	"fmt"
	"io"

	"keyroll/internal/node"
	"keyroll/internal/terminal"
)

type databaseCommand struct {
	Move databaseMove `cmd:"" help:"Move the SQLite database of a data folder to PostgreSQL, and compare both."`
}

type databaseMove struct {
	Data string `name:"data" type:"path" default:"${data}" env:"KEYROLL_DATA" placeholder:"DIR" help:"Data folder whose database is moved (default: ${default})."`
	To   string `name:"to" env:"KEYROLL_DATABASE" required:"" placeholder:"URL" help:"Empty PostgreSQL database, postgres://USER@HOST/NAME. Give a password in KEYROLL_DATABASE, PGPASSWORD or the file of PGPASSFILE, not on the command line. Between machines use ?sslmode=verify-full."`
}

// movedDatabase is what database move prints with -o json.
type movedDatabase struct {
	From   string       `json:"from"`
	To     string       `json:"to"`
	Rows   int64        `json:"rows"`
	Tables []movedTable `json:"tables"`
}

type movedTable struct {
	Name   string `json:"name"`
	Rows   int64  `json:"rows"`
	SHA256 string `json:"sha256"` // of its rows in the order of its key, the same in both
}

func (c *databaseMove) Run(e *env) error {
	bar := e.Progress("database move", -1)
	moved, err := node.MoveDatabase(e, c.Data, c.To, func(stage string, done, total int64) {
		bar.SetNote(fmt.Sprintf("%s, row %d of %d", stage, done, total))
		bar.SetTotal(total)
		bar.Set(done)
	})
	bar.End()
	if err != nil {
		return err
	}
	out := movedDatabase{From: moved.From, To: moved.To, Rows: moved.Rows, Tables: []movedTable{}}
	for _, t := range moved.Tables {
		out.Tables = append(out.Tables, movedTable{Name: t.Name, Rows: t.Rows, SHA256: t.Digest})
	}
	return e.Object(out, func(w io.Writer) {
		terminal.Fields(w, "from", out.From, "to", out.To, "tables, the same in both", len(out.Tables), "rows", out.Rows)
		fmt.Fprintf(w, "From now on run keyroll serve --data %s with --database or KEYROLL_DATABASE. %s is kept, but no server opens it any more.\n", c.Data, node.DatabaseFile)
	})
}
