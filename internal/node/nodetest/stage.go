package nodetest

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/store"
)

// MailboxPolicy is the policy that StageMail makes; SitePolicy is the one that
// StageSites registers.
const (
	MailboxPolicy = "USA_mailboxes"
	SitePolicy    = "Sites"
)

// Vaults that StageMail and StageSites make; each has one key, named like the vault with
// Key001.
const (
	VaultA1 = "Contoso-O365EX-NA-VaultA1"
	VaultA2 = "Contoso-O365EX-NA-VaultA2"
	VaultS1 = "stageRG3vault"
	VaultS2 = "stageRG4vault"
)

// KeyOf returns the name of the only key of a vault that Stage… makes.
func KeyOf(vault string) string { return vault + "-Key001" }

// Application ids of the service's principals.
const (
	exchange   = "00000002-0000-0ff1-ce00-000000000000"
	sharePoint = "00000003-0000-0ff1-ce00-000000000000"
)

// StageMail makes two vaults with a key each for Exchange and MailboxPolicy.
func (w *World) StageMail() {
	w.t.Helper()
	w.Vault(VaultA1, exchange)
	w.Vault(VaultA2, exchange)
	w.Script(fmt.Sprintf("New-DataEncryptionPolicy -Name %s -AzureKeyIDs %s, %s", MailboxPolicy, w.KeyURI(VaultA1), w.KeyURI(VaultA2)))
}

// StageSites makes two vaults with a key each for SharePoint and registers
// SitePolicy; the roll that follows has finished.
func (w *World) StageSites() {
	w.t.Helper()
	w.Vault(VaultS1, sharePoint)
	w.Vault(VaultS2, sharePoint)
	w.Script(
		fmt.Sprintf("$a = Get-AzKeyVaultKey -VaultName %s -Name %s", VaultS1, KeyOf(VaultS1)),
		fmt.Sprintf("$b = Get-AzKeyVaultKey -VaultName %s -Name %s", VaultS2, KeyOf(VaultS2)),
		fmt.Sprintf("Register-SPODataEncryptionPolicy -PrimaryKeyVaultName %s -PrimaryKeyName %s -PrimaryKeyVersion $a.Version "+
			"-SecondaryKeyVaultName %s -SecondaryKeyName %s -SecondaryKeyVersion $b.Version", w.VaultName(VaultS1), KeyOf(VaultS1), w.VaultName(VaultS2), KeyOf(VaultS2)))
	w.FinishRoll(SitePolicy)
}

// Vault makes a vault with one key that a service principal may use.
func (w *World) Vault(name, principal string) {
	w.t.Helper()
	w.Script(
		fmt.Sprintf("New-AzKeyVault -VaultName %s -ResourceGroupName Contoso-CK -Location eastus -Sku Premium -EnablePurgeProtection", name),
		fmt.Sprintf("Set-AzKeyVaultAccessPolicy -VaultName %s -PermissionsToKeys wrapKey,unwrapKey,get -ServicePrincipalName %s", name, w.Principal(principal)))
	w.AddKey(name)
}

// AddKey makes a version of the key of a vault, the first or one more.
func (w *World) AddKey(vault string) {
	w.t.Helper()
	w.Script(AddKeyLine(vault))
}

// AddKeyLine makes a version of the key of a vault.
func AddKeyLine(vault string) string {
	return fmt.Sprintf("Add-AzKeyVaultKey -VaultName %s -Name %s -Destination HSM -KeyOps @('wrapKey','unwrapKey')", vault, KeyOf(vault))
}

// UpdateSitesLine is a cmdlet line that updates the primary or secondary key of SitePolicy to the version in $a.
func (w *World) UpdateSitesLine(vault, keyType string) string {
	return fmt.Sprintf("Update-SPODataEncryptionPolicy -Identity https://contoso-admin.sharepoint.com -KeyVaultName %s -KeyName %s -KeyVersion $a.Version -KeyType %s",
		w.VaultName(vault), KeyOf(vault), keyType)
}

// KeyURI is the key of a vault of the stage without a version.
func (w *World) KeyURI(vault string) string {
	return w.VaultURL(vault) + "/keys/" + KeyOf(vault)
}

// RefreshMail adds a version to each key of MailboxPolicy and refreshes it; the
// roll has begun.
func (w *World) RefreshMail() {
	w.t.Helper()
	w.AddKey(VaultA1)
	w.AddKey(VaultA2)
	w.Refresh(MailboxPolicy, api.DepthPolicy)
}

// Refresh adopts the newest versions of a policy's keys.
func (w *World) Refresh(policy string, depth api.Depth) {
	w.t.Helper()
	in := api.RefreshPolicyInput{PolicyInput: api.PolicyInput{Policy: policy}}
	in.Body.Depth = depth
	w.must(ignore(w.Client.RefreshPolicy(w.t.Context(), in)))
}

// UpdateSites adds a version to the primary key of SitePolicy and updates it;
// the roll has begun.
func (w *World) UpdateSites() {
	w.t.Helper()
	w.AddKey(VaultS1)
	w.UpdateSitesToNewest()
}

// UpdateSitesToNewest updates the primary key of SitePolicy to its newest
// version; the roll has begun.
func (w *World) UpdateSitesToNewest() {
	w.t.Helper()
	w.Script(
		fmt.Sprintf("$a = Get-AzKeyVaultKey -VaultName %s -Name %s", VaultS1, KeyOf(VaultS1)),
		w.UpdateSitesLine(VaultS1, "Primary"))
}

