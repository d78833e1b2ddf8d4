package vault

import (
	"context"
	"crypto/sha256"
	"net/http"
	"slices"
	"strings"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/store"
	"keyroll/internal/vault/azure"
)

const (
	// retentionFeature keeps a subscription from ending before the retention of all
	// deleted vaults and keys in it has ended.
	retentionFeature = "Microsoft.Resources/mandatoryRetentionPeriodEnabled"
	vaultProvider    = "Microsoft.KeyVault"

	registerSQL = `INSERT INTO vault_registration (tenant, subscription, name, created) VALUES (?1, ?2, ?3, ?4)
		ON CONFLICT (tenant, subscription, name) DO NOTHING`
	findRegistrationSQL  = `SELECT COUNT(*) FROM vault_registration WHERE tenant = ?1 AND subscription = ?2 AND name = ?3`
	listSubscriptionsSQL = `SELECT subscription FROM vault WHERE tenant = ?1
		UNION SELECT subscription FROM vault_registration WHERE tenant = ?1 ORDER BY subscription`
)

// subscriptionOf returns the id of a tenant's default subscription, the same on
// every node and in every copy of the database.
func subscriptionOf(tenant uuid.UUID) string {
	return uuid.NewHash(sha256.New(), tenant, []byte("default subscription"), 8).String()
}

// listSubscriptions lists the tenant's default subscription first, then those that
// have a vault or a registration.
func (v *Vaults) listSubscriptions(ctx context.Context, o *managementRequest) (int, any, error) {
	ids := []string{subscriptionOf(o.tenant.GUID)}
	err := v.db.View(ctx, func(tx *store.Tx) error {
		used, err := store.Collect(ctx, tx, func(row store.Scanner) (id string, err error) { return id, row.Scan(&id) }, listSubscriptionsSQL, o.tenant.ID)
		for _, id := range used {
			if !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
		return err
	})
	list := []map[string]string{}
	for _, id := range ids {
		list = append(list, map[string]string{"id": "/subscriptions/" + id, "subscriptionId": id, "tenantId": o.tenant.GUID.String(),
			"displayName": o.tenant.Name, "state": "Enabled"})
	}
	return http.StatusOK, map[string]any{"value": list}, err
}

// feature returns the feature that the path names, in its canonical spelling.
func (o *managementRequest) feature() (string, error) {
	name := o.path["namespace"] + "/" + o.path["feature"]
	if !strings.EqualFold(name, retentionFeature) {
		return "", azure.Refuse(api.NotFound, "FeatureNotFound", "", "feature %.150q does not exist; %s does", name, retentionFeature)
	}
	return retentionFeature, nil
}

func (v *Vaults) getFeature(ctx context.Context, o *managementRequest) (int, any, error) {
	name, err := o.feature()
	if err != nil {
		return 0, nil, err
	}
	state, err := v.registration(ctx, o, name)
	return http.StatusOK, o.featureAnswer(name, state), err
}

// registerFeature takes effect at once; no approval is needed.
func (v *Vaults) registerFeature(ctx context.Context, o *managementRequest) (int, any, error) {
	name, err := o.feature()
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, o.featureAnswer(name, registered), v.register(ctx, o, name)
}

func (o *managementRequest) featureAnswer(name, state string) any {
	namespace, feature, _ := strings.Cut(name, "/")
	return map[string]any{
		"id":   "/subscriptions/" + o.subscription + "/providers/Microsoft.Features/providers/" + namespace + "/features/" + feature,
		"name": name, "type": "Microsoft.Features/providers/features", "properties": map[string]string{"state": state},
	}
}

// provider returns the resource provider that the path names, in its canonical
// spelling.
func (o *managementRequest) provider() (string, error) {
	if !strings.EqualFold(o.path["namespace"], vaultProvider) {
		return "", azure.Refuse(api.NotFound, "InvalidResourceNamespace", "", "resource provider %.100q does not exist; %s does", o.path["namespace"], vaultProvider)
	}
	return vaultProvider, nil
}

func (v *Vaults) getProvider(ctx context.Context, o *managementRequest) (int, any, error) {
	name, err := o.provider()
	if err != nil {
		return 0, nil, err
	}
	state, err := v.registration(ctx, o, name)
	return http.StatusOK, o.providerAnswer(name, state), err
}

func (v *Vaults) registerProvider(ctx context.Context, o *managementRequest) (int, any, error) {
	name, err := o.provider()
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, o.providerAnswer(name, registered), v.register(ctx, o, name)
}

func (o *managementRequest) providerAnswer(name, state string) any {
	return map[string]any{"id": "/subscriptions/" + o.subscription + "/providers/" + name, "namespace": name,
		"registrationState": state, "registrationPolicy": "RegistrationRequired",
		"resourceTypes": []map[string]any{{"resourceType": "vaults"}}}
}

const registered = "Registered"

func (v *Vaults) registration(ctx context.Context, o *managementRequest, name string) (state string, err error) {
	var n int
	err = v.db.View(ctx, func(tx *store.Tx) error {
		return tx.QueryRow(ctx, findRegistrationSQL, o.tenant.ID, o.subscription, name).Scan(&n)
	})
	if n > 0 {
		return registered, err
	}
	return "NotRegistered", err
}

func (v *Vaults) register(ctx context.Context, o *managementRequest, name string) error {
	return v.db.InTx(ctx, func(tx *store.Tx) error {
		return execute(ctx, tx, registerSQL, o.tenant.ID, o.subscription, name, v.now().UnixMilli())
	})
}
