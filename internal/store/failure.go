package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"keyroll/api"
	"keyroll/internal/fail"
)

// failureKind is a state of the database that was not caused by a caller and that an
// operator must repair.
type failureKind int

const (
	otherFailure failureKind = iota
	full                     // its file system or quota has no space left
	unwritable               // its disk refuses a write, perhaps for lack of space
	readOnly                 // it does not accept writes
	unsound                  // a page or an index of it is damaged
	unreachable              // no connection, or one that was lost
)

// classify turns an error of the database itself into one with its code and a hint.
// The address is only in the cause, which is logged; a user, who may be of any tenant,
// does not see it. Any other error is returned unchanged.
func (db *DB) classify(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || fail.CodeOf(err) != api.Internal {
		return err
	}
	var f *fail.Error
	switch db.dialect.failureKind(err) {
	case full:
		f = fail.New(api.InsufficientStorage, "the database has no space left; nothing was written").
			WithHint("free some space where the database is stored, which keyroll's log names; the same request then succeeds without a restart")
	case unwritable:
		f = fail.New(api.InsufficientStorage, "the disk of the database refused a write: it is full or broken; nothing was written").
			WithHint("free some space where the database is stored, which keyroll's log names; the same request then succeeds without a restart")
	case readOnly:
		f = fail.New(api.ReadOnly, "the database does not accept writes; nothing was written").
			WithHint("make the database, which keyroll's log names, writable again; the same request then succeeds without a restart")
	case unsound:
		if tables := db.unindexed.wrong(); len(tables) > 0 {
			f = fail.New(api.Damaged, "an index of the database is wrong; nothing was written").
				WithHint("stop keyroll and rebuild the indexes of table %s, as docs/damage.md says", strings.Join(tables, ", "))
			break
		}
		f = fail.New(api.Damaged, "the storage of the database is damaged").
			WithHint("stop keyroll and restore the database from a backup, as docs/damage.md says")
	case unreachable:
		f = noAnswer()
	default:
		return err
	}
	return f.Because(fmt.Errorf("database %s: %w", db.shown, err))
}

// noAnswer is the error of a database that does not answer.
func noAnswer() *fail.Error {
	return fail.New(api.Unavailable, "the database does not answer").WithHint("try again; the database is named in keyroll's log")
}

// isDiskFull reports whether the operating system refused a write for lack of space.
func isDiskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}
