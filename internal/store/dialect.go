package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// Dialect has the differences between the two databases.
type Dialect struct {
	// Name is "sqlite" or "postgres".
	Name string

	parameter     string             // the prefix of a parameter's number
	schemaWords   []string           // pairs for strings.NewReplacer, applied to the schema files
	viewLevel     sql.IsolationLevel // with which a View sees one state of the database
	lockShared    string             // statement with the key as ?1; "": none needed, there is one writer
	lockExclusive string
	skipLocked    string // suffix of a SELECT of rows to update that skips those that another transaction has locked
	clock         string // expression: the database's current time, in Unix milliseconds
	endSession    string // statement that ends the connections with the name ?1; "": no other process has any
	goose         goose.Dialect
	migrationLock func() (lock.SessionLocker, error) // nil: only one process opens the database
	retryable     func(error) bool
	unique        func(error) bool
	failureKind   func(error) failureKind
	openFailure   func(shown string, err error) error
	check         func(ctx context.Context, db *DB) error // refuses a server on which the guarantees of this package do not hold; nil: there is no server
	hasTable      string                                  // query: how many tables have the name ?1
	tables        string                                  // query: the names of all tables
	checkTable    func(ctx context.Context, db *DB, table string) (bool, error)
	scan          func(ctx context.Context, db *DB, s ScanQuery, each func(row Scanner) error) error
	execMany      func(ctx context.Context, tx *Tx, text string, argRows [][]any) ([]int64, error)

	texts *texts
}

// IsUnique reports whether err says that a row with this primary or unique key exists.
// The transaction has failed then; ON CONFLICT avoids that.
func IsUnique(err error) bool {
	return err != nil && (sqliteUnique(err) || postgresUnique(err))
}

// statement is a query in the dialect of one database.
type statement struct {
	text   string
	params int
}

// texts caches statements by the query they were made from. Queries are constants or
// built from a bounded number of parts; otherwise the cache is cleared at maxTexts.
type texts struct {
	mu    sync.RWMutex
	known map[string]statement
}

const maxTexts = 1024

func (d *Dialect) statement(query string) (statement, error) {
	d.texts.mu.RLock()
	s, ok := d.texts.known[query]
	d.texts.mu.RUnlock()
	if ok {
		return s, nil
	}
	s, err := parse(query, d.parameter)
	if err != nil {
		return statement{}, err
	}
	d.texts.mu.Lock()
	defer d.texts.mu.Unlock()
	if d.texts.known == nil || len(d.texts.known) >= maxTexts {
		d.texts.known = make(map[string]statement)
	}
	d.texts.known[strings.Clone(query)] = s
	return s, nil
}

// parse finds the parameters ?1 … ?n of query and writes each with the prefix
// parameter. Each number up to the highest must occur, because PostgreSQL needs the
// type of each.
func parse(query, parameter string) (statement, error) {
	var text strings.Builder
	var seen []bool
	quotes := 0
	for {
		before, after, found := strings.Cut(query, "?")
		text.WriteString(before)
		if !found {
			break
		}
		if quotes += strings.Count(before, "'"); quotes%2 != 0 {
			return statement{}, errors.New("statement has a ? inside a literal")
		}
		digits := len(after) - len(strings.TrimLeft(after, "0123456789"))
		number := 0
		for _, c := range after[:digits] {
			if number = 10*number + int(c-'0'); number > maxParameters {
				return statement{}, fmt.Errorf("statement has over %d parameters", maxParameters)
			}
		}
		if number == 0 {
			return statement{}, errors.New("statement has a ? without a number from 1")
		}
		for len(seen) < number {
			seen = append(seen, false)
		}
		seen[number-1] = true
		text.WriteString(parameter)
		text.WriteString(after[:digits])
		query = after[digits:]
	}
	for i, ok := range seen {
		if !ok {
			return statement{}, fmt.Errorf("statement has no ?%d but has higher ones", i+1)
		}
	}
	return statement{text.String(), len(seen)}, nil
}

// maxParameters is SQLite's default SQLITE_LIMIT_VARIABLE_NUMBER, the lower of
// the two (PostgreSQL: 65,535).
const maxParameters = 32766
