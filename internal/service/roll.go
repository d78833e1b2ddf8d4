package service

import (
	"context"
	"fmt"
	"strings"

	"keyroll/api"
	"keyroll/internal/operation"
	"keyroll/internal/roll"
	"keyroll/internal/store"
)

// ListRolls lists the tenant's rolls, the newest first.
func (s *Service) ListRolls(ctx context.Context, in api.ListInput) (api.List[api.Roll], error) {
	return do(ctx, s, api.ListRolls.Meta, "", func(ctx context.Context, c *call) (api.List[api.Roll], error) {
		return operation.ListPage(ctx, c.Call, in.PageInput, func(tx *store.Tx, after int64, limit int) ([]operation.Row[api.Roll], error) {
			all, err := roll.List(ctx, tx, c.Tenant, after, limit)
			if err != nil {
				return nil, err
			}
			names, err := s.policies.NamesOf(ctx, tx, c.Tenant, nil)
			if err != nil {
				return nil, err
			}
			return operation.RowsOf(s.roller.ProgressOf(ctx, tx, names, all), func(l roll.Listed) operation.Row[api.Roll] {
				if l.Err != nil {
					l.Err = fmt.Errorf("roll %d: %w", l.ID, l.Err)
				}
				return operation.Row[api.Roll]{ID: l.ID, Item: l.Shown, Err: l.Err}
			}), nil
		})
	})
}

// ShowRoll shows a roll and its progress.
func (s *Service) ShowRoll(ctx context.Context, in api.RollInput) (out api.Roll, err error) {
	return do(ctx, s, api.ShowRoll.Meta, in.Roll, func(ctx context.Context, c *call) (api.Roll, error) {
		return out, c.Read(ctx, func(tx *store.Tx) error {
			ro, err := roll.Find(ctx, tx, c.Tenant, in.Roll)
			if err != nil {
				return err
			}
			out, err = s.roller.Progress(ctx, tx, ro)
			return err
		})
	})
}

// PauseRoll stops a running roll where it is.
func (s *Service) PauseRoll(ctx context.Context, in api.RollInput) (api.Roll, error) {
	return do(ctx, s, api.PauseRoll.Meta, in.Roll, func(ctx context.Context, c *call) (api.Roll, error) {
		return c.setRoll(ctx, in.Roll, api.RollPaused)
	})
}

// ResumeRoll continues a roll that is paused or has failed.
func (s *Service) ResumeRoll(ctx context.Context, in api.RollInput) (api.Roll, error) {
	return do(ctx, s, api.ResumeRoll.Meta, in.Roll, func(ctx context.Context, c *call) (api.Roll, error) {
		return c.setRoll(ctx, in.Roll, api.RollRunning)
	})
}

func (c *call) setRoll(ctx context.Context, id string, state api.RollState) (out api.Roll, err error) {
	err = c.Change(ctx, func(tx *store.Tx) (string, error) {
		ro, err := roll.Find(ctx, tx, c.Tenant, id)
		if err != nil {
			return "", err
		}
		if err := roll.SetState(ctx, tx, ro, state); err != nil {
			return "", err
		}
		if ro, err = roll.Find(ctx, tx, c.Tenant, id); err != nil {
			return "", err
		}
		if out, err = c.roller.Progress(ctx, tx, ro); err != nil {
			return "", err
		}
		return "", nil
	})
	c.roller.Wake()
	return out, err
}

// ListKeyUsage returns the ledger.
func (s *Service) ListKeyUsage(ctx context.Context, in api.KeyUsageInput) (api.List[api.KeyUsage], error) {
	return do(ctx, s, api.ListKeyUsage.Meta, "", func(ctx context.Context, c *call) (api.List[api.KeyUsage], error) {
		list := api.List[api.KeyUsage]{Items: []api.KeyUsage{}}
		return list, c.Read(ctx, func(tx *store.Tx) error {
			list.Items = list.Items[:0]
			all, err := s.policies.Usage(ctx, tx, c.Tenant)
			if err != nil {
				return err
			}
			for _, u := range all {
				if matches(in.Vault, u.Vault) && matches(in.Key, u.Key) && matches(in.Version, u.Version) {
					list.Items = append(list.Items, u)
				}
			}
			return nil
		})
	})
}

func matches(filter, value string) bool { return filter == "" || strings.EqualFold(filter, value) }

// Verify decrypts every wrapped key and reads every item.
func (s *Service) Verify(ctx context.Context, in api.VerifyInput, progress func(api.VerifyProgress)) (api.Verified, error) {
	return do(ctx, s, api.Verify.Meta, in.Policy, func(ctx context.Context, c *call) (api.Verified, error) {
		var only int64
		if in.Policy != "" {
			err := s.db.View(ctx, func(tx *store.Tx) error {
				pol, err := s.policies.Find(ctx, tx, c.Tenant, in.Policy)
				only = pol.ID
				return err
			})
			if err != nil {
				return api.Verified{}, err
			}
		}
		report, err := s.verifier.Run(ctx, c.Tenant, only, progress)
		if err != nil {
			return report, err
		}
		return report, c.RecordRead(ctx)
	})
}
