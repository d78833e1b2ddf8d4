package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// table is a table as its database describes it.
type table struct {
	name    string
	columns []column // in the order of the table
	rows    int64
}

type column struct {
	name string
	kind string // integer, text or bytes
	key  int    // position in the primary key, from 1; 0: not part of it
}

// kinds maps the column types of both databases to those of this file.
var kinds = map[string]string{
	"INTEGER": "integer", "TEXT": "text", "BLOB": "bytes",
	"bigint": "integer", "text": "text", "bytea": "bytes",
}

// tables lists the tables of an SQLite database, each after those that it references,
// and counts their rows.
func (db *DB) tables(ctx context.Context) (list []table, err error) {
	refers := map[string][]string{}
	err = db.View(ctx, func(tx *Tx) error {
		err := eachRow(ctx, tx, `SELECT t.name, c.name, c.type, c.pk FROM sqlite_schema t JOIN pragma_table_info(t.name) c
			WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%' ORDER BY t.name, c.cid`, func(rows *sql.Rows) error {
			var name, kind string
			var c column
			if err := rows.Scan(&name, &c.name, &kind, &c.key); err != nil {
				return err
			}
			if name == versionTable || name == moveTable {
				return nil
			}
			if c.kind = kinds[kind]; c.kind == "" {
				return fmt.Errorf("column %s of table %s is of type %q", c.name, name, kind)
			}
			if len(list) == 0 || list[len(list)-1].name != name {
				list = append(list, table{name: name})
			}
			t := &list[len(list)-1]
			t.columns = append(t.columns, c)
			return nil
		})
		if err != nil {
			return err
		}
		err = eachRow(ctx, tx, `SELECT t.name, f."table" FROM sqlite_schema t JOIN pragma_foreign_key_list(t.name) f WHERE t.type = 'table'`, func(rows *sql.Rows) error {
			var name, other string
			if err := rows.Scan(&name, &other); err != nil {
				return err
			}
			refers[name] = append(refers[name], other)
			return nil
		})
		if err != nil {
			return err
		}
		for i := range list {
			if len(list[i].key()) == 0 {
				return fmt.Errorf("table %s has no primary key", list[i].name)
			}
			if err := tx.QueryRow(ctx, "SELECT count(*) FROM "+quoteName(list[i].name)).Scan(&list[i].rows); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return sortByReferences(list, refers)
}

// sortByReferences sorts tables so that each comes after those that it references.
func sortByReferences(list []table, refers map[string][]string) (sorted []table, err error) {
	placed := map[string]bool{}
	for len(sorted) < len(list) {
		before := len(sorted)
		for _, t := range list {
			ready := !placed[t.name] && !slices.ContainsFunc(refers[t.name], func(other string) bool { return other != t.name && !placed[other] })
			if ready {
				placed[t.name] = true
				sorted = append(sorted, t)
			}
		}
		if len(sorted) == before {
			return nil, errors.New("tables reference each other in a cycle")
		}
	}
	return sorted, nil
}

// columns describes the tables of a PostgreSQL database: kinds by table and name.
func (db *DB) columns(ctx context.Context) (found map[string]map[string]string, err error) {
	found = map[string]map[string]string{}
	err = db.View(ctx, func(tx *Tx) error {
		return eachRow(ctx, tx, `SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = current_schema()`, func(rows *sql.Rows) error {
			var table, name, kind string
			if err := rows.Scan(&table, &name, &kind); err != nil {
				return err
			}
			if found[table] == nil {
				found[table] = map[string]string{}
			}
			found[table][name] = kinds[kind]
			return nil
		})
	})
	return found, err
}

func eachRow(ctx context.Context, tx *Tx, query string, row func(rows *sql.Rows) error) error {
	rows, err := tx.Query(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

func quoteName(name string) string { return pgx.Identifier{name}.Sanitize() }

func tableNames(tables []table) string {
	var list []string
	for _, t := range tables {
		list = append(list, quoteName(t.name))
	}
	return strings.Join(list, ", ")
}

func (t *table) key() (list []column) {
	for _, c := range t.columns {
		if c.key > 0 {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b column) int { return a.key - b.key })
	return list
}

// read queries all rows in the order of the key. textOrder is appended to text columns
// if the database does not sort them by their bytes.
func (t *table) read(ctx context.Context, tx *Tx, textOrder string) (*sql.Rows, error) {
	var columns, order []string
	for _, c := range t.columns {
		columns = append(columns, quoteName(c.name))
	}
	for _, c := range t.key() {
		by := quoteName(c.name)
		if c.kind == "text" {
			by += textOrder
		}
		order = append(order, by)
	}
	return tx.Query(ctx, "SELECT "+strings.Join(columns, ", ")+" FROM "+quoteName(t.name)+" ORDER BY "+strings.Join(order, ", "))
}

// reader reads the rows of a table, one at a time; it is a pgx.CopyFromSource.
type reader struct {
	rows   *sql.Rows
	table  *table
	row    func() // called for each
	values []any
	err    error
}

func (r *reader) Next() bool {
	if r.err != nil || !r.rows.Next() {
		return false
	}
	if r.values == nil {
		r.values = make([]any, len(r.table.columns))
	}
	into := make([]any, len(r.values))
	for i := range into {
		into[i] = &r.values[i]
	}
	r.err = r.rows.Scan(into...)
	for i, c := range r.table.columns {
		if r.err == nil && !c.accepts(r.values[i]) {
			r.err = fmt.Errorf("column %s holds a value that is not of type %s", c.name, c.kind)
		}
	}
	r.row()
	return r.err == nil
}

func (c column) accepts(value any) bool {
	switch value.(type) {
	case nil:
		return true
	case int64:
		return c.kind == "integer"
	case string:
		return c.kind == "text"
	case []byte:
		return c.kind == "bytes"
	}
	return false
}

func (r *reader) Values() ([]any, error) { return r.values, nil }

func (r *reader) Err() error { return errors.Join(r.err, r.rows.Err()) }

// copyFrom appends rows to a table of a PostgreSQL database.
func (tx *Tx) copyFrom(ctx context.Context, t *table, rows *reader) error {
	var columns []string
	for _, c := range t.columns {
		columns = append(columns, c.name)
	}
	err := tx.conn.Raw(func(raw any) error {
		_, err := raw.(*stdlib.Conn).Conn().CopyFrom(ctx, pgx.Identifier{t.name}, columns, rows)
		return err
	})
	if own := rows.Err(); own != nil { // the server returns it as an error of its own
		err = own
	}
	if err != nil {
		return tx.fail(err)
	}
	return nil
}

// digest reads a table of one database and returns its row count and hash.
func (m *mover) digest(ctx context.Context, db *DB, t *table, textOrder string, row func()) (found MovedTable, err error) {
	err = db.View(ctx, func(tx *Tx) error {
		rows, err := t.read(ctx, tx, textOrder)
		if err != nil {
			return err
		}
		defer rows.Close()
		r := &reader{rows: rows, table: t, row: row}
		found = MovedTable{Name: t.name}
		hash := sha256.New()
		var frame []byte
		for r.Next() {
			found.Rows++
			frame = frame[:0]
			for _, value := range r.values {
				frame = appendValue(frame, value)
			}
			hash.Write(frame)
		}
		found.Digest = hex.EncodeToString(hash.Sum(nil))
		return r.Err()
	})
	return found, err
}

// appendValue appends a value in an encoding that is unambiguous in a sequence of
// values.
func appendValue(b []byte, value any) []byte {
	switch v := value.(type) {
	case int64:
		return binary.BigEndian.AppendUint64(append(b, 'i'), uint64(v))
	case string:
		return append(binary.BigEndian.AppendUint64(append(b, 't'), uint64(len(v))), v...)
	case []byte:
		return append(binary.BigEndian.AppendUint64(append(b, 'b'), uint64(len(v))), v...)
	}
	return append(b, '0')
}
