package content

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"strconv"
	"time"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/fail"
	"keyroll/internal/mbox"
	"keyroll/internal/store"
)

// keepImports is how long an import can be continued after it last stored messages.
const keepImports = 30 * 24 * time.Hour

// MailImport is the stored state of an import.
type MailImport struct {
	Name             string
	Format           api.MailFormat
	Messages, Bytes  int64 // stored so far
	Finished         bool
	Started, Changed time.Time

	request int64
	digest  []byte
	link    int64
}

// importing is an import under way. Each of its commits records in the same
// transaction how much of the mbox is stored, as long as this request owns the import:
// of two requests that continue the same import, one stores, and the other fails.
type importing struct {
	contents  *Contents
	container container.Container
	directory *container.Directory
	request   int64
	stored    MailImport
	hasRow    bool // the import has a row
	read      hash.Hash
}

func (s *Contents) newImporting(ctx context.Context, c container.Container, name string, format api.MailFormat) (*importing, error) {
	directory, err := s.keys.Directory(ctx, c.Tenant)
	if err != nil {
		return nil, err
	}
	request := store.NewID()
	if name == "" {
		name = strconv.FormatInt(request, 10)
	}
	if format == "" {
		format = api.AutoFormat
	}
	return &importing{contents: s, container: c, directory: directory, request: request, read: sha256.New(),
		stored: MailImport{Name: name, Format: format, Started: s.now()}}, nil
}

// digest is the keyed hash of what has been read.
func (i *importing) digest() []byte {
	return i.directory.Hash("import", i.container.ID, string(i.read.Sum(nil)))
}

// resume skips what the import has already stored, if it was begun before, and makes
// this request the owner of the import. It fails DifferentMail, and changes nothing,
// if mail does not begin with the stored bytes.
func (i *importing) resume(ctx context.Context, mail *mbox.Reader) error {
	for {
		before, found, err := i.contents.mailImport(ctx, i.container, i.stored.Name)
		if err != nil || !found {
			return err
		}
		if err := i.skipStored(mail, before); err != nil {
			return err
		}
		taken := false
		err = i.contents.db.InTx(ctx, func(tx *store.Tx) error {
			n, err := tx.Exec(ctx, `UPDATE mail_import SET request = ?5, format = ?6
				WHERE tenant = ?1 AND container = ?2 AND name = ?3 AND bytes = ?4 AND finished = 0`,
				i.container.Tenant, i.container.ID, before.Name, before.Bytes, i.request, string(i.stored.Format))
			taken = n == 1
			return err
		})
		if err != nil {
			return fmt.Errorf("continue an import: %w", err)
		}
		if taken { // otherwise another request has stored more in the meantime
			i.stored, i.hasRow = before, true
			return nil
		}
	}
}

// skipStored reads as much of mail as the import has stored, and compares the two.
func (i *importing) skipStored(mail *mbox.Reader, before MailImport) error {
	switch {
	case before.Finished:
		return fail.New(api.Conflict, "this import is finished: all %d messages of the mbox are stored", before.Messages)
	case before.Bytes > 0 && before.Format != i.stored.Format:
		return fail.New(api.Conflict, "the unfinished import of %d messages used format %s and cannot be continued in format %s", before.Messages, before.Format, i.stored.Format).
			WithHint("continue it in the same format, or import the whole mbox: keyroll mailbox import --no-continue")
	}
	for mail.Offset() < before.Bytes {
		err := mail.Next()
		if err == nil {
			_, err = io.Copy(i.read, struct{ io.Reader }{mail})
		}
		if err == io.EOF {
			return errDifferentMail(before)
		}
		if err != nil {
			return err
		}
	}
	if mail.Offset() > 0 && (mail.Offset() != before.Bytes || string(i.digest()) != string(before.digest)) {
		return errDifferentMail(before)
	}
	return nil
}

func errDifferentMail(before MailImport) error {
	return fail.New(api.DifferentMail, "the mbox does not begin with the %d bytes that the import stored; nothing was changed", before.Bytes).
		WithHint("this is a different mbox: import it from its beginning")
}

