package store

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// scanRows is how many rows of a table one transaction of Scan reads on SQLite.
const scanRows = 100_000

// ScanQuery selects the rows of a table whose column is one of IDs.
type ScanQuery struct {
	Table   string
	Columns string // those to read
	Column  string
	Or      string // another column that may be one of IDs; empty: none
	IDs     []int64
}

// condition returns that a column is one of the ids that a subquery selects; prefix
// precedes the name of a column.
func (s ScanQuery) condition(prefix, ids string) string {
	text := prefix + s.Column + ` IN (` + ids + `)`
	if s.Or != "" {
		text = `(` + text + ` OR ` + prefix + s.Or + ` IN (` + ids + `))`
	}
	return text
}

// Scan finds rows by reading their table from end to end. It uses no index, so it can
// confirm the result of one. each gets the columns; the caller must check other
// conditions.
//
// On SQLite the table is read in parts, each in a transaction of its own, so that the
// write-ahead log does not grow with the table; new rows are at the end. A row that
// exists throughout is found, one that is added or deleted meanwhile may or may not be.
// On PostgreSQL it reads one state of the database.
func (db *DB) Scan(ctx context.Context, q ScanQuery, each func(row Scanner) error) error {
	if len(q.IDs) == 0 {
		return nil
	}
	if err := db.dialect.scan(ctx, db, q, each); err != nil {
		return fmt.Errorf("read table %s from end to end: %w", q.Table, err)
	}
	return nil
}

// joinIDs returns the ids as a list in text.
func (s ScanQuery) joinIDs(begin, end string) string {
	var text strings.Builder
	text.WriteString(begin)
	for i, id := range s.IDs {
		if i > 0 {
			text.WriteByte(',')
		}
		text.WriteString(strconv.FormatInt(id, 10))
	}
	text.WriteString(end)
	return text.String()
}

func forEachRow(ctx context.Context, tx *Tx, each func(row Scanner) error, query string, args ...any) error {
	_, err := Collect(ctx, tx, func(row Scanner) (struct{}, error) { return struct{}{}, each(row) }, query, args...)
	return err
}

func sqliteScan(ctx context.Context, db *DB, s ScanQuery, each func(row Scanner) error) error {
	list := s.joinIDs("[", "]")
	for after, last := int64(math.MinInt64), int64(0); after != math.MaxInt64; after = last {
		err := db.ViewOnce(ctx, func(tx *Tx) error {
			err := tx.QueryRow(ctx, `SELECT COALESCE((SELECT rowid FROM `+s.Table+` NOT INDEXED WHERE rowid > ?1 ORDER BY rowid LIMIT 1 OFFSET ?2), ?3)`,
				after, scanRows, int64(math.MaxInt64)).Scan(&last)
			if err != nil {
				return err
			}
			return forEachRow(ctx, tx, each, `SELECT `+s.Columns+` FROM `+s.Table+` NOT INDEXED
				WHERE rowid > ?1 AND rowid <= ?2 AND `+s.condition("+", `SELECT value FROM json_each(?3)`), after, last, list)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func postgresScan(ctx context.Context, db *DB, s ScanQuery, each func(row Scanner) error) error {
	return db.ViewOnce(ctx, func(tx *Tx) error {
		for _, off := range []string{"enable_indexscan", "enable_indexonlyscan", "enable_bitmapscan"} {
			if _, err := tx.Exec(ctx, `SET LOCAL `+off+` = off`); err != nil {
				return err
			}
		}
		return forEachRow(ctx, tx, each, `SELECT `+s.Columns+` FROM `+s.Table+` WHERE `+s.condition("", `SELECT unnest(CAST(?1 AS BIGINT[]))`), s.joinIDs("{", "}"))
	})
}
