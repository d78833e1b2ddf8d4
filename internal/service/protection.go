package service

import (
	"context"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// protection returns what a container's key is wrapped with at this moment.
func (c *call) protection(ctx context.Context, tx *store.Tx, ct container.Container) (api.Protection, error) {
	policyKey, _, err := c.Containers.PolicyKeyOf(ctx, tx, ct)
	if err != nil {
		return api.Protection{}, err
	}
	rev, err := c.Policies.RevisionOf(ctx, tx, c.tenant, policyKey)
	if fail.Is(err, api.NotFound) { // wraps are erased only in a transaction that finds nothing under them
		err = fail.New(api.Damaged, "container %d points to key page %d under policy key %d, which has no wrap in this tenant", ct.ID, ct.Page, policyKey)
	}
	if err != nil {
		return api.Protection{}, err
	}
	pol, err := c.Policies.ByID(ctx, tx, c.tenant, rev.Policy)
	if err != nil {
		return api.Protection{}, err
	}
	p := api.Protection{Policy: pol.Name, PolicyID: pol.GUID.String(), DataEncryptionPolicyID: rev.GUID.String(),
		Current: pol.Current.ID == policyKey, Purged: doneAt(ct.Purged), IsEncrypted: true}
	return p, nil
}
