package node_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"keyroll/api"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
)

// program is a program of a customer that uses a vault with Azure's own clients.
type program struct {
	*testing.T
	*nodetest.World
	id string
}

// logIn returns a credential, which has no token yet.
func (p program) logIn(secret string) azcore.TokenCredential {
	p.Helper()
	credential, err := azidentity.NewClientSecretCredential(p.Info.TenantID, p.id, secret, &azidentity.ClientSecretCredentialOptions{
		ClientOptions: azcore.ClientOptions{Transport: p.HTTP(), Retry: policy.RetryOptions{MaxRetries: -1},
			Cloud: cloud.Configuration{ActiveDirectoryAuthorityHost: p.Info.URL}},
		DisableInstanceDiscovery: true,
	})
	if err != nil {
		p.Fatal(err)
	}
	return credential
}

// token returns an access token for keyroll's own interfaces, or for vaults.
func (p program) token(secret, resource string) (string, error) {
	token, err := p.logIn(secret).GetToken(p.Context(), policy.TokenRequestOptions{Scopes: []string{resource + "/.default"}})
	return token.Token, err
}

// use wraps and unwraps a key in a vault, and returns why the vault refused it.
func (p program) use(credential azcore.TokenCredential, vault string) error {
	p.Helper()
	_, port, _ := strings.Cut(strings.TrimPrefix(p.Info.URL, "https://"), ":")
	keys, err := azkeys.NewClient(p.VaultURL(vault)+":"+port, credential, &azkeys.ClientOptions{
		ClientOptions: azcore.ClientOptions{Transport: p.HTTP(), Retry: policy.RetryOptions{MaxRetries: -1}}})
	if err != nil {
		p.Fatal(err)
	}
	key, algorithm := bytes.Repeat([]byte{7}, 32), azkeys.EncryptionAlgorithmRSAOAEP256
	wrapped, err := keys.WrapKey(p.Context(), nodetest.KeyOf(vault), "", azkeys.KeyOperationParameters{Algorithm: &algorithm, Value: key}, nil)
	if err != nil {
		return err
	}
	unwrapped, err := keys.UnwrapKey(p.Context(), nodetest.KeyOf(vault), "", azkeys.KeyOperationParameters{Algorithm: &algorithm, Value: wrapped.Result}, nil)
	if err == nil && !bytes.Equal(unwrapped.Result, key) {
		err = errors.New("the key was not unwrapped as it was wrapped")
	}
	return err
}

func status(err error) int {
	var refused *azcore.ResponseError
	if errors.As(err, &refused) {
		return refused.StatusCode
	}
	return 0
}

// lockedBuffer is a log that several goroutines write.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func TestApplicationUsesTheVaultsThatPoliciesPermit(t *testing.T) {
	var log lockedBuffer
	w := nodetest.Start(t, node.Options{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	ctx := t.Context()
	const vault = "Contoso-Payroll"
	w.Vault(vault, "00000002-0000-0ff1-ce00-000000000000")
	var create api.CreateApplicationInput
	create.Body.Name = "Payroll"
	made, err := w.Client.CreateApplication(ctx, create)
	if err != nil {
		t.Fatal(err)
	}
	p := program{t, w, made.ID}
	first := p.logIn(made.Secret)
	if err := p.use(first, vault); status(err) != http.StatusForbidden {
		t.Errorf("without an access policy: %v", err)
	}
	w.Script(fmt.Sprintf("Set-AzKeyVaultAccessPolicy -VaultName %s -PermissionsToKeys wrapKey,unwrapKey -ServicePrincipalName %s", vault, made.ID))
	if err := p.use(first, vault); err != nil {
		t.Errorf("with one: %v", err)
	}

	// The role permits nothing else.
	token, err := p.token(made.Secret, w.Info.URL)
	if err != nil {
		t.Fatal(err)
	}
	as := w.As(token).Client
	if who, err := as.WhoAmI(ctx, api.None{}); err != nil || who.ID != made.ID || fmt.Sprint(who.Roles) != "[application]" {
		t.Errorf("who: %+v, %v", who, err)
	}
	_, listed := as.ListApplications(ctx, api.None{})
	_, removed := as.RemoveApplication(ctx, api.RemoveApplicationInput{ApplicationInput: api.ApplicationInput{Application: made.ID}})
	_, policies := as.ListPolicies(ctx, api.ListInput{})
	_, vaults := w.As(token).Vaults().ListVaults(ctx)
	for _, err := range []error{listed, removed, policies, vaults} {
		if codeOf(err) != api.Forbidden {
			t.Errorf("an operation: %v", err)
		}
	}

	// A second secret takes over from the first.
	added, err := w.Client.AddApplicationCredential(ctx, api.AddApplicationCredentialInput{ApplicationInput: api.ApplicationInput{Application: "payroll"}})
	if err != nil {
		t.Fatal(err)
	}
	remove := api.RemoveApplicationCredentialInput{ApplicationInput: api.ApplicationInput{Application: "payroll"}, Credential: made.Secrets[0].ID}
	if _, err := w.Client.RemoveApplicationCredential(ctx, remove); err != nil {
		t.Fatal(err)
	}
	if _, err := p.token(made.Secret, w.Info.URL); err == nil || !strings.Contains(err.Error(), "AADSTS7000215") {
		t.Errorf("log in with a removed secret: %v", err)
	}
	second := p.logIn(added.Secret)
	if err := p.use(second, vault); err != nil {
		t.Errorf("with the second secret: %v", err)
	}

	// The application is removed, and with it what its tokens may do.
	if _, err := w.Client.RemoveApplication(ctx, api.RemoveApplicationInput{ApplicationInput: api.ApplicationInput{Application: made.ID}}); err != nil {
		t.Fatal(err)
	}
	if err := p.use(second, vault); err == nil {
		t.Error("a removed application uses a vault")
	}
	if _, err := as.WhoAmI(ctx, api.None{}); codeOf(err) != api.Unauthenticated {
		t.Errorf("token of a removed application: %v", err)
	}
	if _, err := p.token(added.Secret, w.Info.URL); err == nil || !strings.Contains(err.Error(), "AADSTS7000215") {
		t.Errorf("log in as a removed application: %v", err)
	}
	w.Stop()
	for _, secret := range []string{made.Secret, added.Secret, token} {
		if strings.Contains(log.String(), secret) {
			t.Error("the log has a secret")
		}
	}
}

func TestADryRunOfAnApplicationReturnsNoSecret(t *testing.T) {
	w := nodetest.Start(t, node.Options{})
	var create api.CreateApplicationInput
	create.Body.Name, create.Body.DryRun = "Payroll", true
	if made, err := w.Client.CreateApplication(t.Context(), create); err != nil || made.Secret != "" {
		t.Errorf("dry run: %+v, %v", made, err)
	}
	if all, err := w.Client.ListApplications(t.Context(), api.None{}); err != nil || len(all.Items) != 0 {
		t.Errorf("after a dry run: %+v, %v", all, err)
	}
}
