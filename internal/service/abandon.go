package service

import (
	"context"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// AbandonContainer deletes a container whose key page is damaged beyond repair. This
// frees its name and the key versions that wrap its page.
func (s *Service) AbandonContainer(ctx context.Context, in api.AbandonInput) (out api.Abandoned, err error) {
	return do(ctx, s, api.AbandonContainer.Meta, in.Body.Container, func(ctx context.Context, c *call) (api.Abandoned, error) {
		kind := container.Kind(in.Body.Kind)
		if kind != container.Mailbox && kind != container.Site && kind != container.Workload {
			return out, fail.New(api.InvalidArgument, "kind %q must be one of mailbox, site, workload", in.Body.Kind)
		}
		ct, err := s.containers.Find(ctx, c.Tenant, kind, in.Body.Container)
		if err != nil {
			return out, err
		}
		abandon, err := s.backups.PrepareAbandon(ctx, ct)
		if err != nil {
			return out, err
		}
		err = c.Commit(ctx, abandon, func(tx *store.Tx) (string, error) {
			if err := abandon.Commit(ctx, tx); err != nil {
				return "", err
			}
			totals, err := s.items.Totals(ctx, tx, c.Tenant, []int64{ct.ID})
			out = api.Abandoned{Kind: string(kind), Container: ct.Name, Items: totals[ct.ID].Items, Bytes: totals[ct.ID].Bytes}
			return "its key page was lost", err
		})
		if err != nil {
			return out, err
		}
		c.queueContentCleanup(c.Tenant)
		return out, c.retireAll(ctx, c.Tenant)
	})
}
