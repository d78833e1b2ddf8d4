package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"keyroll/api"
	"keyroll/internal/fail"
)

// Tables returns the names of all tables, sorted.
func (db *DB) Tables(ctx context.Context) (names []string, err error) {
	err = db.View(ctx, func(tx *Tx) (err error) {
		names, err = Collect(ctx, tx, scanName, db.dialect.tables)
		return err
	})
	return names, err
}

func scanName(row Scanner) (name string, err error) {
	err = row.Scan(&name)
	return name, err
}

// CheckTable has the database compare a table with its indexes and read all of their
// pages. It fails Damaged, naming the table and, if the database reports it, the
// index. checked is false if the database cannot do it: PostgreSQL without the
// extension amcheck, or without the privilege to use it. It takes no lock that blocks
// others; the cost grows with the table.
func (db *DB) CheckTable(ctx context.Context, table string) (checked bool, err error) {
	if db.forTests.CheckNothing {
		return true, nil
	}
	if checked, err = db.dialect.checkTable(ctx, db, table); err != nil {
		err = fmt.Errorf("check table %s: %w", table, db.classify(err))
	}
	return checked, err
}

// CheckTables is CheckTable for several tables, for the check before an irreversible
// deletion that depends on them.
func (db *DB) CheckTables(ctx context.Context, tables ...string) error {
	var errs []error
	for _, table := range tables {
		if _, err := db.CheckTable(ctx, table); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// maxShownFaults bounds how many faults of one table an error names.
const maxShownFaults = 3

func unsoundTable(table string, faults []string) error {
	more := ""
	if len(faults) > maxShownFaults {
		more = fmt.Sprintf("; and %d more", len(faults)-maxShownFaults)
		faults = faults[:maxShownFaults]
	}
	return fail.New(api.Damaged, "table %s of the database and its indexes do not agree: %s%s", table, strings.Join(faults, "; "), more).
		WithHint("docs/damage.md says how to find out which of them is right and how to repair the other")
}

// checkTableName refuses a text that cannot be the name of a table of the schema,
// because it becomes part of statements.
func checkTableName(table string) error {
	if table == "" || strings.Trim(table, "abcdefghijklmnopqrstuvwxyz_") != "" {
		return fmt.Errorf("%q is not the name of a table", table)
	}
	return nil
}

func sqliteCheckTable(ctx context.Context, db *DB, table string) (bool, error) {
	if err := checkTableName(table); err != nil {
		return false, err
	}
	var faults []string
	err := db.ViewOnce(ctx, func(tx *Tx) (err error) {
		// quick_check would not compare the table with its indexes.
		faults, err = Collect(ctx, tx, scanName, `PRAGMA integrity_check(`+table+`)`)
		return err
	})
	if err != nil && sqliteFailureKind(err) != unsound {
		return true, err
	}
	if err != nil { // an index that cannot even be read to its end
		faults = []string{"a page of an index cannot be read"}
	} else if slices.Equal(faults, []string{"ok"}) {
		faults = nil
	}
	if onlyIndexes := db.recordCheck(ctx, table, faults); len(faults) > 0 && (err == nil || onlyIndexes) {
		err = unsoundTable(table, faults)
	}
	return true, err
}

// postgresCheckTable uses the extension amcheck: verify_heapam reads the table, and
// bt_index_check reads each index and compares it with the table's rows.
func postgresCheckTable(ctx context.Context, db *DB, table string) (bool, error) {
	if err := checkTableName(table); err != nil {
		return false, err
	}
	var schema string
	var indexes, faults []string
	err := db.View(ctx, func(tx *Tx) (err error) {
		if schema, err = amcheckSchema(ctx, tx); err != nil || schema == "" {
			return err
		}
		indexes, err = Collect(ctx, tx, scanName, `SELECT CAST(CAST(i.indexrelid AS regclass) AS text) FROM pg_index i
			JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
			WHERE i.indrelid = CAST(?1 AS regclass) AND a.amname = 'btree' AND i.indisvalid ORDER BY 1`, table)
		if err != nil {
			return err
		}
		faults, err = Collect(ctx, tx, scanName, `SELECT 'block ' || blkno || ': ' || msg FROM `+schema+`.verify_heapam(CAST(?1 AS regclass))`, table)
		return err
	})
	if err != nil || schema == "" {
		return false, err
	}
	for _, index := range indexes { // each in a transaction of its own, because a fault aborts it
		err := db.run(ctx, db.reader, db.viewOptions(), func(tx *Tx) error {
			var none any
			return tx.QueryRow(ctx, `SELECT CAST(`+schema+`.bt_index_check(CAST(?1 AS regclass), true) AS text)`, index).Scan(&none)
		})
		if message, ok := postgresCorruption(err); ok {
			faults = append(faults, message)
			err = nil
		}
		if err != nil {
			return false, err
		}
	}
	if len(faults) > 0 {
		return true, unsoundTable(table, faults)
	}
	return true, nil
}

// amcheckSchema returns the schema, quoted, of the extension amcheck; empty if it is
// not installed or may not be used.
func amcheckSchema(ctx context.Context, tx *Tx) (schema string, err error) {
	all, err := Collect(ctx, tx, scanName, `SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'amcheck'`)
	if err != nil || len(all) == 0 {
		return "", err
	}
	var may bool // false if the extension is older than the functions
	err = tx.QueryRow(ctx, `SELECT COALESCE(has_function_privilege(to_regprocedure(CAST(?1 AS TEXT) || '.bt_index_check(regclass, boolean)'), 'EXECUTE')
		AND has_function_privilege(to_regprocedure(CAST(?1 AS TEXT) || '.verify_heapam(regclass, boolean, boolean, text, bigint, bigint)'), 'EXECUTE'), FALSE)`, all[0]).Scan(&may)
	if err != nil || !may {
		return "", err
	}
	return all[0], nil
}
