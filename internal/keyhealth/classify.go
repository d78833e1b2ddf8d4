package keyhealth

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/rootkey"
	"keyroll/internal/store"
)

// NamedRoot is a root with its name in messages.
type NamedRoot struct {
	Root
	Name string
}

// ClassifyFailure returns the class of the failure of all roots of a policy key, and an
// error that explains it. It is a refusal if the last definitive answer of any of them was
// one, whatever its vault answers now; an outage only if all have been used successfully
// before and their vaults are unreachable; and otherwise a local problem of keyroll.
func ClassifyFailure(ctx context.Context, db *store.DB, roots []NamedRoot, failed error) (rootkey.Class, error) {
	if fail.Is(failed, api.VaultDenied) {
		return rootkey.Refusal, failed
	}
	var refused, unused []string
	err := db.View(ctx, func(tx *store.Tx) error {
		refused, unused = nil, nil
		for _, root := range roots {
			h, err := Of(ctx, tx, root.Root)
			if err != nil {
				return err
			}
			switch h.State {
			case api.Refused:
				refused = append(refused, fmt.Sprintf("the %s key has refused since %s: %s", root.Name, h.Since.UTC().Format(time.RFC3339), h.Reason))
			case "":
				unused = append(unused, fmt.Sprintf("the %s key has not been used successfully since this database began to keep records", root.Name))
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

// Revoked reports whether none of some roots serves and at least one has refused, as far as
// they have last been used.
func Revoked(ctx context.Context, db *store.DB, roots []NamedRoot) (revoked bool, err error) {
	err = db.View(ctx, func(tx *store.Tx) error {
		revoked = false
		for _, root := range roots {
			h, err := Of(ctx, tx, root.Root)
			if err != nil {
				return err
			}
			if h.State == api.Serves {
				revoked = false
				return nil
			}
			revoked = revoked || h.State == api.Refused
		}
		return nil
	})
	return revoked, err
}
