package service

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/operation"
	"keyroll/internal/policy"
	"keyroll/internal/store"
)

// CreateMailbox makes a mailbox of the given type, with a policy assigned if one is
// given.
func (s *Service) CreateMailbox(ctx context.Context, in api.CreateMailboxInput) (out api.Mailbox, err error) {
	return do(ctx, s, api.CreateMailbox.Meta, in.Body.Name, func(ctx context.Context, c *call) (api.Mailbox, error) {
		c.DryRun = in.Body.DryRun
		pol, err := c.mailboxPolicy(ctx, in.Body.Policy)
		if err != nil {
			return out, err
		}
		made, err := s.containers.PrepareMailbox(ctx, c.Tenant, container.NewMailbox{Name: in.Body.Name, Type: in.Body.Type, External: in.Body.ExternalAddress, Policy: pol})
		if err != nil {
			return out, err
		}
		return makeContainer(ctx, c, made, mailboxOf)
	})
}

// mailboxPolicy resolves the policy to assign to a mailbox; an empty identity means
// none.
func (c *call) mailboxPolicy(ctx context.Context, identity string) (id int64, err error) {
	if identity == "" {
		return 0, nil
	}
	err = c.db.View(ctx, func(tx *store.Tx) error {
		pol, err := c.policies.Find(ctx, tx, c.Tenant, identity)
		if err != nil {
			return err
		}
		if err := pol.CheckAccepting(); err != nil {
			return err
		}
		if pol.Kind != api.MailboxPolicy {
			return fail.New(api.Conflict, "policy %q is of kind %s and cannot be assigned to a mailbox", pol.Name, pol.Kind).
				WithHint("choose an enabled policy of kind mailbox")
		}
		if !pol.Enabled {
			return policy.Disabled("assign", pol)
		}
		id = pol.ID
		return nil
	})
	return id, err
}

// ListMailboxes lists mailboxes in the order of their creation.
func (s *Service) ListMailboxes(ctx context.Context, in api.ListInput) (api.List[api.Mailbox], error) {
	return do(ctx, s, api.ListMailboxes.Meta, "", func(ctx context.Context, c *call) (api.List[api.Mailbox], error) {
		return listContainers(ctx, c, container.Mailbox, in.PageInput, mailboxOf)
	})
}

// ShowMailbox shows a mailbox and what it is encrypted with.
func (s *Service) ShowMailbox(ctx context.Context, in api.MailboxInput) (out api.Mailbox, err error) {
	return do(ctx, s, api.ShowMailbox.Meta, in.Mailbox, func(ctx context.Context, c *call) (api.Mailbox, error) {
		ct, err := s.containers.Find(ctx, c.Tenant, container.Mailbox, in.Mailbox)
		if err != nil {
			return out, err
		}
		return out, c.Read(ctx, func(tx *store.Tx) (err error) {
			out, err = show(ctx, c, tx, ct, mailboxOf)
			return err
		})
	})
}

var mailboxStates = map[api.MailboxState]envelope.Class{
	api.Active: envelope.ClassActive, api.Inactive: envelope.ClassInactive,
	api.Disconnected: envelope.ClassDisconnected, api.Disabled: envelope.ClassDisabled,
}

// SetMailboxState changes the state of a mailbox; its key moves to a page of the class
// of the new state.
func (s *Service) SetMailboxState(ctx context.Context, in api.SetMailboxStateInput) (out api.Mailbox, err error) {
	return do(ctx, s, api.SetMailboxState.Meta, in.Mailbox, func(ctx context.Context, c *call) (api.Mailbox, error) {
		class, ok := mailboxStates[in.Body.State]
		if !ok {
			return out, fail.New(api.InvalidArgument, "state %q must be one of active, inactive, disconnected, disabled", in.Body.State)
		}
		ct, err := s.containers.Find(ctx, c.Tenant, container.Mailbox, in.Mailbox)
		if err != nil {
			return out, err
		}
		move, err := s.containers.PrepareState(ctx, c.Tenant, ct, class)
		if err != nil {
			return out, err
		}
		return c.moveMailbox(ctx, move, "state "+string(in.Body.State))
	})
}

// AssignMailbox assigns a policy to a mailbox, or returns it to the tenant's default;
// its key is re-wrapped in the same transaction.
func (s *Service) AssignMailbox(ctx context.Context, in api.AssignMailboxInput) (out api.Mailbox, err error) {
	return do(ctx, s, api.AssignMailbox.Meta, in.Mailbox, func(ctx context.Context, c *call) (api.Mailbox, error) { return c.assignMailbox(ctx, in) })
}

