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
	"keyroll/internal/availability"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// DefaultAvailabilityRollEvery is the default age at which an availability key is
// given a new version automatically.
const DefaultAvailabilityRollEvery = 365 * 24 * time.Hour

// openAvailability opens the store of availability keys of the database, which is the
// default without --availability. Its files may have been moved, and its vault may
// have another port; any other store is refused.
func (s *stores) openAvailability(ctx context.Context, f *foundation, port string) error {
	o := f.options
	s.availabilityAt = o.Availability
	err := f.db.View(ctx, func(tx *store.Tx) error {
		var stored string
		err := tx.QueryRow(ctx, `SELECT value FROM setting WHERE name = 'availability'`).Scan(&stored)
		switch {
		case errors.Is(err, sql.ErrNoRows): // the first start
			return nil
		case err != nil:
			return err
		case s.availabilityAt == "":
			s.availabilityAt = stored
		case vaultOf(s.availabilityAt) != vaultOf(stored):
			return fail.New(api.Conflict, "the availability keys of this database are in %s, not in %s", whereAvailability(stored), whereAvailability(s.availabilityAt)).
				WithHint("omit --availability, or start with a new data folder")
		}
		return nil
	})
	if err != nil {
		return err
	}
	location := s.availabilityAt
	if location == "" {
		location = fileURL(o.Data, "availability")
	}
	if u, err := url.Parse(location); err == nil && u.Scheme == "https" {
		_, domain, _ := strings.Cut(u.Hostname(), ".")
		if strings.EqualFold(domain, o.VaultDomain) && portOr(u, "443") == port {
			return fail.New(api.InvalidArgument, "open availability keys: %s is a vault of this keyroll, whose keys are in the database that must not contain availability keys", location).
				WithHint("name a vault of another keyroll, or of Azure")
		}
	}
	if s.availability, err = availability.Open(ctx, location); err != nil {
		return err
	}
	f.onClose(func() error { s.availability.Close(); return nil })
	return nil
}

// bindAvailability records in the database which store of availability keys it is used
// with, once the store has keys.
func (s *stores) bindAvailability(ctx context.Context, db *store.DB) error {
	return db.InTx(ctx, func(tx *store.Tx) error {
		stored, err := firstSetting(ctx, tx, "availability", s.availabilityAt)
		if err == nil && stored != s.availabilityAt {
			_, err = tx.Exec(ctx, `UPDATE setting SET value = ?1 WHERE name = 'availability'`, s.availabilityAt)
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
	switch u, err := url.Parse(n.stores.availabilityAt); {
	case err == nil && u.Scheme == "https":
		return "Anyone with a copy of " + all + " can decrypt what keys in its embedded vaults protect, because it contains the seal, but nothing else: the availability keys are in " + net.JoinHostPort(u.Hostname(), portOr(u, "443")) + "."
	case n.stores.availabilityAt != "":
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
