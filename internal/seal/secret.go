package seal

import (
	"bytes"
	"context"
	"database/sql"
	"errors"

	"keyroll/api"
	"keyroll/internal/fail"
)

// Tx has the methods of a transaction that the seal needs; *store.Tx implements it.
type Tx interface {
	Exec(ctx context.Context, query string, args ...any) (rowsAffected int64, err error)
	QueryRow(ctx context.Context, query string, args ...any) *sql.Row
}

const (
	checkLabel = "seal check"
	checkValue = "keyroll"
)

// Check binds the database to this seal at the first start, and compares the seal later.
// A database that was created under another seal is fail WrongSeal.
func (s *Seal) Check(ctx context.Context, tx Tx) error {
	_, err := tx.Exec(ctx, insertCheck, s.id, s.Seal(checkLabel, []byte(checkValue)))
	if err != nil {
		return err
	}
	var id string
	var sealed []byte
	if err := tx.QueryRow(ctx, selectCheck).Scan(&id, &sealed); err != nil {
		return err
	}
	value, err := s.Open(checkLabel, sealed)
	if id != s.id || err != nil || !bytes.Equal(value, []byte(checkValue)) {
		return fail.New(api.WrongSeal, "the database was created under seal %s, but this is seal %s", id, s.id).
			WithHint("start with the seal that the database was created under; nothing was changed").Because(err)
	}
	return nil
}

// Secret returns the secret of that name. The first call creates it with create and
// stores it under the seal; every later one, on any node, returns the same.
func Secret(ctx context.Context, tx Tx, s *Seal, name string, create func() ([]byte, error)) ([]byte, error) {
	label := "secret " + name
	var sealed []byte
	err := tx.QueryRow(ctx, selectSecret, name).Scan(&sealed)
	if err == nil {
		return s.Open(label, sealed)
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return nil, err
	}
	secret, err := create()
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	if _, err := tx.Exec(ctx, insertSecret, name, s.Seal(label, secret)); err != nil {
		return nil, err
	}
	// Another node may have stored one meanwhile: the one in the table is valid.
	if err := tx.QueryRow(ctx, selectSecret, name).Scan(&sealed); err != nil {
		return nil, err
	}
	return s.Open(label, sealed)
}