func (c *call) assignMailbox(ctx context.Context, in api.AssignMailboxInput) (out api.Mailbox, err error) {
	c.DryRun = in.Body.DryRun
	pol, err := c.mailboxPolicy(ctx, in.Body.Policy)
	if err != nil {
		return out, err
	}
	ct, err := c.containers.Find(ctx, c.Tenant, container.Mailbox, in.Mailbox)
	if err != nil {
		return out, err
	}
	move, err := c.containers.PrepareAssign(ctx, c.Tenant, ct, pol, api.AssignMailbox.Initiator)
	if err != nil {
		return out, err
	}
	if wait, err := c.needsApproval(ctx, api.AssignMailbox.Meta, move.From()); err != nil || wait {
		move.Close(ctx, store.NotCommitted)
		if err == nil {
			out, err = c.showMailbox(ctx, ct)
		}
		if err == nil {
			out.PendingApproval, err = c.RequestApproval(ctx, c.Call, api.AssignMailbox.Meta, in)
		}
		return out, err
	}
	return c.moveMailbox(ctx, move, "policy "+in.Body.Policy)
}

// showMailbox shows a mailbox as it is.
func (c *call) showMailbox(ctx context.Context, ct container.Container) (out api.Mailbox, err error) {
	return out, c.db.View(ctx, func(tx *store.Tx) (err error) {
		out, err = show(ctx, c, tx, ct, mailboxOf)
		return err
	})
}

// moveMailbox commits a change of a mailbox that moves its key, and queues the upkeep
// that is due afterwards.
func (c *call) moveMailbox(ctx context.Context, move *container.PreparedMove, detail string) (out api.Mailbox, err error) {
	err = c.Commit(ctx, move, func(tx *store.Tx) (string, error) {
		ct, err := move.Commit(ctx, tx)
		if err != nil {
			return "", err
		}
		out, err = show(ctx, c, tx, ct, mailboxOf)
		return detail, err
	})
	if err != nil {
		return out, err
	}
	c.foldContainers(c.Tenant)
	return out, c.retireAll(ctx, c.Tenant)
}

func mailboxOf(s shown) (m api.Mailbox, err error) {
	m = api.Mailbox{Name: s.Name, Type: s.Recipient, ExternalAddress: s.External, State: api.MailboxState(s.State.String()), Created: s.Created.UTC(),
		Items: s.total.Items, Bytes: s.total.Bytes}
	if m.Protection, err = s.protection(); err != nil || s.Policy == 0 {
		return m, err
	}
	pol, err := s.names.ByID(s.Policy)
	m.AssignedPolicy = pol.Name
	return m, err
}

// ExportMail writes all messages of a mailbox as an mbox.
func (s *Service) ExportMail(ctx context.Context, in api.MailboxInput, w io.Writer) error {
	return errorOnly(do(ctx, s, api.ExportMail.Meta, in.Mailbox, func(ctx context.Context, c *call) (none api.None, err error) {
		ct, err := s.containers.Find(ctx, c.Tenant, container.Mailbox, in.Mailbox)
		if err != nil {
			return none, err
		}
		defer c.queueFollow(ct)
		return none, c.Stream(ctx, w, func(w io.Writer) error { return s.contents.Export(ctx, ct, w) })
	}))
}

// ListMessages lists the messages of a mailbox in the order of their import.
func (s *Service) ListMessages(ctx context.Context, in api.ListMailboxItems) (api.List[api.Message], error) {
	return do(ctx, s, api.ListMessages.Meta, in.Mailbox, func(ctx context.Context, c *call) (list api.List[api.Message], err error) {
		after, limit, err := operation.ParsePage(in.PageInput)
		if err != nil {
			return list, err
		}
		ct, err := s.containers.Find(ctx, c.Tenant, container.Mailbox, in.Mailbox)
		if err != nil {
			return list, err
		}
		all, err := s.contents.Messages(ctx, ct, after, limit+1)
		if err != nil {
			return list, err
		}
		var damaged []error // beside the page
		rows := make([]operation.Row[api.Message], 0, len(all))
		for _, m := range all {
			if m.Lost {
				damaged = append(damaged, m.Damaged)
				continue
			}
			rows = append(rows, operation.Row[api.Message]{ID: m.ID, Err: m.Damaged,
				Item: api.Message{ID: fmt.Sprint(m.ID), Subject: m.Subject, From: m.From, Date: dateText(m.Date), Flags: m.Flags, Bytes: m.Size}})
		}
		return itemPage(ctx, c, rows, limit, damaged)
	})
}

// dateText formats the date of a message; a missing one is empty.
func dateText(date time.Time) string {
	if date.IsZero() {
		return ""
	}
	return date.UTC().Format(time.RFC3339)
}

// ReadMessage writes one message, byte for byte as it was imported.
func (s *Service) ReadMessage(ctx context.Context, in api.MessageInput, w io.Writer) error {
	return errorOnly(do(ctx, s, api.ReadMessage.Meta, in.Mailbox, func(ctx context.Context, c *call) (none api.None, err error) {
		id, err := strconv.ParseInt(in.Message, 10, 64)
		if err != nil {
			return none, fail.New(api.InvalidArgument, "message %q is not a valid message id", in.Message)
		}
		ct, err := s.containers.Find(ctx, c.Tenant, container.Mailbox, in.Mailbox)
		if err != nil {
			return none, err
		}
		defer c.queueFollow(ct)
		return none, c.Stream(ctx, w, func(w io.Writer) error { return s.contents.Message(ctx, ct, id, w) })
	}))
}

// errorOnly drops the empty result of an operation that only streams.
func errorOnly(_ api.None, err error) error { return err }
