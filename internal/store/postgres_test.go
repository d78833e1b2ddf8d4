package store_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/proxytest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// with adds a parameter to an address.
func with(address, parameter string) string { return address + "&" + parameter }

// A function before PostgreSQL's own in the search path returns the settings of another
// server.
func TestUnsuitableServersAreRefusedUnchanged(t *testing.T) {
	for _, c := range []struct{ setting, value, says string }{
		{"server_version_num", "130022", "PostgreSQL 15"}, // the version for people is asked of the real one
		{"server_encoding", "SQL_ASCII", "its text encoding is SQL_ASCII"},
		{"synchronous_commit", "off", "synchronous_commit is off"},
	} {
		t.Run(c.setting, func(t *testing.T) {
			address := storetest.EmptyPostgresURL(t)
			execute(t, address, "CREATE SCHEMA before", fmt.Sprintf(`CREATE FUNCTION before.current_setting(name text) RETURNS text LANGUAGE sql AS
				$$ SELECT CASE WHEN name = '%s' THEN '%s' ELSE pg_catalog.current_setting(name) END $$`, c.setting, c.value))
			db, err := store.Open(t.Context(), with(address, "search_path=before,pg_catalog,public"))
			if err == nil {
				_ = db.Close()
			}
			_, detail, hint := fail.Public(err)
			if !fail.Is(err, api.Conflict) || !strings.Contains(detail, c.says) || hint == "" {
				t.Errorf("%v, hint %q", err, hint)
			}
			storetest.Open(t, address) // it is as empty as it was
		})
	}
}

// The reason why a server refuses a connection is reported with a hint.
func TestRefusalsOfAServerSayWhatToDo(t *testing.T) {
	address := storetest.EmptyPostgresURL(t)
	role := "poor" + strings.TrimPrefix(strings.SplitN(address, "?", 2)[0], "postgres:///")
	execute(t, address, "CREATE ROLE "+role+" LOGIN", "CREATE SCHEMA own AUTHORIZATION "+role)
	t.Cleanup(func() {
		if err := store.Execute(context.Background(), address, "DROP OWNED BY "+role, "DROP ROLE "+role); err != nil {
			t.Error(err)
		}
	})
	for _, c := range []struct{ address, says, hint string }{
		{strings.Replace(address, "postgres:///", "postgres:///no", 1), "does not exist", "createdb"},
		{strings.Replace(address, "user=keyroll", "user="+role, 1), "permission denied for schema public", "CREATE on its schema"},
		{strings.Replace(address, "user=keyroll", "user=nobody_"+role, 1), "does not exist", "pg_hba.conf"},
		{with(address, "search_path=nowhere"), "no schema has been selected", "GRANT USAGE, CREATE ON SCHEMA"},
		{with(address, "no_such_parameter=1"), "unrecognized configuration parameter", "log"},
	} {
		db, err := store.Open(t.Context(), c.address)
		if err == nil {
			_ = db.Close()
		}
		_, detail, hint := fail.Public(err)
		if !fail.Is(err, api.Unavailable) || !strings.Contains(detail, c.says) || !strings.Contains(hint, c.hint) {
			t.Errorf("%v [%s], hint %q; want %q, %q", err, fail.CodeOf(err), hint, c.says, c.hint)
		}
	}
	storetest.Open(t, strings.Replace(address, "user=keyroll", "user="+role, 1)+"&search_path=own") // a schema of its own is all that it needs
}

func TestAddressSetsTheNumberOfConnections(t *testing.T) {
	address := storetest.PostgresURL(t)
	for parameter, want := range map[string]int{"": 16, "pool_max_conns=4": 4, "pool_max_conns=40": 40} {
		if got := storetest.Open(t, with(address, parameter)).Writer().Stats().MaxOpenConnections; got != want {
			t.Errorf("%q: %d connections, want %d", parameter, got, want)
		}
	}
	for _, wrong := range []string{"3", "1001", "many"} {
		if _, err := store.Open(t.Context(), with(address, "pool_max_conns="+wrong)); !fail.Is(err, api.InvalidArgument) {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}

// A password need not be in the address: it can come from PGPASSWORD or from the file that
// PGPASSFILE names. No address that is shown has one.
func TestPasswordNeedNotBeInTheAddress(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pgpass")
	if err := os.WriteFile(file, []byte("db.contoso.com:5432:keyroll:keyroll:from file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ variable, value, address, want string }{
		{"PGPASSWORD", "from variable", "postgres://keyroll@db.contoso.com/keyroll", "from variable"},
		{"PGPASSFILE", file, "postgres://keyroll@db.contoso.com/keyroll", "from file"},
		{"PGSSLMODE", "verify-full", "postgres://keyroll:from%20address@db.contoso.com/keyroll", "from address"},
	} {
		t.Run(c.variable, func(t *testing.T) {
			t.Setenv(c.variable, c.value)
			password, shown, err := store.PostgresPassword(c.address)
			if err != nil || password != c.want || shown != "postgres://db.contoso.com:5432/keyroll" {
				t.Errorf("%q, %q, %v", password, shown, err)
			}
		})
	}
	_, err := store.Open(t.Context(), "postgres://keyroll:s3cret@db.contoso.com/keyroll?sslmode=verify-full&sslrootcert=/nowhere/ca.pem")
	if !fail.Is(err, api.InvalidArgument) || !strings.Contains(err.Error(), "/nowhere/ca.pem") || strings.Contains(err.Error(), "s3cret") {
		t.Error(err)
	}
}

// When the server is up again, no request fails because of the dead connections.
func TestDeadConnectionsAreReplacedWithoutAnError(t *testing.T) {
	address := storetest.PostgresURL(t)
	proxy := proxytest.New(t, "unix", storetest.Socket(address))
	db := storetest.Open(t, storetest.Through(address, proxy.Addr()))
	newBox(t, db, 1)
	const connections = 8
	var together, all sync.WaitGroup
	together.Add(connections)
	for range connections {
		all.Go(func() {
			err := db.ViewOnce(t.Context(), func(tx *store.Tx) error {
				together.Done()
				together.Wait()
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	proxy.Cut()
	if err := db.Ping(t.Context()); !fail.Is(err, api.Unavailable) {
		t.Errorf("while it is away: %v", err)
	}
	proxy.Heal()
	if got := box(t, db, 1); got != 0 {
		t.Errorf("box holds %d", got)
	}
	newBox(t, db, 2)
}
