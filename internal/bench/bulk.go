package bench

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"keyroll/internal/store"
)

// bulk inserts many rows as fast as possible. It prepares a measurement and is not part
// of it.
type bulk struct {
	db       *store.DB
	database string // URL of PostgreSQL, where COPY is used; empty means SQLite
}

// table is a table with the columns that are written, separated by ", ".
type table struct{ name, columns string }

var (
	containerTable = table{"container", "id, tenant, kind, name_hash, name, class, policy, page, generation, created, recipient, external"}
	pageTable      = table{"key_page", "id, tenant, parent, generation, class, version, count, body"}
	itemTable      = table{"item", "id, tenant, container, version, metadata, size, created"}
	blobTable      = table{"blob", "id, tenant, item, sequence, size, page"}
	totalTable     = table{"item_total", "container, tenant, items, bytes"}
	auditTable     = table{"audit_entry", "id, tenant, time, request, principal, operation, outcome, detail, actor, target"}
	rowTable       = table{"bench_row", "id, tenant, parent, version, wrapped"}
)

// rowsOf are rows for a table, each with one value per column.
type rowsOf struct {
	table
	rows [][]any
}

// insert writes all of parts in their order, in one transaction.
func (b bulk) insert(ctx context.Context, parts ...rowsOf) error {
	if b.database != "" {
		return b.copy(ctx, parts)
	}
	return b.db.InTx(ctx, func(tx *store.Tx) error {
		for _, p := range parts {
			if err := p.insert(ctx, tx); err != nil {
				return err
			}
		}
		return nil
	})
}

func (b bulk) copy(ctx context.Context, parts []rowsOf) error {
	conn, err := pgx.Connect(ctx, b.database)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		for _, p := range parts {
			if _, err := tx.CopyFrom(ctx, pgx.Identifier{p.name}, strings.Split(p.columns, ", "), pgx.CopyFromRows(p.rows)); err != nil {
				return fmt.Errorf("fill table %s: %w", p.name, err)
			}
		}
		return nil
	})
}

// statementRows is how many rows one statement inserts into SQLite, which allows 32,766
// parameters. More rows were not faster.
const statementRows = 500

func (p rowsOf) insert(ctx context.Context, tx *store.Tx) error {
	whole := len(p.rows) / statementRows * statementRows
	for _, part := range []struct {
		rows [][]any
		each int
	}{{p.rows[:whole], statementRows}, {p.rows[whole:], 1}} {
		var args [][]any
		for rows := range slices.Chunk(part.rows, part.each) {
			args = append(args, slices.Concat(rows...))
		}
		if _, err := tx.ExecMany(ctx, p.statement(part.each), args); err != nil {
			return fmt.Errorf("fill table %s: %w", p.name, err)
		}
	}
	return nil
}

// statement inserts n rows.
func (t table) statement(n int) string {
	columns := strings.Count(t.columns, ", ") + 1
	var text strings.Builder
	fmt.Fprintf(&text, "INSERT INTO %s (%s) VALUES ", t.name, t.columns)
	for i := range n * columns {
		switch {
		case i == 0:
			text.WriteString("(")
		case i%columns == 0:
			text.WriteString("), (")
		default:
			text.WriteString(", ")
		}
		fmt.Fprintf(&text, "?%d", i+1)
	}
	return text.String() + ")"
}
