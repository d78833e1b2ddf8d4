package access_test

import (
	"context"
	"strings"
	"testing"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/fail"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

func TestUnfinishedTenantIsNotListedAndItsCreationCanContinue(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := context.Background()
		w := newDirectory(t, db)
		begin := func() (tenant access.Tenant, err error) {
			err = db.InTx(ctx, func(tx *store.Tx) (err error) {
				tenant, err = w.dir.CreateTenant(ctx, tx, "begun")
				return err
			})
			return tenant, err
		}
		begun, err := begin()
		if err != nil {
			t.Fatal(err)
		}
		shown := func() (listed, found bool) {
			t.Helper()
			err := db.ViewOnce(ctx, func(tx *store.Tx) error {
				all, err := w.dir.Tenants(ctx, tx, 0, 100)
				for _, one := range all {
					listed = listed || one == begun
				}
				if err != nil {
					return err
				}
				for _, identity := range []string{"begun", strings.ToUpper(begun.GUID.String())} {
					one, err := w.dir.FindTenant(ctx, tx, identity)
					if err != nil && !fail.Is(err, api.NotFound) {
						return err
					}
					found = found || one == begun
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			return listed, found
		}
		if listed, found := shown(); listed || found {
			t.Errorf("it is listed: %v, found: %v", listed, found)
		}
		if again, err := begin(); err != nil || again != begun {
			t.Errorf("asked again: %+v, %v", again, err)
		}
		made := func() error {
			return db.InTx(ctx, func(tx *store.Tx) error { return w.dir.FinishTenant(ctx, tx, begun.ID) })
		}
		if err := made(); err != nil {
			t.Fatal(err)
		}
		if listed, found := shown(); !listed || !found {
			t.Errorf("it is listed: %v, found: %v", listed, found)
		}
		if err := made(); !fail.Is(err, api.AlreadyExists) {
			t.Errorf("made twice: %v", err)
		}
		if _, err := begin(); !fail.Is(err, api.AlreadyExists) {
			t.Errorf("asked once it is made: %v", err)
		}
	})
}

func TestRolesOfATenantsAdmin(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := context.Background()
		w := newDirectory(t, db)
		var first access.Tenant
		err := db.InTx(ctx, func(tx *store.Tx) (err error) {
			first, err = w.dir.CreateTenant(ctx, tx, "first", api.Operator)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		for tenant, operator := range map[int64]bool{first.ID: true, w.tenant.ID: false} {
			token, err := w.dir.AdminToken(ctx, tenant)
			if err != nil {
				t.Fatal(err)
			}
			p, err := w.dir.Authenticate(ctx, token)
			if err != nil || p.Check(api.Global) != nil || (p.Check(api.Operator) == nil) != operator || p.Check(api.Approver) == nil {
				t.Errorf("%+v, %v", p, err)
			}
		}
	})
}

func TestPrincipalIsAddedWithItsOwnToken(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := context.Background()
		w := newDirectory(t, db)
		var added access.Principal
		var token string
		err := db.InTx(ctx, func(tx *store.Tx) (err error) {
			added, token, err = w.dir.AddToken(ctx, tx, access.Principal{Tenant: w.tenant.ID, Name: "carol", Roles: []api.Role{api.Approver}, Kind: access.ByToken, Created: w.now}, uuid.Nil)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		p, err := w.dir.Authenticate(ctx, token)
		if err != nil || p.ID != added.ID || p.Tenant != w.tenant.ID || p.Name != "carol" || p.Check(api.Approver) != nil || p.Check(api.Global) == nil {
			t.Errorf("%+v, %v", p, err)
		}
		err = db.InTx(ctx, func(tx *store.Tx) error {
			_, _, err := w.dir.AddToken(ctx, tx, access.Principal{Tenant: w.tenant.ID}, uuid.Nil)
			return err
		})
		if !fail.Is(err, api.InvalidArgument) {
			t.Errorf("a principal without a name: %v", err)
		}
	})
}

func TestCheckTenantRevealsNothingAboutOtherTenants(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := context.Background()
		w := newDirectory(t, db)
		other := w.create(t, "fabrikam")
		p := access.Principal{Tenant: w.tenant.ID}
		for _, own := range []string{w.tenant.Name, w.tenant.GUID.String(), strings.ToUpper(w.tenant.GUID.String())} {
			if err := w.dir.CheckTenant(ctx, p, own); err != nil {
				t.Errorf("%q: %v", own, err)
			}
		}
		want := w.dir.CheckTenant(ctx, p, "unknown")
		if !fail.Is(want, api.Forbidden) {
			t.Errorf("unknown: %v", want)
		}
		for _, foreign := range []string{other.Name, other.GUID.String()} {
			if err := w.dir.CheckTenant(ctx, p, foreign); err == nil || err.Error() != want.Error() {
				t.Errorf("%q: %v", foreign, err)
			}
		}
	})
}
