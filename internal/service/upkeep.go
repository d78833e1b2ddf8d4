package service

import (
	"context"
	"errors"
	"fmt"

	"keyroll/internal/access"
	"keyroll/internal/audit"
	"keyroll/internal/container"
	"keyroll/internal/keypage"
	"keyroll/internal/policy"
	"keyroll/internal/store"
	"keyroll/internal/upkeep"
)

// TidyUp queues the upkeep that the end of the last process may have left over,
// and the end of the backups whose time has come, in any tenant. It is called at
// start and once a day. It returns at once, however many tenants there are: a job looks
// at one after the other.
func (s *Service) TidyUp() {
	s.Upkeep.Add("look for what is left over", func(ctx context.Context) error {
		for after := int64(0); ; {
			var tenants []access.Tenant
			err := s.DB.View(ctx, func(tx *store.Tx) (err error) {
				tenants, err = s.Access.Tenants(ctx, tx, after, 1000)
				return err
			})
			if err != nil || len(tenants) == 0 {
				return err
			}
			for _, t := range tenants {
				s.expireBackups(t.ID)
				s.tidyContent(t.ID)
				s.foldContainers(t.ID)
				if err := s.retireAll(ctx, t.ID); err != nil {
					return err
				}
				after = t.ID
			}
		}
	})
}

// later queues an upkeep job; the audit log has its uses of root keys under the
// operation, with the job's name as the request.
func (s *Service) later(operation, name string, job upkeep.Job) {
	s.Upkeep.Add(name, func(ctx context.Context) error {
		return job(audit.WithOrigin(ctx, audit.Origin{Operation: operation, Request: name, System: true}))
	})
}

// accessed queues what follows an access to content: a container that a roll
// left behind moves to the current policy key. The access has been answered.
func (s *Service) accessed(ct container.Container) {
	s.later(policy.JobFollow, fmt.Sprintf("follow %d", ct.ID), func(ctx context.Context) error {
		moved, err := s.Containers.Follow(ctx, ct)
		if err != nil || !moved {
			return err
		}
		return s.retireAll(ctx, ct.Tenant)
	})
}

// Retire queues the erasure of wraps that nothing under a policy needs.
func (s *Service) Retire(tenant, policyID int64) {
	s.later(policy.JobRetire, fmt.Sprintf("retire policy keys of %d", policyID), func(ctx context.Context) error {
		_, err := s.Policies.Retire(ctx, tenant, policyID)
		return err
	})
}

// retireAll queues it for every policy of a tenant.
func (s *Service) retireAll(ctx context.Context, tenant int64) error {
	return s.DB.View(ctx, func(tx *store.Tx) error {
		all, err := s.Policies.List(ctx, tx, tenant)
		for _, pol := range all {
			s.Retire(tenant, pol.ID)
		}
		return err
	})
}

// foldContainers queues the merging of the tenant's container key pages where
// they are less than half full on average.
func (s *Service) foldContainers(tenant int64) {
	s.later(policy.JobFold, fmt.Sprintf("fold key pages of tenant %d", tenant), func(ctx context.Context) error {
		var sums []keypage.Sum
		err := s.DB.View(ctx, func(tx *store.Tx) (err error) {
			sums, err = keypage.Usage(ctx, tx, tenant)
			return err
		})
		if err != nil {
			return err
		}
		var errs []error
		for _, sum := range sums {
			if sum.Pages < 2 || 2*sum.Keys > sum.Pages*int64(s.PageSlots) {
				continue
			}
			_, err := s.Containers.Fold(ctx, tenant, keypage.Parent{ID: sum.Parent, Generation: sum.Generation}, sum.Class)
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
}

// foldBlobs queues the merging of one container's small pages of blob keys.
func (s *Service) foldBlobs(ct container.Container) {
	s.later(policy.JobFold, fmt.Sprintf("fold blob key pages of %d", ct.ID), func(ctx context.Context) error {
		_, err := s.Contents.Fold(ctx, ct)
		return err
	})
}
