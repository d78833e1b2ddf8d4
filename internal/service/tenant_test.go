package service_test

import (
	"strings"
	"sync"
	"testing"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/fail"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/store"
)

func TestOneOfTwoConcurrentCreationsOfATenantIsRefused(t *testing.T) {
	each(t, func(w testService) {
		var wait sync.WaitGroup
		var errs [4]error
		for i := range errs {
			wait.Go(func() { errs[i] = e(w.CreateTenant(w.ctx, newTenant("fabrikam"))) })
		}
		wait.Wait()
		made := 0
		for _, err := range errs {
			switch {
			case err == nil:
				made++
			case !fail.Is(err, api.AlreadyExists):
				t.Error(err)
			}
		}
		if made != 1 {
			t.Errorf("%d of %d were told that they made it", made, len(errs))
		}
	})
}

func TestInterruptedCreationOfATenantContinuesAndItsAdminCanAct(t *testing.T) {
	each(t, func(w testService) {
		var begun access.Tenant
		w.InTx(func(tx *store.Tx) (err error) {
			begun, err = w.parts.Access.CreateTenant(w.Ctx, tx, "fabrikam")
			return err
		})
		policytest.Refuses(t, e(w.ShowTenant(w.ctx, api.TenantInput{Tenant: "fabrikam"})), api.NotFound)
		w.Must(w.Policies.Bootstrap(w.Ctx, begun.ID, begun.GUID))
		made, err := w.CreateTenant(w.ctx, newTenant("fabrikam"))
		w.Must(err)
		if made.ID != begun.GUID.String() {
			t.Errorf("made %+v, begun %+v", made, begun)
		}
		admin, err := w.parts.Access.Authenticate(w.Ctx, made.AdminToken)
		w.Must(err)
		w.Must(e(w.CreateMailbox(w.as(admin), newMailbox(alice, ""))))
		policytest.Refuses(t, e(w.CreateTenant(w.as(admin), newTenant("tailspin"))), api.Forbidden)
		policytest.Refuses(t, e(w.ListTenants(w.as(admin), api.ListInput{})), api.Forbidden)
		shown, err := w.ShowTenant(w.ctx, api.TenantInput{Tenant: made.ID})
		w.Must(err)
		if shown.ID != made.ID || shown.Name != made.Name || !shown.Created.Equal(made.Created) {
			t.Errorf("%+v, want %+v", shown, made.Tenant)
		}
	})
}

func TestListOfTenantsIsPaged(t *testing.T) {
	each(t, func(w testService) {
		want := []string{w.GUID.String()} // there before
		for _, name := range []string{"two", "three", "four", "five"} {
			made, err := w.CreateTenant(w.ctx, newTenant(name))
			w.Must(err)
			want = append(want, made.ID)
		}
		all, parts := listAll(t, 2, func(in api.PageInput) (api.List[api.Tenant], error) {
			return w.ListTenants(w.ctx, api.ListInput{PageInput: in})
		})
		if parts != 3 || len(all) != len(want) {
			t.Errorf("%d tenants in %d parts", len(all), parts)
		}
		for i, one := range all {
			if one.ID != want[i] {
				t.Errorf("%d is %+v, want %s", i, one, want[i])
			}
		}
	})
}

// Upkeep that the last process did not finish is found in every tenant.
func TestUpkeepIsQueuedForEveryTenant(t *testing.T) {
	each(t, func(w testService) {
		made, err := w.CreateTenant(w.ctx, newTenant("fabrikam"))
		w.Must(err)
		admin, err := w.parts.Access.Authenticate(w.Ctx, made.AdminToken)
		w.Must(err)
		for _, name := range []string{"a", "b", "c"} { // each in a page of its own
			w.Must(e(w.CreateMailbox(w.as(admin), newMailbox(name, ""))))
		}
		pages := func() int64 {
			return w.Number(`SELECT COUNT(*) FROM key_page WHERE tenant = ?1`, admin.Tenant)
		}
		before := pages()
		restarted := newTestService(w.World) // whose queue of upkeep is empty
		restarted.QueueMaintenance()
		restarted.tidy()
		if before != 4 || pages() != 2 { // one is the directory's
			t.Errorf("%d key pages, %d before", pages(), before)
		}
	})
}

// outsideOf lets a tenant use the vaults of a directory.
func outsideOf(tenant, directory string) api.SetTenantInput {
	in := api.SetTenantInput{TenantInput: api.TenantInput{Tenant: tenant}}
	in.Body.Add.Directories = []string{directory}
	return in
}

func TestExternalVaultsAreUsableOnlyByTenantsTheyAreRegisteredFor(t *testing.T) {
	each(t, func(w testService) {
		const directory, vault = "72f988bf-86f1-41af-91ab-2d7cd011db47", "https://contoso-a1.vault.azure.net"
		one, err := w.CreateTenant(w.ctx, newTenant("one"))
		w.Must(err)
		two, err := w.CreateTenant(w.ctx, newTenant("two"))
		w.Must(err)
		may := func(tenant api.CreatedTenant) error {
			var id int64
			w.View(func(tx *store.Tx) error {
				found, err := w.parts.Access.FindTenant(w.Ctx, tx, tenant.ID)
				id = found.ID
				return err
			})
			return w.parts.Access.CheckExternal(w.Ctx, id, vault, directory)
		}
		refused(w, may(one), api.Forbidden, vault, directory, "keyroll tenant set")
		set, err := w.SetTenant(w.ctx, outsideOf("one", strings.ToUpper(directory)))
		w.Must(err)
		if len(set.Directories) != 1 || set.Directories[0] != directory {
			w.Errorf("set: %+v", set)
		}
		w.Must(may(one))
		refused(w, may(two), api.Forbidden)
		refused(w, e(w.SetTenant(w.ctx, outsideOf("two", directory))), api.Conflict, "another tenant", "--vault")
		in := api.SetTenantInput{TenantInput: api.TenantInput{Tenant: "two"}}
		in.Body.Add.Vaults = []string{"HTTPS://Contoso-A1.vault.azure.net/"}
		w.Must(e(w.SetTenant(w.ctx, in)))
		w.Must(may(two))
		in.Body.Add, in.Body.Remove = api.Outside{}, api.Outside{Vaults: []string{vault}}
		w.Must(e(w.SetTenant(w.ctx, in)))
		refused(w, may(two), api.Forbidden)
		w.Must(may(one))
		for _, bad := range []string{"contoso-a1", "http://a.vault.azure.net", "https://a.vault.azure.net/keys", "https://u@a.vault.azure.net"} {
			in.Body.Add, in.Body.Remove = api.Outside{Vaults: []string{bad}}, api.Outside{}
			refused(w, e(w.SetTenant(w.ctx, in)), api.InvalidArgument)
		}
	})
}
