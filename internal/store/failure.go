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

// trouble is a state of the database that no caller made and an operator ends.
type trouble int

const (
	noTrouble   trouble = iota
	full                // its file system or quota has no room left
	unwritable          // its disk refuses a write, and does not say whether for want of room
	readOnly            // it takes no writes
	unsound             // a page or an index of it is not what the database wrote
	unreachable         // no connection, or one that broke off
)

// named gives an error that is the database's own trouble its code and says
// what ends it. The log gets the address; a user, who may be of any tenant,
// does not. Any other error is returned as it is.
func (db *DB) named(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || fail.CodeOf(err) != api.Internal {
		return err
	}
	var f *fail.Error
	switch db.dialect.trouble(err) {
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
		if tables := db.unindexed.all(); len(tables) > 0 {
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

// noRoom reports whether the operating system refused a write for want of room.
func noRoom(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}
