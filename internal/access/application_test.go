package access_test

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/fail"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// application creates an application of the tenant.
func (w *directory) application(t testing.TB, name string) (a access.Application) {
	t.Helper()
	w.change(t, func(ctx context.Context, tx *store.Tx) (err error) {
		a, err = w.dir.CreateApplication(ctx, tx, w.tenant.ID, name, access.Exchange)
		return err
	})
	return a
}

// credential adds a secret that is valid for some time.
func (w *directory) credential(t testing.TB, application uuid.UUID, valid time.Duration) (c access.Credential, secret string) {
	t.Helper()
	w.change(t, func(ctx context.Context, tx *store.Tx) (err error) {
		c, secret, err = w.dir.AddCredential(ctx, tx, access.Application{Principal: access.Principal{Tenant: w.tenant.ID, ID: application}}, "laptop", w.now.Add(valid))
		return err
	})
	return c, secret
}

func (w *directory) change(t testing.TB, f func(ctx context.Context, tx *store.Tx) error) {
	t.Helper()
	if err := w.try(f); err != nil {
		t.Fatal(err)
	}
}

func (w *directory) try(f func(ctx context.Context, tx *store.Tx) error) error {
	ctx := context.Background()
	return w.db.InTx(ctx, func(tx *store.Tx) error { return f(ctx, tx) })
}

// login returns the access token, or the number of the refusal.
func (w *directory) login(t testing.TB, id uuid.UUID, secret string) (token, refusal string) {
	t.Helper()
	status, body := w.post(w.tenant.GUID.String(), url.Values{"grant_type": {"client_credentials"}, "client_id": {id.String()}, "client_secret": {secret}, "scope": {vaultScope}})
	token, _ = body["access_token"].(string)
	description, _ := body["error_description"].(string)
	refusal, _, _ = strings.Cut(description, ":")
	if (status == 200) != (token != "") || (status == 401) != (refusal != "") {
		t.Fatalf("login: %d %v", status, body)
	}
	return token, refusal
}

func TestApplicationLogsInWithAnyOfItsSecrets(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newDirectory(t, db)
		a := w.application(t, "Payroll")
		first, one := w.credential(t, a.ID, time.Hour)
		_, two := w.credential(t, a.ID, 3*time.Hour)
		for _, secret := range []string{one, two} {
			token, refusal := w.login(t, a.ID, secret)
			if refusal != "" {
				t.Fatalf("login: %s", refusal)
			}
			p, err := w.dir.AuthenticateFor(t.Context(), token, vaultAudience)
			if err != nil || p.ID != a.ID || fmt.Sprint(p.Roles) != "[application]" {
				t.Errorf("authenticate: %+v, %v", p, err)
			}
			if _, err := w.dir.AuthenticateFor(t.Context(), secret, vaultAudience); !fail.Is(err, api.Unauthenticated) {
				t.Errorf("the secret as a token: %v", err)
			}
		}
		other := w.application(t, "other")
		for _, wrong := range []string{"x", one + "x", w.secret(t, access.Exchange)} {
			if _, refusal := w.login(t, a.ID, wrong); refusal != "AADSTS7000215" {
				t.Errorf("wrong secret: %q", refusal)
			}
		}
		if _, refusal := w.login(t, other.ID, one); refusal != "AADSTS7000215" {
			t.Errorf("another application's secret: %q", refusal)
		}

		w.now = w.now.Add(time.Hour)
		if _, refusal := w.login(t, a.ID, one); refusal != "AADSTS7000222" {
			t.Errorf("expired: %q", refusal)
		}
		if _, refusal := w.login(t, a.ID, "x"); refusal != "AADSTS7000215" {
			t.Errorf("wrong, beside an expired one: %q", refusal)
		}
		token, _ := w.login(t, a.ID, two)
		w.change(t, func(ctx context.Context, tx *store.Tx) error {
			return w.dir.RemoveCredential(ctx, tx, w.tenant.ID, a.ID, first.ID)
		})
		if _, refusal := w.login(t, a.ID, one); refusal != "AADSTS7000215" {
			t.Errorf("removed: %q", refusal)
		}

		w.change(t, func(ctx context.Context, tx *store.Tx) error { return w.dir.RemoveApplication(ctx, tx, a) })
		if _, refusal := w.login(t, a.ID, two); refusal != "AADSTS7000215" {
			t.Errorf("secret of a removed application: %q", refusal)
		}
		if _, err := w.dir.AuthenticateFor(t.Context(), token, vaultAudience); !fail.Is(err, api.Unauthenticated) {
			t.Errorf("token of a removed application: %v", err)
		}
		if left := w.credentials(t); left != "" {
			t.Errorf("secrets remain: %s", left)
		}
	})
}

