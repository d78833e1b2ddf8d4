package store

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// scanRows is how many rows of a table one transaction of Scan passes on SQLite.
const scanRows = 100_000

// Scan finds the rows of a table whose column is one of ids by reading the table
// from end to end: no index has a say, so it is the second look at what an index
// said. columns are those that each gets; other conditions are the caller's.
//
// On SQLite the table is read in parts, each in a transaction of its own, so that
// the write-ahead log does not grow with the table; new rows come at the end. A
// row that is there all the while is met, one that comes or goes is met or not.
// On PostgreSQL it is one state of the database.
func (db *DB) Scan(ctx context.Context, table, columns, column string, ids []int64, each func(row Scanner) error) error {
	if len(ids) == 0 {
		return nil
	}
	if err := db.dialect.scan(ctx, db, scanned{table, columns, column, ids}, each); err != nil {
		return fmt.Errorf("read table %s from end to end: %w", table, err)
	}
	return nil
}

// scanned is what Scan looks for.
type scanned struct {
	table, columns, column string
	ids                    []int64
}

// list is the ids as text.
func (s scanned) list(begin, end string) string {
	var text strings.Builder
	text.WriteString(begin)
	for i, id := range s.ids {
		if i > 0 {
			text.WriteByte(',')
		}
		text.WriteString(strconv.FormatInt(id, 10))
	}
	text.WriteString(end)
	return text.String()
}

func rowsOf(ctx context.Context, tx *Tx, each func(row Scanner) error, query string, args ...any) error {
	_, err := Collect(ctx, tx, func(row Scanner) (struct{}, error) { return struct{}{}, each(row) }, query, args...)
	return err
}

func sqliteScan(ctx context.Context, db *DB, s scanned, each func(row Scanner) error) error {
	list := s.list("[", "]")
	for after, last := int64(math.MinInt64), int64(0); after != math.MaxInt64; after = last {
		err := db.ViewOnce(ctx, func(tx *Tx) error {
			err := tx.QueryRow(ctx, `SELECT COALESCE((SELECT rowid FROM `+s.table+` NOT INDEXED WHERE rowid > ?1 ORDER BY rowid LIMIT 1 OFFSET ?2), ?3)`,
				after, scanRows, int64(math.MaxInt64)).Scan(&last)
			if err != nil {
				return err
			}
			return rowsOf(ctx, tx, each, `SELECT `+s.columns+` FROM `+s.table+` NOT INDEXED
				WHERE rowid > ?1 AND rowid <= ?2 AND +`+s.column+` IN (SELECT value FROM json_each(?3))`, after, last, list)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func postgresScan(ctx context.Context, db *DB, s scanned, each func(row Scanner) error) error {
	return db.ViewOnce(ctx, func(tx *Tx) error {
		for _, off := range []string{"enable_indexscan", "enable_indexonlyscan", "enable_bitmapscan"} {
			if _, err := tx.Exec(ctx, `SET LOCAL `+off+` = off`); err != nil {
				return err
			}
		}
		return rowsOf(ctx, tx, each, `SELECT `+s.columns+` FROM `+s.table+` WHERE `+s.column+` IN (SELECT unnest(CAST(?1 AS BIGINT[])))`, s.list("{", "}"))
	})
}
