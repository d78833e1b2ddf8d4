package container

import (
	"context"
	"fmt"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// mailboxTypes are the types of mailboxes that can be created.
var mailboxTypes = map[api.RecipientType]bool{
	api.UserMailbox: true, api.SharedMailbox: true, api.PublicFolder: true, api.GroupMailbox: true, api.MailUser: true,
}

// maxExternal is the longest external address, in bytes: the limit of a path in SMTP
// (RFC 5321, section 4.5.3.1.3).
const maxExternal = 256

// CreateMailbox makes a mailbox of the given type as Create does; an empty type means
// UserMailbox. external must be given for a MailUser and for no other type: the
// address at which the mail is until it is migrated.
func (s *Containers) CreateMailbox(ctx context.Context, tenant int64, name string, recipient api.RecipientType, external string, policy int64, also func(tx *store.Tx, c Container) error) (Container, error) {
	if recipient == "" {
		recipient = api.UserMailbox
	}
	switch {
	case !mailboxTypes[recipient]:
		return Container{}, fail.New(api.InvalidArgument, "%.40q is not a valid mailbox type", recipient)
	case (recipient == api.MailUser) != (external != ""):
		return Container{}, fail.New(api.InvalidArgument, "a MailUser has an external address, and no other mailbox has one")
	case len(external) > maxExternal:
		return Container{}, fail.New(api.InvalidArgument, "an external address can have at most %d bytes", maxExternal)
	}
	fresh, err := s.newContainers(ctx, tenant, Mailbox, []string{name}, policy)
	if err != nil {
		return Container{}, err
	}
	made := &fresh[0]
	made.Recipient, made.External = recipient, external
	if external != "" {
		d, err := s.Directory(ctx, tenant)
		if err != nil {
			return Container{}, err
		}
		made.external = d.sealAddress(made.ID, external)
	}
	err = s.insert(ctx, target{tenant: tenant, kind: Mailbox, policy: policy}, fresh, also)
	return made.Container, err
}

// Migrated turns a mail user, whose mail has been imported, into a user mailbox. It
// does not change other mailboxes.
func (s *Containers) Migrated(ctx context.Context, tx *store.Tx, c Container) error {
	if c.Recipient != api.MailUser {
		return nil
	}
	if _, err := tx.Exec(ctx, updateRecipient, c.Tenant, c.ID, string(api.UserMailbox), []byte{}); err != nil {
		return fmt.Errorf("migrate mailbox %d: %w", c.ID, err)
	}
	return nil
}

// addressContext returns the encryption context of a container's external address:
// that of its name except for the version.
func (d *Directory) addressContext(id int64) envelope.EncryptionContext {
	ec := d.nameContext(id)
	ec.Version = 2
	return ec
}

func (d *Directory) sealAddress(id int64, address string) []byte {
	return envelope.Seal(d.key, envelope.PurposeName, d.addressContext(id), []byte(address))
}

func (d *Directory) openAddress(id int64, sealed []byte) (string, error) {
	text, err := envelope.Open(d.key, envelope.PurposeName, d.addressContext(id), sealed)
	return string(text), err
}
