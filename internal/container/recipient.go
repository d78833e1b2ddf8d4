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

// NewMailbox describes a new mailbox.
type NewMailbox struct {
	Name     string
	Type     api.RecipientType // empty: UserMailbox
	External string            // of a MailUser: the address at which the mail is until it is migrated
	Policy   int64             // 0: the default
}

// PrepareMailbox makes a mailbox of a given type, as PrepareCreate does.
func (s *Containers) PrepareMailbox(ctx context.Context, tenant int64, m NewMailbox) (*PreparedCreate, error) {
	if m.Type == "" {
		m.Type = api.UserMailbox
	}
	switch {
	case !mailboxTypes[m.Type]:
		return nil, fail.New(api.InvalidArgument, "%.40q is not a valid mailbox type", m.Type)
	case (m.Type == api.MailUser) != (m.External != ""):
		return nil, fail.New(api.InvalidArgument, "a MailUser has an external address, and no other mailbox has one")
	case len(m.External) > maxExternal:
		return nil, fail.New(api.InvalidArgument, "an external address can have at most %d bytes", maxExternal)
	}
	fresh, err := s.newContainers(ctx, tenant, Mailbox, []string{m.Name}, m.Policy)
	if err != nil {
		return nil, err
	}
	fresh[0].Recipient, fresh[0].External = m.Type, m.External
	if m.External != "" {
		d, err := s.Directory(ctx, tenant)
		if err != nil {
			return nil, err
		}
		fresh[0].external = d.sealAddress(fresh[0].ID, m.External)
	}
	return s.prepareCreate(ctx, fresh[0].target(), fresh)
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
