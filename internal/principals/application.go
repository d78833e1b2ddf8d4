package principals

import (
	"context"
	"time"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/fail"
	"keyroll/internal/operation"
	"keyroll/internal/store"
)

// CreateApplication registers an application with a first secret.
func (p *Principals) CreateApplication(ctx context.Context, in api.CreateApplicationInput) (api.CreatedApplication, error) {
	return operation.Do(ctx, p.frame, api.CreateApplication.Meta, in.Body.Name, func(ctx context.Context, c *operation.Call) (out api.CreatedApplication, err error) {
		c.DryRun = in.Body.DryRun
		err = c.Change(ctx, func(tx *store.Tx) (string, error) {
			a, err := p.access.CreateApplication(ctx, tx, c.Tenant, in.Body.Name, c.Principal.ID)
			if err != nil {
				return "", err
			}
			secret, text, err := p.access.AddCredential(ctx, tx, a, "", p.secretExpiry(in.Body.Expires))
			if err != nil {
				return "", err
			}
			a.Credentials = []access.Credential{secret}
			out = api.CreatedApplication{ApplicationInfo: applicationOf(a), Secret: text}
			return applicationDetail(a) + ", " + secretDetail(secret), nil
		})
		if c.DryRun {
			out.Secret = ""
		}
		return out, err
	})
}

// ListApplications lists the applications of the tenant.
func (p *Principals) ListApplications(ctx context.Context, _ api.None) (api.List[api.ApplicationInfo], error) {
	return operation.Do(ctx, p.frame, api.ListApplications.Meta, "", func(ctx context.Context, c *operation.Call) (list api.List[api.ApplicationInfo], err error) {
		err = c.Read(ctx, func(tx *store.Tx) error {
			list.Items = []api.ApplicationInfo{}
			all, err := p.access.Applications(ctx, tx, c.Tenant)
			for _, a := range all {
				list.Items = append(list.Items, applicationOf(a))
			}
			return err
		})
		return list, err
	})
}

// RemoveApplication removes an application with its secrets.
func (p *Principals) RemoveApplication(ctx context.Context, in api.RemoveApplicationInput) (api.None, error) {
	return operation.Do(ctx, p.frame, api.RemoveApplication.Meta, in.Application, func(ctx context.Context, c *operation.Call) (none api.None, err error) {
		c.DryRun = in.DryRun
		return none, c.Change(ctx, func(tx *store.Tx) (string, error) {
			a, err := p.access.FindApplication(ctx, tx, c.Tenant, in.Application)
			if err != nil {
				return "", err
			}
			return applicationDetail(a), p.access.RemoveApplication(ctx, tx, a)
		})
	})
}

// AddApplicationCredential adds a secret to an application.
func (p *Principals) AddApplicationCredential(ctx context.Context, in api.AddApplicationCredentialInput) (api.CreatedCredential, error) {
	return operation.Do(ctx, p.frame, api.AddApplicationCredential.Meta, in.Application, func(ctx context.Context, c *operation.Call) (out api.CreatedCredential, err error) {
		c.DryRun = in.Body.DryRun
		err = c.Change(ctx, func(tx *store.Tx) (string, error) {
			a, err := p.access.FindApplication(ctx, tx, c.Tenant, in.Application)
			if err != nil {
				return "", err
			}
			secret, text, err := p.access.AddCredential(ctx, tx, a, in.Body.Name, p.secretExpiry(in.Body.Expires))
			if err != nil {
				return "", err
			}
			out = api.CreatedCredential{Credential: credentialOf(secret), Secret: text}
			return applicationDetail(a) + ", " + secretDetail(secret), nil
		})
		if c.DryRun {
			out.Secret = ""
		}
		return out, err
	})
}

// RemoveApplicationCredential removes a secret of an application.
func (p *Principals) RemoveApplicationCredential(ctx context.Context, in api.RemoveApplicationCredentialInput) (api.None, error) {
	return operation.Do(ctx, p.frame, api.RemoveApplicationCredential.Meta, in.Application, func(ctx context.Context, c *operation.Call) (none api.None, err error) {
		c.DryRun = in.DryRun
		id, err := uuid.Parse(in.Credential)
		if err != nil {
			return none, fail.New(api.InvalidArgument, "%.80q is not the id of a secret, a GUID", in.Credential)
		}
		return none, c.Change(ctx, func(tx *store.Tx) (string, error) {
			a, err := p.access.FindApplication(ctx, tx, c.Tenant, in.Application)
			if err != nil {
				return "", err
			}
			return applicationDetail(a) + ", secret " + id.String(), p.access.RemoveCredential(ctx, tx, c.Tenant, a.ID, id)
		})
	})
}

// secretExpiry returns when a secret expires: by default in one year, as in Entra.
func (p *Principals) secretExpiry(given time.Time) time.Time {
	if given.IsZero() {
		return p.now().AddDate(1, 0, 0)
	}
	return given
}

func applicationOf(a access.Application) api.ApplicationInfo {
	out := api.ApplicationInfo{ID: a.ID.String(), Name: a.Name, Created: a.Created.UTC(), Secrets: []api.Credential{}}
	for _, c := range a.Credentials {
		out.Secrets = append(out.Secrets, credentialOf(c))
	}
	return out
}

func credentialOf(c access.Credential) api.Credential {
	return api.Credential{ID: c.ID.String(), Name: c.Name, Created: c.Created.UTC(), Expires: c.Expires.UTC()}
}

// applicationDetail and secretDetail are what the audit log says in the clear: no names.
func applicationDetail(a access.Application) string { return "application " + a.ID.String() }

func secretDetail(c access.Credential) string {
	return "secret " + c.ID.String() + " until " + c.Expires.UTC().Format(time.RFC3339)
}
