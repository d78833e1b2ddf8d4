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

// QueueMaintenance queues, for every tenant, the upkeep that a previous process may not
// have finished, and the deletion of expired backups. It is called at start and once a
// day. It returns at once, because a queued job goes through the tenants.
func (s *Service) QueueMaintenance() {
	s.upkeep.Add("queue maintenance of all tenants", func(ctx context.Context) error {
		for after := int64(0); ; {
			var tenants []access.Tenant
			err := s.db.View(ctx, func(tx *store.Tx) (err error) {
				tenants, err = s.access.Tenants(ctx, tx, after, 1000)
				return err
			})
			if err != nil || len(tenants) == 0 {
				return err
			}
			for _, t := range tenants {
				s.queueExpiry(t.ID)
				s.queueContentCleanup(t.ID)
				s.foldContainers(t.ID)
				s.keepTotals(t.ID)
				if err := s.retireAll(ctx, t.ID); err != nil {
					return err
				}
				after = t.ID
			}
		}
	})
}

// queueJob queues an upkeep job. The audit log has its uses of root keys under the
// operation, with the job's name as the request.
func (s *Service) queueJob(operation, name string, job upkeep.Job) {
	s.upkeep.Add(name, asJob(operation, name, job))
}

// queuePaced is queueJob for a job that many requests queue: it runs at most once a second.
func (s *Service) queuePaced(operation, name string, job upkeep.Job) {
	s.upkeep.AddPaced(name, asJob(operation, name, job))
}

func asJob(operation, name string, job upkeep.Job) upkeep.Job {
	return func(ctx context.Context) error {
		return job(audit.WithOrigin(ctx, audit.Origin{Operation: operation, Request: name, System: true}))
	}
}

// queueFollow queues the job after an access to content that re-wraps the key of a
// container that no roll has moved, under the current policy key. It does not delay the
// response. It runs soon: a mailbox that is inactive afterwards keeps its older key.
func (s *Service) queueFollow(ct container.Container) {
	s.queuePaced(policy.JobFollow, fmt.Sprintf("follow %d", ct.ID), func(ctx context.Context) error {
		moved, err := s.containers.MoveKeyAfterAccess(ctx, ct)
		if err != nil || !moved {
			return err
		}
		return s.retireAll(ctx, ct.Tenant)
	})
}

// Retire queues the erasure of wraps of a policy that nothing needs any more.
func (s *Service) Retire(tenant, policyID int64) {
	s.queueJob(policy.JobRetire, fmt.Sprintf("retire policy keys of %d", policyID), func(ctx context.Context) error {
		_, err := s.policies.Retire(ctx, tenant, policyID)
		return err
	})
}

// retireAll calls Retire for every policy of a tenant.
func (s *Service) retireAll(ctx context.Context, tenant int64) error {
	return s.db.View(ctx, func(tx *store.Tx) error {
		all, err := s.policies.List(ctx, tx, tenant)
		for _, pol := range all {
			s.Retire(tenant, pol.ID)
		}
		return err
	})
}

// foldContainers queues the merging of the tenant's container key pages that are less
// than half full on average.
func (s *Service) foldContainers(tenant int64) {
	s.queueJob(policy.JobFold, fmt.Sprintf("fold key pages of tenant %d", tenant), func(ctx context.Context) error {
		var sums []keypage.Sum
		err := s.db.View(ctx, func(tx *store.Tx) (err error) {
			sums, err = keypage.Usage(ctx, tx, tenant)
			return err
		})
		if err != nil {
			return err
		}
		var errs []error
		for _, sum := range sums {
			if sum.Pages < 2 || 2*sum.Keys > sum.Pages*int64(s.pageSlots) {
				continue
			}
			_, err := s.containers.Fold(ctx, tenant, keypage.Parent{ID: sum.Parent, Generation: sum.Generation}, sum.Class)
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
}

// foldBlobs queues the merging of one container's small pages of blob keys.
func (s *Service) foldBlobs(ct container.Container) {
	s.queuePaced(policy.JobFold, fmt.Sprintf("fold blob key pages of %d", ct.ID), func(ctx context.Context) error {
		_, err := s.renewer.Fold(ctx, ct)
		return err
	})
}

// keepTotals queues that the totals of all containers of a tenant are kept, also of those
// that earlier versions made.
func (s *Service) keepTotals(tenant int64) {
	s.upkeep.Add(fmt.Sprintf("keep the totals of tenant %d", tenant), func(ctx context.Context) error {
		for after := int64(0); ; {
			var ids []int64
			err := s.db.View(ctx, func(tx *store.Tx) error {
				list, err := s.containers.All(ctx, tx, tenant, after, 1000)
				ids = nil
				for _, c := range list {
					ids = append(ids, c.ID)
				}
				return err
			})
			if err != nil || len(ids) == 0 {
				return err
			}
			if err := s.items.KeepTotals(ctx, tenant, ids); err != nil {
				return err
			}
			after = ids[len(ids)-1]
		}
	})
}
