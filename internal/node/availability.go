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

// DefaultAvailabilityRollEvery is the age at which an availability key gets a
// new version by itself.
const DefaultAvailabilityRollEvery = 365 * 24 * time.Hour

// openAvailability opens the store of availability keys that the database is
// used with, which a start without --availability takes up. Its files may be
// moved, and its vault may answer at another port; any other is refused.
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
			return fail.New(api.Conflict, "the availability keys of this database stand in %s, not in %s", whereAvailability(stored), whereAvailability(n.Availability)).
				WithHint("leave --availability out, or start with a new data folder")
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
			return nil, fail.New(api.InvalidArgument, "open availability keys: %s is a vault of this very keyroll: its keys stand in the database, which must never have these", location).
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

// tieAvailability writes down which store of availability keys the database is
// used with, once there are keys in it.
func (n *Node) tieAvailability(ctx context.Context) error {
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

// CopyWarning says what whoever copies the data folder has.
func (n *Node) CopyWarning() string {
	all := "this folder"
	if n.DB.Dialect().Name == "postgres" {
		all += ", and database " + n.DB.Shown()
	}
	switch u, err := url.Parse(n.Availability); {
	case err == nil && u.Scheme == "https":
		return "Who copies all of " + all + ", has what keys in its embedded vaults protect, for the seal stands there too; nothing else: the availability keys stand in " + net.JoinHostPort(u.Hostname(), portOr(u, "443")) + "."
	case n.Availability != "":
		return "Who copies all of " + all + ", and the folder of the availability keys, " + u.Path + ", has all that is in it."
	default:
		return "Who copies all of " + all + ", has all that is in it: the seal and the availability keys stand there too."
	}
}

func portOr(u *url.URL, port string) string {
	if u.Port() != "" {
		return u.Port()
	}
	return port
}

// availabilityRoller rolls availability keys as they come of age.
func (n *Node) availabilityRoller(every time.Duration, directory *access.Directory) *policy.AvailabilityRoller {
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
