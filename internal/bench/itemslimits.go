package bench

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/store"
)

// An import commits its messages in batches of this size; the comparison with its rows uses
// the same number of transactions.
const (
	importMessages = 512
	importBytes    = 16 << 20
)

// writeMail writes the mbox of each import to a file, with fsync.
func (p *itemsNode) writeMail(mail []importedMail) (timing, error) {
	return p.writePlain(len(mail), len(mail), func(i int, w *os.File) error {
		_, err := io.Copy(w, newMail(mail[i].messages, p.options.ItemSize))
		return err
	})
}

// writeFiles writes each of the files that a round stores to a file of its own, with fsync.
func (p *itemsNode) writeFiles(clients int) (timing, error) {
	return p.writePlain(p.options.Items, clients, func(i int, w *os.File) error {
		_, err := w.Write(p.file(uint64(i)))
		return err
	})
}

// writePlain writes n files in a new folder, which it then removes.
func (p *itemsNode) writePlain(n, clients int, write func(i int, w *os.File) error) (t timing, err error) {
	dir, err := os.MkdirTemp(p.options.Data, "plain-*")
	if err != nil {
		return t, err
	}
	t, err = concurrently(n, clients, func(_, i int) error {
		return writeSynced(filepath.Join(dir, fmt.Sprint(i)), func(w *os.File) error { return write(i, w) })
	})
	if removed := os.RemoveAll(dir); err == nil {
		err = removed
	}
	return t, err
}

// insertRows inserts the rows that imports made into another database, in as many
// transactions and by as many writers.
func (p *itemsNode) insertRows(ctx context.Context, mail []importedMail) (t timing, err error) {
	all := make([][][]rowsOf, len(mail))
	for i, m := range mail {
		if all[i], err = p.importRows(ctx, m); err != nil {
			return t, err
		}
	}
	return concurrently(len(all), len(all), func(_, i int) error {
		for _, parts := range all[i] {
			err := p.rows.InTx(ctx, func(tx *store.Tx) error {
				for _, part := range parts {
					if _, err := tx.ExecMany(ctx, part.statement(1), part.rows); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// importRows returns the rows that an import made, for each of its transactions.
func (p *itemsNode) importRows(ctx context.Context, m importedMail) (transactions [][]rowsOf, err error) {
	c, err := p.Containers.Find(ctx, p.Tenant.ID, container.Mailbox, m.mailbox)
	if err != nil {
		return nil, err
	}
	var pages, item, blob, audit rowsOf
	err = p.DB.View(ctx, func(tx *store.Tx) (err error) {
		if pages, err = pageTable.rowsWhere(ctx, tx, `parent = ?1 ORDER BY id`, c.ID); err != nil {
			return err
		}
		if item, err = itemTable.rowsWhere(ctx, tx, `container = ?1 ORDER BY id`, c.ID); err != nil {
			return err
		}
		if blob, err = blobTable.rowsWhere(ctx, tx, `item IN (SELECT id FROM item WHERE container = ?1) ORDER BY item`, c.ID); err != nil {
			return err
		}
		audit, err = auditTable.rowsWhere(ctx, tx, `operation = ?1 ORDER BY id DESC LIMIT 1`, api.ImportMail.Name)
		return err
	})
	if err != nil {
		return nil, err
	}
	audit.rows[0][0] = store.NewID() // the entry of another import has the same size
	each := int(max(min(importMessages, importBytes/p.options.ItemSize), 1))
	n := (len(item.rows) + each - 1) / each
	for i := range n {
		transactions = append(transactions, []rowsOf{pages.part(i, n), item.part(i, n), blob.part(i, n)})
	}
	transactions[n-1] = append(transactions[n-1], audit)
	return transactions, nil
}

// part returns the i-th of n parts of about the same size.
func (p rowsOf) part(i, n int) rowsOf {
	return rowsOf{p.table, p.rows[len(p.rows)*i/n : len(p.rows)*(i+1)/n]}
}

// rowsWhere reads rows of a table.
func (t table) rowsWhere(ctx context.Context, tx *store.Tx, where string, args ...any) (rowsOf, error) {
	columns := strings.Count(t.columns, ", ") + 1
	rows, err := store.Collect(ctx, tx, func(row store.Scanner) ([]any, error) {
		values, targets := make([]any, columns), make([]any, columns)
		for i := range values {
			targets[i] = &values[i]
		}
		return values, row.Scan(targets...)
	}, `SELECT `+t.columns+` FROM `+t.name+` WHERE `+where, args...)
	return rowsOf{t, rows}, err
}
