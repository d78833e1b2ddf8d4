package service

import (
	"context"
	"fmt"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/fail"
	"keyroll/internal/items"
	"keyroll/internal/operation"
	"keyroll/internal/policy"
	"keyroll/internal/store"
)

// shown is a container with what it is shown with besides its own row. The details of
// all containers of a page are read together.
type shown struct {
	container.Listed
	names policy.Names
	total items.Total
}

// detailsOf adds to the containers of a page what they are shown with: two queries.
func (c *call) detailsOf(ctx context.Context, tx *store.Tx, list []container.Listed) ([]shown, error) {
	ids := make([]int64, len(list))
	for i, l := range list {
		ids[i] = l.ID
	}
	totals, err := c.items.Totals(ctx, tx, c.Tenant, ids)
	if err != nil {
		return nil, err
	}
	names, err := c.namesOf(ctx, tx, list)
	page := make([]shown, len(list))
	for i, l := range list {
		page[i] = shown{l, names, totals[l.ID]}
	}
	return page, err
}

// namesOf reads the policies and the revisions that some containers are shown with.
func (c *call) namesOf(ctx context.Context, tx *store.Tx, list []container.Listed) (policy.Names, error) {
	var keys []int64
	known := map[int64]bool{0: true}
	for _, l := range list {
		if !known[l.PolicyKey] {
			known[l.PolicyKey] = true
			keys = append(keys, l.PolicyKey)
		}
	}
	return c.policies.NamesOf(ctx, tx, c.Tenant, keys)
}

// shownOne is detailsOf for one container, as it is in tx.
func (c *call) shownOne(ctx context.Context, tx *store.Tx, ct container.Container) (shown, error) {
	l, err := c.containers.ListOne(ctx, tx, ct)
	if err != nil {
		return shown{}, err
	}
	page, err := c.detailsOf(ctx, tx, []container.Listed{l})
	if err != nil {
		return shown{}, err
	}
	return page[0], nil
}

// protection returns what a container's key is wrapped with.
func (s shown) protection() (api.Protection, error) {
	if s.NoPolicyKey != nil {
		return api.Protection{}, s.NoPolicyKey
	}
	under, err := s.names.Under(s.PolicyKey)
	if fail.Is(err, api.NotFound) { // wraps are erased only in a transaction that finds nothing under them
		err = fail.New(api.Damaged, "container %d points to key page %d under policy key %d, which has no wrap in this tenant", s.ID, s.Page, s.PolicyKey)
	}
	if err != nil {
		return api.Protection{}, err
	}
	return api.Protection{Policy: under.Policy.Name, PolicyID: under.Policy.GUID.String(), DataEncryptionPolicyID: under.Revision.String(),
		Current: under.Current, Purged: operation.TimeOrNil(s.Purged), IsEncrypted: true}, nil
}

// show shows one container, as it is in tx.
func show[T any](ctx context.Context, c *call, tx *store.Tx, ct container.Container, of func(shown) (T, error)) (T, error) {
	s, err := c.shownOne(ctx, tx, ct)
	if err != nil {
		var none T
		return none, err
	}
	return of(s)
}

// makeContainer commits a new container and shows it.
func makeContainer[T any](ctx context.Context, c *call, made *container.PreparedCreate, of func(shown) (T, error)) (out T, err error) {
	err = c.Commit(ctx, made, func(tx *store.Tx) (string, error) {
		ct, err := made.Commit(ctx, tx)
		if err == nil {
			err = c.items.KeepTotal(ctx, tx, ct)
		}
		if err != nil {
			return "", err
		}
		out, err = show(ctx, c, tx, ct, of)
		return "", err
	})
	if err == nil {
		c.foldContainers(c.Tenant)
	}
	return out, err
}

// listContainers lists a page of the containers of one kind.
func listContainers[T any](ctx context.Context, c *call, kind container.Kind, in api.PageInput, of func(shown) (T, error)) (api.List[T], error) {
	if _, err := c.containers.Directory(ctx, c.Tenant); err != nil {
		return api.List[T]{}, err
	}
	return operation.ListPage(ctx, c.Call, in, func(tx *store.Tx, after int64, limit int) ([]operation.Row[T], error) {
		list, err := c.containers.List(ctx, tx, c.Tenant, container.Page{Kind: kind, After: after, Limit: limit})
		if err != nil {
			return nil, err
		}
		page, err := c.detailsOf(ctx, tx, list)
		if err != nil {
			return nil, err
		}
		return operation.RowsOf(page, func(s shown) operation.Row[T] {
			if s.Damaged != nil {
				return operation.Row[T]{ID: s.ID, Err: s.Damaged}
			}
			item, err := of(s)
			if err != nil {
				err = fmt.Errorf("%s %q: %w", kind, s.Name, err)
			}
			return operation.Row[T]{ID: s.ID, Item: item, Err: err}
		}), nil
	})
}