// Revoke removes a service principal's permissions in vaults.
func (w *World) Revoke(principal string, vaults ...string) {
	w.t.Helper()
	for _, vault := range vaults {
		w.Script(fmt.Sprintf("Remove-AzKeyVaultAccessPolicy -VaultName %s -ServicePrincipalName %s -Confirm:$false", vault, w.Principal(principal)))
	}
}

// RevokeMail removes the permissions on both keys of MailboxPolicy.
func (w *World) RevokeMail() {
	w.t.Helper()
	w.Revoke(exchange, VaultA1, VaultA2)
}

// Approver registers and enrols an approver, and returns its token. It counts for acts of the
// world's admin, as one does who enrolled long ago with a code of the operator.
func (w *World) Approver(name string) string {
	w.t.Helper()
	ctx := w.t.Context()
	var in api.AddApproverInput
	in.Body.Name = name
	invited, err := w.Client.AddApprover(ctx, in)
	w.must(err)
	enrolling := w.As(invited.Code)
	defer enrolling.Client.Close()
	made, err := enrolling.Client.EnrolApprover(ctx, api.None{})
	w.must(err)
	w.must(w.Node.DB.InTx(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE principal SET issuer = '', created = 1 WHERE id = ?1`, made.ID)
		return err
	}))
	return made.Secret
}

// RequestPurge requests the purge of a policy whose keys refuse.
func (w *World) RequestPurge(policy string) {
	w.t.Helper()
	in := api.RequestPurgeInput{PolicyInput: api.PolicyInput{Policy: policy}}
	in.Body.Reason, in.Body.Contact = "the tenant leaves", "security"
	w.must(ignore(w.Client.RequestPurge(w.t.Context(), in)))
}

// ApprovePurge approves the purge of a policy with an approver's token.
func (w *World) ApprovePurge(token, policy string) {
	w.t.Helper()
	other := w.As(token)
	defer other.Client.Close()
	w.must(ignore(other.Client.ApprovePurge(w.t.Context(), api.PolicyInput{Policy: policy})))
}

// Mailbox makes a mailbox, and assigns a policy to it unless that is empty.
func (w *World) Mailbox(name, policy string) {
	w.t.Helper()
	var in api.CreateMailboxInput
	in.Body.Name, in.Body.Policy = name, policy
	w.must(ignore(w.Client.CreateMailbox(w.t.Context(), in)))
}

// CreateMany makes containers of a kind in full key pages, directly in the database,
// which is faster than the service.
func (w *World) CreateMany(kind container.Kind, names []string, policy string) {
	w.t.Helper()
	ctx := w.t.Context()
	var id int64
	if policy != "" {
		w.must(w.Node.DB.ViewOnce(ctx, func(tx *store.Tx) error {
			p, err := w.Node.Policies.Find(ctx, tx, w.Node.Tenant.ID, policy)
			id = p.ID
			return err
		}))
	}
	w.must(w.Node.Containers.CreateMany(ctx, w.Node.Tenant.ID, kind, names, id))
}

// SetState changes the state of a mailbox.
func (w *World) SetState(mailbox string, state api.MailboxState) {
	w.t.Helper()
	in := api.SetMailboxStateInput{MailboxInput: api.MailboxInput{Mailbox: mailbox}}
	in.Body.State = state
	w.must(ignore(w.Client.SetMailboxState(w.t.Context(), in)))
}

// Assign assigns a policy to a mailbox, or returns it to the default.
func (w *World) Assign(mailbox, policy string) {
	w.t.Helper()
	in := api.AssignMailboxInput{MailboxInput: api.MailboxInput{Mailbox: mailbox}}
	in.Body.Policy = policy
	w.must(ignore(w.Client.AssignMailbox(w.t.Context(), in)))
}

// PolicyID is the DataEncryptionPolicyID of a mailbox.
func (w *World) PolicyID(mailbox string) string {
	w.t.Helper()
	m, err := w.Client.ShowMailbox(w.t.Context(), api.MailboxInput{Mailbox: mailbox})
	w.must(err)
	return m.Protection.DataEncryptionPolicyID
}

// Import adds the messages of an mbox to a mailbox.
func (w *World) Import(mailbox, mbox string) {
	w.t.Helper()
	w.must(ignore(w.Client.ImportMail(w.t.Context(), api.ImportMailInput{MailboxInput: api.MailboxInput{Mailbox: mailbox}}, int64(len(mbox)), strings.NewReader(mbox))))
}

// Export returns all messages of a mailbox as an mbox.
func (w *World) Export(mailbox string) string {
	w.t.Helper()
	return w.all(w.Client.ExportMail(w.t.Context(), api.MailboxInput{Mailbox: mailbox}))
}

// Site makes a site.
func (w *World) Site(url string) {
	w.t.Helper()
	var in api.CreateSiteInput
	in.Body.URL = url
	w.must(ignore(w.Client.CreateSite(w.t.Context(), in)))
}

// Put stores a file.
func (w *World) Put(site, path string, content []byte) {
	w.t.Helper()
	in := api.FileInput{SiteInput: api.SiteInput{Site: site}, Path: path}
	w.must(ignore(w.Client.PutFile(w.t.Context(), in, int64(len(content)), bytes.NewReader(content))))
}

// Get returns a file.
func (w *World) Get(site, path string) []byte {
	w.t.Helper()
	in := api.FileInput{SiteInput: api.SiteInput{Site: site}, Path: path}
	return []byte(w.all(w.Client.GetFile(w.t.Context(), in, 0, -1)))
}

func (w *World) all(r io.ReadCloser, err error) string {
	w.t.Helper()
	w.must(err)
	defer r.Close()
	content, err := io.ReadAll(r)
	w.must(err)
	return string(content)
}

func (w *World) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// ignore returns only the error of a call.
func ignore[T any](_ T, err error) error { return err }