// recordProgress records in tx that a batch, possibly the last one, is stored.
func (i *importing) recordProgress(ctx context.Context, tx *store.Tx, next MailImport) error {
	var n int64
	var err error
	if i.hasRow {
		n, err = tx.Exec(ctx, `UPDATE mail_import SET messages = ?6, bytes = ?7, digest = ?8, link = ?9, finished = ?10, changed = ?11
			WHERE tenant = ?1 AND container = ?2 AND name = ?3 AND request = ?4 AND bytes = ?5 AND finished = 0`,
			i.container.Tenant, i.container.ID, next.Name, i.request, i.stored.Bytes,
			next.Messages, next.Bytes, next.digest, next.link, next.Finished, next.Changed.UnixMilli())
	} else {
		n, err = i.contents.insertImport(ctx, tx, i.container, i.request, next)
	}
	if err != nil {
		return fmt.Errorf("record the progress of an import: %w", err)
	}
	if n == 0 {
		return fail.New(api.Conflict, "the import was stopped, or another request continues it").
			WithHint("an import of the same name continues after the messages that are stored")
	}
	return nil
}

func (s *Contents) insertImport(ctx context.Context, tx *store.Tx, c container.Container, request int64, m MailImport) (int64, error) {
	if m.digest == nil {
		m.digest = []byte{}
	}
	return tx.Exec(ctx, `INSERT INTO mail_import (tenant, container, name, request, format, messages, bytes, digest, link, finished, started, changed)
		VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) ON CONFLICT DO NOTHING`,
		c.Tenant, c.ID, m.Name, request, string(m.Format), m.Messages, m.Bytes, m.digest, m.link, m.Finished, m.Started.UnixMilli(), m.Changed.UnixMilli())
}

const selectImports = `SELECT name, request, format, messages, bytes, digest, link, finished, started, changed FROM mail_import
	WHERE tenant = ?1 AND container = ?2`

func scanImport(row store.Scanner) (m MailImport, err error) {
	var format string
	var started, changed int64
	err = row.Scan(&m.Name, &m.request, &format, &m.Messages, &m.Bytes, &m.digest, &m.link, &m.Finished, &started, &changed)
	m.Format, m.Started, m.Changed = api.MailFormat(format), time.UnixMilli(started).UTC(), time.UnixMilli(changed).UTC()
	return m, err
}

func (s *Contents) mailImport(ctx context.Context, c container.Container, name string) (m MailImport, found bool, err error) {
	err = s.db.View(ctx, func(tx *store.Tx) error {
		all, err := store.Collect(ctx, tx, scanImport, selectImports+` AND name = ?3`, c.Tenant, c.ID, name)
		if found = len(all) == 1; found {
			m = all[0]
		}
		return err
	})
	if err != nil {
		err = fmt.Errorf("look up an import: %w", err)
	}
	return m, found, err
}

// Imports returns the unfinished imports into c that have stored messages, the most
// recently changed first. Each can be continued.
func (s *Contents) Imports(ctx context.Context, tx *store.Tx, c container.Container) ([]MailImport, error) {
	all, err := store.Collect(ctx, tx, scanImport, selectImports+` AND finished = 0 AND messages > 0 ORDER BY changed DESC, name`, c.Tenant, c.ID)
	if err != nil {
		return nil, fmt.Errorf("list imports: %w", err)
	}
	return all, nil
}

// StopImport prevents the import of that name from storing more, and returns its
// state. The import can be continued.
func (s *Contents) StopImport(ctx context.Context, tx *store.Tx, c container.Container, name string) (MailImport, error) {
	// An import without a row may be about to store its first messages.
	m := MailImport{Name: name, Format: api.AutoFormat, Started: s.now().UTC(), Changed: s.now().UTC()}
	if _, err := s.insertImport(ctx, tx, c, 0, m); err != nil {
		return MailImport{}, fmt.Errorf("stop an import: %w", err)
	}
	_, err := tx.Exec(ctx, `UPDATE mail_import SET request = 0 WHERE tenant = ?1 AND container = ?2 AND name = ?3`, c.Tenant, c.ID, name)
	if err != nil {
		return MailImport{}, fmt.Errorf("stop an import: %w", err)
	}
	all, err := store.Collect(ctx, tx, scanImport, selectImports+` AND name = ?3`, c.Tenant, c.ID, name)
	if err != nil {
		return MailImport{}, fmt.Errorf("stop an import: %w", err)
	}
	return all[0], nil
}

// ForgetImports deletes the state of imports that stored nothing for keepImports.
func (s *Contents) ForgetImports(ctx context.Context, tenant int64) error {
	return s.db.InTx(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM mail_import WHERE tenant = ?1 AND changed < ?2`, tenant, s.now().Add(-keepImports).UnixMilli())
		if err != nil {
			return fmt.Errorf("forget old imports: %w", err)
		}
		return nil
	})
}