func TestApplicationsAreListedWithTheirSecrets(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newDirectory(t, db)
		a := w.application(t, "Payroll")
		w.now = w.now.Add(time.Second)
		b := w.application(t, "Archive")
		c, secret := w.credential(t, a.ID, time.Hour)
		neighbour := w.create(t, "fabrikam")
		w.change(t, func(ctx context.Context, tx *store.Tx) error {
			list, err := w.dir.Applications(ctx, tx, w.tenant.ID)
			if err != nil || len(list) != 2 || list[0].ID != a.ID || list[1].ID != b.ID || len(list[0].Credentials) != 1 || len(list[1].Credentials) != 0 {
				t.Errorf("list: %+v, %v", list, err)
			}
			if got := list[0].Credentials[0]; got.ID != c.ID || got.Name != "laptop" || !got.Expires.Equal(w.now.Add(time.Hour)) || strings.Contains(fmt.Sprint(got), secret) {
				t.Errorf("credential: %+v", got)
			}
			for _, identity := range []string{"payroll", a.ID.String()} {
				if found, err := w.dir.FindApplication(ctx, tx, w.tenant.ID, identity); err != nil || found.ID != a.ID || len(found.Credentials) != 1 {
					t.Errorf("%s: %+v, %v", identity, found, err)
				}
				if _, err := w.dir.FindApplication(ctx, tx, neighbour.ID, identity); !fail.Is(err, api.NotFound) {
					t.Errorf("%s in another tenant: %v", identity, err)
				}
			}
			if list, err := w.dir.Applications(ctx, tx, neighbour.ID); err != nil || len(list) != 0 {
				t.Errorf("another tenant's: %+v, %v", list, err)
			}
			return nil
		})
		if stored := w.credentials(t); !strings.Contains(stored, "laptop") || strings.Contains(stored, secret) {
			t.Errorf("the database has %s", stored)
		}
	})
}

func TestChangesOfApplicationsAreRefused(t *testing.T) {
	w := newDirectory(t, storetest.One(t))
	a := w.application(t, "Payroll")
	c, _ := w.credential(t, a.ID, time.Hour)
	other := w.application(t, "other")
	for len(w.found(t, other.ID).Credentials) < 20 {
		w.credential(t, other.ID, time.Hour)
	}
	neighbour := w.create(t, "fabrikam").ID
	add := func(tenant int64, id uuid.UUID, name string, valid time.Duration) func(context.Context, *store.Tx) error {
		return func(ctx context.Context, tx *store.Tx) error {
			_, _, err := w.dir.AddCredential(ctx, tx, access.Application{Principal: access.Principal{Tenant: tenant, ID: id}}, name, w.now.Add(valid))
			return err
		}
	}
	remove := func(tenant int64, application, credential uuid.UUID) func(context.Context, *store.Tx) error {
		return func(ctx context.Context, tx *store.Tx) error {
			return w.dir.RemoveCredential(ctx, tx, tenant, application, credential)
		}
	}
	create := func(name string) func(context.Context, *store.Tx) error {
		return func(ctx context.Context, tx *store.Tx) error {
			_, err := w.dir.CreateApplication(ctx, tx, w.tenant.ID, name, uuid.Nil)
			return err
		}
	}
	for _, test := range []struct {
		name   string
		change func(context.Context, *store.Tx) error
		code   api.Code
	}{
		{"a name that is taken", create("PAYROLL"), api.AlreadyExists},
		{"no name", create(""), api.InvalidArgument},
		{"a secret that has expired", add(w.tenant.ID, a.ID, "", 0), api.InvalidArgument},
		{"a secret's name", add(w.tenant.ID, a.ID, "a\x00", time.Hour), api.InvalidArgument},
		{"a secret of keyroll's own principal", add(w.tenant.ID, access.Exchange, "", time.Hour), api.NotFound},
		{"a secret in another tenant", add(neighbour, a.ID, "", time.Hour), api.NotFound},
		{"one secret too many", add(w.tenant.ID, other.ID, "", time.Hour), api.Conflict},
		{"removal of no secret", remove(w.tenant.ID, a.ID, uuid.New()), api.NotFound},
		{"removal as another application's", remove(w.tenant.ID, other.ID, c.ID), api.NotFound},
		{"removal in another tenant", remove(neighbour, a.ID, c.ID), api.NotFound},
	} {
		if err := w.try(test.change); !fail.Is(err, test.code) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	w.change(t, func(ctx context.Context, tx *store.Tx) error { return w.dir.RemoveApplication(ctx, tx, a) })
	for _, change := range []func(context.Context, *store.Tx) error{
		add(w.tenant.ID, a.ID, "", time.Hour),
		func(ctx context.Context, tx *store.Tx) error { return w.dir.RemoveApplication(ctx, tx, a) },
	} {
		if err := w.try(change); !fail.Is(err, api.NotFound) {
			t.Errorf("after its removal: %v", err)
		}
	}
}

func (w *directory) found(t testing.TB, id uuid.UUID) (a access.Application) {
	t.Helper()
	w.change(t, func(ctx context.Context, tx *store.Tx) (err error) {
		a, err = w.dir.FindApplication(ctx, tx, w.tenant.ID, id.String())
		return err
	})
	return a
}

// credentials returns the stored secrets as text.
func (w *directory) credentials(t testing.TB) string {
	t.Helper()
	var all []string
	err := w.db.ViewOnce(context.Background(), func(tx *store.Tx) (err error) {
		all, err = store.Collect(context.Background(), tx, func(row store.Scanner) (string, error) {
			var principal, name string
			var hash []byte
			err := row.Scan(&principal, &name, &hash)
			return principal + " " + name + " " + string(hash), err
		}, `SELECT principal, name, hash FROM credential`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, "\n")
}
