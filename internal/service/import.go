package service

import (
	"context"
	"io"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/content"
	"keyroll/internal/store"
)

// ImportMail adds the messages of an mbox; it migrates a mail user. Messages are stored in
// batches: an import that fails returns how many it stored, and one of the same name
// continues after them.
func (s *Service) ImportMail(ctx context.Context, in api.ImportMailInput, size int64, r io.Reader) (api.Imported, error) {
	return do(ctx, s, api.ImportMail.Meta, in.Mailbox, func(ctx context.Context, c *call) (api.Imported, error) {
		ct, err := s.containers.Find(ctx, c.Tenant, container.Mailbox, in.Mailbox)
		if err != nil {
			return api.Imported{}, err
		}
		mail, err := s.contents.PrepareImport(ctx, ct, size, r, content.ImportOptions{Name: in.Import, Format: in.Format})
		if err != nil {
			return api.Imported{}, err
		}
		var got content.Imported
		err = c.Commit(ctx, mail, func(tx *store.Tx) (string, error) {
			if got, err = mail.Commit(ctx, tx); err != nil {
				return "", err
			}
			return "", s.containers.Migrated(ctx, tx, ct)
		})
		if err != nil {
			return api.Imported{}, mail.Failure(err)
		}
		c.queueFollow(ct)
		c.foldBlobs(ct)
		return api.Imported{Messages: got.Messages, Bytes: got.Bytes, Before: got.Before, NoEmptyLine: got.NoEmptyLine, FromText: got.FromText}, nil
	})
}

// ListMailImports lists the unfinished imports into a mailbox.
func (s *Service) ListMailImports(ctx context.Context, in api.MailboxInput) (list api.List[api.MailImport], err error) {
	return do(ctx, s, api.ListMailImports.Meta, in.Mailbox, func(ctx context.Context, c *call) (api.List[api.MailImport], error) {
		ct, err := s.containers.Find(ctx, c.Tenant, container.Mailbox, in.Mailbox)
		if err != nil {
			return list, err
		}
		return list, c.Read(ctx, func(tx *store.Tx) error {
			list = api.List[api.MailImport]{}
			all, err := s.contents.Imports(ctx, tx, ct)
			for _, m := range all {
				list.Items = append(list.Items, mailImport(m))
			}
			return err
		})
	})
}

// StopMailImport stops an import, and returns how much it has stored.
func (s *Service) StopMailImport(ctx context.Context, in api.MailImportInput) (api.MailImport, error) {
	return do(ctx, s, api.StopMailImport.Meta, in.Mailbox, func(ctx context.Context, c *call) (api.MailImport, error) {
		ct, err := s.containers.Find(ctx, c.Tenant, container.Mailbox, in.Mailbox)
		if err != nil {
			return api.MailImport{}, err
		}
		var m content.MailImport
		err = c.Change(ctx, func(tx *store.Tx) (_ string, err error) {
			m, err = s.contents.StopImport(ctx, tx, ct, in.Import)
			return "", err
		})
		return mailImport(m), err
	})
}

func mailImport(m content.MailImport) api.MailImport {
	return api.MailImport{Import: m.Name, Format: m.Format, Messages: m.Messages, Bytes: m.Bytes, Finished: m.Finished, Started: m.Started, Changed: m.Changed}
}
