package node

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/fail"
	"keyroll/internal/files"
	"keyroll/internal/rootkey"
	"keyroll/internal/seal"
	"keyroll/internal/store"
)

// InfoFile is the file in the data folder that says how to reach the server.
const InfoFile = "server.json"

// Info is the content of InfoFile; its paths are absolute.
type Info struct {
	URL            string `json:"url"`
	CAFile         string `json:"caFile"`
	TenantID       string `json:"tenantId"`
	VaultDomain    string `json:"vaultDomain"`
	AdminTokenFile string `json:"adminTokenFile"`
}

// DefaultVaultDomain is the default domain of embedded vaults, fixed at the first start.
const DefaultVaultDomain = "vault.localhost"

// defaultTenant is the name of the tenant that the first start creates.
const defaultTenant = "default"

// identities are the service principals that use customer keys.
var identities = map[rootkey.Identity]uuid.UUID{
	rootkey.Exchange:             access.Exchange,
	rootkey.SharePoint:           access.SharePoint,
	rootkey.DataAtRestEncryption: access.DataAtRestEncryption,
}

// fileURL returns the URL of a file in the data folder, with its characters escaped.
func fileURL(data, name string) string {
	return (&url.URL{Scheme: "file", Path: filepath.Join(data, name)}).String()
}

func newInfo(data, domain string, addr *net.TCPAddr) Info {
	host := addr.IP.String()
	if addr.IP.IsUnspecified() {
		host = "127.0.0.1"
	}
	return Info{
		URL:    "https://" + net.JoinHostPort(host, portOf(addr)),
		CAFile: filepath.Join(data, "ca.pem"), AdminTokenFile: filepath.Join(data, "admin.token"), VaultDomain: domain,
	}
}

func portOf(addr *net.TCPAddr) string {
	_, port, _ := net.SplitHostPort(addr.String())
	return port
}

func (i Info) write(on files.FS, data string) error {
	raw, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return err
	}
	return files.Replace(on, filepath.Join(data, InfoFile), append(raw, '\n'))
}

// folderState is the state of a data folder before a start.
type folderState struct {
	missing, empty bool
	shared         bool // its group may write to it
}

// makeFolder creates the data folder if it is missing.
func makeFolder(on files.FS, data string) (was folderState, err error) {
	before, err := on.ReadDir(data)
	was.missing, was.empty = errors.Is(err, fs.ErrNotExist), len(before) == 0
	if err != nil && !was.missing {
		return was, fail.New(api.InvalidArgument, "the data folder cannot be read: %w", err)
	}
	if err := files.MkdirAll(on, data); err != nil {
		return was, fail.New(api.InvalidArgument, "the data folder cannot be created: %w", err)
	}
	info, err := on.Stat(data)
	if err != nil {
		return was, fail.New(api.InvalidArgument, "the data folder cannot be used: %w", err)
	}
	if info.Mode().Perm()&0o002 != 0 {
		return was, fail.New(api.InvalidArgument, "data folder %s is writable by all users (%s)", data, info.Mode()).
			WithHint("chmod 700 %s, and check that no other user has put files into it", data)
	}
	was.shared = info.Mode().Perm()&0o020 != 0
	return was, nil
}

// restore deletes what a failed first start has created.
func (was folderState) restore(data string) error {
	if was.missing {
		return os.RemoveAll(data)
	}
	list, err := os.ReadDir(data)
	for _, entry := range list {
		err = errors.Join(err, os.RemoveAll(filepath.Join(data, entry.Name())))
	}
	return err
}

// lockFolder locks a data folder for this process.
func lockFolder(on files.FS, data string) (unlock func() error, err error) {
	lock, err := on.Lock(filepath.Join(data, "lock"))
	if errors.Is(err, files.ErrLocked) {
		return nil, fail.New(api.FolderInUse, "data folder %s is in use by another process", data).
			WithHint("stop that server, or name another folder with --data").Because(err)
	}
	if err != nil {
		return nil, fail.New(api.InvalidArgument, "the data folder cannot be used: %w", err)
	}
	return lock.Close, nil
}

// bindSeal checks that the database belongs to this seal and to this vault domain, and
// returns the domain.
func bindSeal(ctx context.Context, db *store.DB, sealer *seal.Seal, domain string) (string, error) {
	err := db.InTx(ctx, func(tx *store.Tx) error {
		if err := sealer.Check(ctx, tx); err != nil {
			return err
		}
		first := domain
		if first == "" {
			first = DefaultVaultDomain
		}
		stored, err := firstSetting(ctx, tx, "vault-domain", first)
		if err != nil {
			return err
		}
		if domain != "" && domain != stored {
			return fail.New(api.Conflict, "the vault domain of this database is %s, not %s", stored, domain).
				WithHint("omit --vault-domain, or start with a new data folder")
		}
		domain = stored
		return nil
	})
	return domain, err
}

// firstSetting returns the setting of that name, after storing value if there is none.
// It reads before it writes, because a damaged index would allow a second row.
func firstSetting(ctx context.Context, tx *store.Tx, name, value string) (stored string, err error) {
	const find = `SELECT value FROM setting WHERE name = ?1`
	err = tx.QueryRow(ctx, find, name).Scan(&stored)
	if !errors.Is(err, sql.ErrNoRows) {
		return stored, err
	}
	if _, err := tx.Exec(ctx, `INSERT INTO setting (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO NOTHING`, name, value); err != nil {
		return "", err
	}
	// Another node may have been first.
	err = tx.QueryRow(ctx, find, name).Scan(&stored)
	return stored, err
}

func checkDomain(domain string) error {
	if !strings.HasPrefix(domain, "vault.") || strings.ToLower(domain) != domain || strings.ContainsAny(domain, ":/ ") || strings.HasSuffix(domain, ".") {
		return fail.New(api.InvalidArgument, "vault domain %q must be a lower-case domain that begins with vault. (with the dot)", domain)
	}
	return nil
}
