package policy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/keyhealth"
	"keyroll/internal/rootkey"
	"keyroll/internal/store"
)

// rootOf names a customer key version of a revision as its policy uses it.
func (r revisionRow) rootOf(tenant int64, kv envelope.KeyVersion) keyhealth.Root {
	return keyhealth.Root{Tenant: tenant, Policy: r.Policy, Principal: ProfileOf(r.Kind).Identity, Key: kv}
}

// warn logs a change of health that has been committed.
func (p *Policies) warn(ctx context.Context, change string) {
	if change != "" {
		p.logger.LogAttrs(ctx, slog.LevelWarn, "the health of a customer key changed", slog.String("change", change))
	}
}

// classifyFailure returns the class of the failure of both customer keys of a
// revision, and an error that explains it. It is a refusal if the last definitive
// answer of either key was one, whatever its vault answers now; an outage only if
// both keys have been used successfully before and both vaults are unreachable; and
// otherwise a local problem of keyroll.
func (p *Policies) classifyFailure(ctx context.Context, tenant int64, r revisionRow, failed error) (rootkey.Class, error) {
	if fail.Is(failed, api.VaultDenied) {
		return rootkey.Refusal, failed
	}
	var refused, unused []string
	err := p.db.View(ctx, func(tx *store.Tx) error {
		refused, unused = nil, nil
		for _, root := range customerRoots(ProfileOf(r.Kind), r) {
			h, err := keyhealth.Of(ctx, tx, r.rootOf(tenant, root.kv))
			if err != nil {
				return err
			}
			switch h.State {
			case api.Refused:
				refused = append(refused, fmt.Sprintf("the %s key has refused since %s: %s", root.name, h.Since.UTC().Format(time.RFC3339), h.Reason))
			case "":
				unused = append(unused, fmt.Sprintf("the %s key has not been used successfully since this database began to keep records", root.name))
			}
		}
		return nil
	})
	if err != nil {
		return rootkey.Local, errors.Join(err, failed)
	}
	outage := fail.Is(failed, api.VaultUnavailable)
	if outage {
		refused = append(refused, unused...)
	}
	switch {
	case len(refused) > 0:
		_, detail, _ := fail.Public(failed)
		return rootkey.Refusal, fail.New(api.VaultDenied, "%s; %s", detail, strings.Join(refused, "; ")).
			WithHint("a refusal lasts until one of the keys can be used again: restore the service's permission, or assign another policy").Because(failed)
	case outage:
		return rootkey.Outage, failed
	}
	return rootkey.Local, failed
}

// healthOf returns the recorded health of a customer key version of a policy, nil if kv
// names no key.
func (pol Policy) healthOf(all keyhealth.Healths, kv envelope.KeyVersion) *api.KeyHealth {
	if kv.Key == "" {
		return nil
	}
	return all.Of(keyhealth.Root{Tenant: pol.Tenant, Policy: pol.ID, Principal: ProfileOf(pol.Kind).Identity, Key: kv}).API()
}
