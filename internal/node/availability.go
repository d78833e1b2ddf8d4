package node

import (
	"context"
	"database/sql"
	"errors"
	"net"
	"net/url"
	"strings"
	"time"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/availability"
	"keyroll/internal/fail"
	"keyroll/internal/policy"
	"keyroll/internal/store"
)

// DefaultAvailabilityRollEvery is the default age at which an availability key is
// given a new version automatically.
const DefaultAvailabilityRollEvery = 365 * 24 * time.Hour

// openAvailability opens the store of availability keys of the database, which is the
// default without --availability. Its files may have been moved, and its vault may
// have another port; any other store is refused.
func (n *Node) openAvailability(ctx context.Context, o Options, port string) (*availability.Store, error) {
	n.Availability = o.Availability
	err := n.DB.View(ctx, func(tx *store.Tx) error {
		var stored string
		err := tx.QueryRow(ctx, `SELECT value FROM setting WHERE name = 'availability'`).Scan(&stored)
		switch {
		case errors.Is(err, sql.ErrNoRows): // the first start
			return nil
		case err != nil:
			return err
		case n.Availability == "":
			n.Availability = stored
		case vaultOf(n.Availability) != vaultOf(stored):
			return fail.New(api.Conflict, "the availability keys of this database are in %s, not in %s", whereAvailability(stored), whereAvailability(n.Availability)).
				WithHint("omit --availability, or start with a new data folder")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	location := n.Availability
	if location == "" {
		location = fileURL(o.Data, "availability")
	}
	if u, err := url.Parse(location); err == nil && u.Scheme == "https" {
		_, domain, _ := strings.Cut(u.Hostname(), ".")
		if strings.EqualFold(domain, o.VaultDomain) && portOr(u, "443") == port {
			return nil, fail.New(api.InvalidArgument, "open availability keys: %s is a vault of this keyroll, whose keys are in the database that must not contain availability keys", location).
				WithHint("name a vault of another keyroll, or of Azure")
		}
	}
	keys, err := availability.Open(ctx, location)
	if err != nil {
		return nil, err
	}
	n.closers = append(n.closers, func() error { keys.Close(); return nil })
	return keys, nil
}

// bindAvailability records in the database which store of availability keys it is used
// with, once the store has keys.
func (n *Node) bindAvailability(ctx context.Context) error {
	return n.DB.InTx(ctx, func(tx *store.Tx) error {
		stored, err := firstSetting(ctx, tx, "availability", n.Availability)
		if err == nil && stored != n.Availability {
			_, err = tx.Exec(ctx, `UPDATE setting SET value = ?1 WHERE name = 'availability'`, n.Availability)
		}
		return err
	})
}

// vaultOf returns the host of a store in a vault; empty for one in files.
func vaultOf(location string) string {
	if u, err := url.Parse(location); err == nil && u.Scheme == "https" {
		return strings.ToLower(u.Hostname())
	}
	return ""
}

// operatorVault returns the URL of a store in a vault; empty for one in files.
func operatorVault(location string) string {
	if vaultOf(location) == "" {
		return ""
	}
	return location
}

func whereAvailability(location string) string {
	if vault := vaultOf(location); vault != "" {
		return "vault " + vault
	}
	return "files"
}

// CopyWarning says what can be decrypted with a copy of the data folder.
func (n *Node) CopyWarning() string {
	all := "this folder"
	if n.DB.Dialect().Name == "postgres" {
		all += " and of database " + n.DB.Shown()
	}
	switch u, err := url.Parse(n.Availability); {
	case err == nil && u.Scheme == "https":
		return "Anyone with a copy of " + all + " can decrypt what keys in its embedded vaults protect, because it contains the seal, but nothing else: the availability keys are in " + net.JoinHostPort(u.Hostname(), portOr(u, "443")) + "."
	case n.Availability != "":
		return "Anyone with a copy of " + all + ", and of the folder of the availability keys, " + u.Path + ", can decrypt everything in it."
	default:
		return "Anyone with a copy of " + all + " can decrypt everything in it: it contains the seal and the availability keys."
	}
}

func portOr(u *url.URL, port string) string {
	if u.Port() != "" {
		return u.Port()
	}
	return port
}

// newAvailabilityRoller returns the worker that rolls availability keys at the given age.
func (n *Node) newAvailabilityRoller(every time.Duration, directory *access.Directory) *policy.AvailabilityRoller {
	return &policy.AvailabilityRoller{Policies: n.Policies, Every: every, Leases: n.leases, Tenants: func(ctx context.Context) (ids []int64, err error) {
		for after := int64(0); ; after = ids[len(ids)-1] {
			var part []access.Tenant
			err := n.DB.View(ctx, func(tx *store.Tx) (err error) {
				part, err = directory.Tenants(ctx, tx, after, 1000)
				return err
			})
			if err != nil || len(part) == 0 {
				return ids, err
			}
			for _, tenant := range part {
				ids = append(ids, tenant.ID)
			}
		}
	}}
}
