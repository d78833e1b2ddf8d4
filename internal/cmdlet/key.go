package cmdlet

import (
	"context"
	"crypto/rsa"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/files"
)

// maxBackup bounds a backup file: 500 versions of RSA keys fit.
const maxBackup = 4 << 20

var (
	keyVault = Param{Name: "VaultName", Aliases: []string{"HsmName"}, Type: String, Position: 1, Mandatory: true, Piped: true,
		Help: "Name of the vault; a premium vault can be used as a managed HSM."}
	keyName  = Param{Name: "Name", Aliases: []string{"KeyName"}, Type: String, Position: 2, Mandatory: true, Piped: true, Help: "Name of the key."}
	keyTimes = []Param{
		{Name: "NotBefore", Type: DateTime, Help: "When the key version becomes valid."},
		{Name: "Expires", Type: DateTime, Help: "When the key version expires. Customer keys should not expire, or on 12/31/9999."},
	}
	keyOps = Param{Name: "KeyOps", Type: Strings, Values: []string{"wrapKey", "unwrapKey", "encrypt", "decrypt", "sign", "verify", "import"},
		Help: "Operations that the key may be used for; a customer key needs wrapKey and unwrapKey."}
)

func keyCmdlets() []*Cmdlet {
	emits := keyObject(Key{}).names()
	return []*Cmdlet{
		{
			Name: "Add-AzKeyVaultKey", Aliases: olderNames("Add-AzKeyVaultKey"), Run: addKey, Emits: emits, Changes: true,
			Synopsis: "Creates a key, or a new version of the key of that name; the older versions are kept.",
			Example:  `Add-AzKeyVaultKey -VaultName Contoso-O365EX-NA-VaultA1 -Name Contoso-O365EX-NA-VaultA1-Key001 -Destination HSM -KeyOps @('wrapKey','unwrapKey') -NotBefore (Get-Date -Date "12/27/2016 12:01 AM")`,
			Sets:     []string{"InVault", "InHsm", "FromFile"},
			Params: append([]Param{
				in(keyVault, "InVault", "FromFile"),
				{Name: "HsmName", Type: String, Mandatory: true, Sets: []string{"InHsm"}, Help: "Name of a premium vault, which is used as a managed HSM; the key is an HSM key."},
				unpiped(keyName),
				{Name: "KeyFilePath", Type: String, Mandatory: true, Sets: []string{"FromFile"}, Help: "File with an RSA private key in PEM, which is imported as the key version; certificates in the file are ignored."},
				{Name: "Destination", Type: String, Mandatory: true, Values: []string{"HSM", "Software"}, Sets: []string{"InVault", "FromFile"}, Help: "Where the key is stored; in Azure, HSM needs a premium vault."},
				{Name: "KeyType", Type: String, Values: []string{"RSA", "EC", "RSA-HSM", "EC-HSM"}, Help: "Type of the key (default: RSA). An EC key cannot be a customer key."},
				{Name: "Size", Type: Int, Help: "Size of an RSA key in bits: 2048, 3072 or 4096."},
				keyOps,
				{Name: "Disable", Type: Switch, Help: "Create the version disabled."}}, keyTimes...),
		},
		{
			Name: "Get-AzKeyVaultKey", Aliases: olderNames("Get-AzKeyVaultKey"), Run: getKey, Emits: emits,
			Synopsis: "Shows the newest version of a key, one version, or all; without a name, every key of the vault. With -InRemovedState it shows deleted keys.",
			Example:  "Get-AzKeyVaultKey -VaultName Contoso-O365EX-NA-VaultA1 -Name Contoso-O365EX-NA-VaultA1-Key001 -IncludeVersions",
			Sets:     []string{"ByName", "ByVersions", "Removed"},
			Params: []Param{keyVault, optional(keyName),
				{Name: "Version", Aliases: []string{"KeyVersion"}, Type: Version, Sets: []string{"ByName"}, Help: "Show this version."},
				{Name: "IncludeVersions", Type: Switch, Mandatory: true, Sets: []string{"ByVersions"}, Help: "Show all versions, without type and size."},
				{Name: "InRemovedState", Type: Switch, Mandatory: true, Sets: []string{"Removed"}, Help: "Show deleted keys."}},
		},
		{
			Name: "Update-AzKeyVaultKey", Aliases: append(olderNames("Update-AzKeyVaultKey"), "Set-AzureKeyVaultKeyAttribute", "Set-AzKeyVaultKeyAttribute"),
			Run: updateKey, Emits: emits, Changes: true,
			Synopsis: "Changes the given attributes of a key version; the others are not changed.",
			Example:  "Update-AzKeyVaultKey -VaultName Contoso-O365EX-NA-VaultA1 -Name Contoso-O365EX-NA-VaultA1-Key001 -Expires 12/31/9999",
			Params: append([]Param{keyVault, keyName,
				{Name: "Version", Aliases: []string{"KeyVersion"}, Type: Version, Position: 3, Piped: true, Help: "Key version to change (default: the newest)."},
				{Name: "Enable", Type: Boolean, Help: "Whether the version may be used."},
				keyOps,
				{Name: "PassThru", Type: Switch, Help: "Return the key."}}, keyTimes...),
		},
		{
			Name: "Backup-AzKeyVaultKey", Aliases: olderNames("Backup-AzKeyVaultKey"), Run: backupKey, Changes: true,
			Synopsis: "Writes all versions of a key, encrypted, to a new file, and returns the name of the file.",
			Example:  `Backup-AzKeyVaultKey -VaultName Contoso-O365EX-NA-VaultA1 -Name Contoso-O365EX-NA-VaultA1-Key001 -OutputFile Key001.backup`,
			Params: []Param{keyVault, keyName,
				{Name: "OutputFile", Type: String, Position: 3, Mandatory: true, Help: "File to write, which must not exist yet."}},
		},
		{
			Name: "Restore-AzKeyVaultKey", Aliases: olderNames("Restore-AzKeyVaultKey"), Run: restoreKey, Emits: emits, Changes: true,
			Synopsis: "Restores a key with all its versions from a backup. The name must be free.",
			Example:  `Restore-AzKeyVaultKey -VaultName Contoso-O365EX-NA-VaultA1 -InputFile Key001.backup`,
			Params: []Param{unpiped(keyVault),
				{Name: "InputFile", Type: String, Position: 2, Mandatory: true, Help: "File that Backup-AzKeyVaultKey wrote."}},
		},
		{
			Name: "Remove-AzKeyVaultKey", Aliases: olderNames("Remove-AzKeyVaultKey"), Run: removeKey, Changes: true, Confirms: true,
			Synopsis: "Deletes a key with all its versions; Undo-AzKeyVaultKeyRemoval can recover it until its retention ends. With -InRemovedState it destroys a deleted key.",
			Example:  "Remove-AzKeyVaultKey -VaultName Contoso-O365EX-NA-VaultA1 -Name Contoso-O365EX-NA-VaultA1-Key001",
			Params: []Param{keyVault, keyName,
				{Name: "InRemovedState", Type: Switch, Help: "Destroy a deleted key of a vault without purge protection, irreversibly."},
				{Name: "Force", Type: Switch, Help: "Do not ask for confirmation."},
				{Name: "PassThru", Type: Switch, Help: "Return the key."}},
		},
		{
			Name: "Undo-AzKeyVaultKeyRemoval", Aliases: olderNames("Undo-AzKeyVaultKeyRemoval"), Run: undoRemoval, Emits: emits, Changes: true,
			Synopsis: "Recovers a deleted key.",
			Example:  "Undo-AzKeyVaultKeyRemoval -VaultName Contoso-O365EX-NA-VaultA1 -Name Contoso-O365EX-NA-VaultA1-Key001",
			Params:   []Param{keyVault, keyName},
		},
	}
}

// in returns p restricted to some of the parameter sets.
func in(p Param, sets ...string) Param {
	p.Sets = sets
	if slices.Contains(p.Aliases, "HsmName") {
		p.Aliases = nil
	}
	return p
}

// unpiped returns p for a cmdlet that does not take it from the pipeline.
func unpiped(p Param) Param {
	p.Piped = false
	return p
}

var deletedKeyView = &View{List: true, Columns: []Column{
	{"Vault/HSM Name", "VaultName"}, {"Name", "Name"}, {"Id", "Id"}, {"Deleted Date", "DeletedDate"}, {"Scheduled Purge Date", "ScheduledPurgeDate"},
	{"Enabled", "Enabled"}, {"Expires", "Expires"}, {"Not Before", "NotBefore"}, {"Created", "Created"}, {"Updated", "Updated"}, {"Recovery Level", "RecoveryLevel"}}}

var keyView = &View{List: true, Columns: []Column{
	{"Vault/HSM Name", "VaultName"}, {"Name", "Name"}, {"Key Type", "KeyType"}, {"Key Size", "KeySize"}, {"Curve Name", "CurveName"},
	{"Version", "Version"}, {"Id", "Id"}, {"Enabled", "Enabled"}, {"Expires", "Expires"}, {"Not Before", "NotBefore"},
	{"Created", "Created"}, {"Updated", "Updated"}, {"Recovery Level", "RecoveryLevel"}}}

func keyObject(k Key) *Object {
	var keyType, size, curve any
	if k.Type != "" {
		keyType = k.Type
	}
	if k.Size != 0 {
		size = int64(k.Size)
	}
	if k.Curve != "" {
		curve = k.Curve
	}
	attributes := &Object{Properties: []Property{
		{"Enabled", k.Enabled}, {"Expires", optionalTime(k.Expires)}, {"NotBefore", optionalTime(k.NotBefore)}, {"Created", optionalTime(k.Created)},
		{"Updated", optionalTime(k.Updated)}, {"KeyOps", list(k.Operations)}, {"RecoveryLevel", k.RecoveryLevel}}}
	o := &Object{View: keyView, Properties: []Property{
		{"VaultName", k.Vault}, {"Name", k.Name}, {"Version", k.Version}, {"Id", k.ID}, {"KeyType", keyType}, {"KeySize", size},
		{"CurveName", curve}, {"KeyOps", list(k.Operations)}, {"Enabled", k.Enabled}, {"Expires", optionalTime(k.Expires)},
		{"NotBefore", optionalTime(k.NotBefore)}, {"Created", optionalTime(k.Created)}, {"Updated", optionalTime(k.Updated)},
		{"RecoveryLevel", k.RecoveryLevel}, {"PurgeDisabled", !strings.Contains(k.RecoveryLevel, "Purgeable")}, {"Attributes", attributes},
	}}
	if k.Deleted != nil {
		o.View = deletedKeyView
		o.Properties = append(o.Properties, Property{"DeletedDate", optionalTime(k.Deleted)}, Property{"ScheduledPurgeDate", optionalTime(k.ScheduledPurge)})
	}
	return o
}

func addKey(ctx context.Context, c *Call) error {
	vault, name := c.text("VaultName")+c.text("HsmName"), c.text("Name")
	spec := KeySpec{Type: "RSA", Operations: c.texts("KeyOps"), NotBefore: c.time("NotBefore"), Expires: c.time("Expires")}
	hsm := c.text("Destination") == "HSM" || c.has("HsmName")
	if c.has("KeyType") {
		var inHSM bool
		if spec.Type, inHSM = strings.CutSuffix(c.text("KeyType"), "-HSM"); inHSM && !hsm {
			return invalid("-KeyType %s cannot be used with -Destination Software", c.text("KeyType"))
		}
	}
	if c.has("Size") {
		if spec.Type != "RSA" {
			return invalid("-Size can be used only with RSA keys")
		}
		size := c.number("Size")
		if size != 2048 && size != 3072 && size != 4096 {
			return invalid("-Size must be 2048, 3072 or 4096, found %d", size)
		}
		spec.Size = int32(size)
	}
	if hsm {
		spec.Type += "-HSM"
	}
	enabled := !c.flag("Disable")
	spec.Enabled = &enabled
	var private *rsa.PrivateKey
	if c.has("KeyFilePath") {
		file, err := readFile(c.text("KeyFilePath"), "key")
		if err == nil {
			private, err = readPEM(file)
			clear(file)
		}
		if err != nil {
			return err
		}
	}
	if err := c.confirm(ctx, "Create a version of key %s in vault %s", name, vault); err != nil {
		return err
	}
	if private != nil {
		return c.emitKey(c.Vaults.ImportKey(ctx, vault, name, private, spec))
	}
	return c.emitKey(c.Vaults.CreateKey(ctx, vault, name, spec))
}

func (c *Call) emitKey(k Key, err error) error {
	if err != nil {
		return err
	}
	return c.emit(keyObject(k))
}

func getKey(ctx context.Context, c *Call) error {
	vault, name := c.text("VaultName"), c.text("Name")
	var keys []Key
	var err error
	switch {
	case c.flag("InRemovedState") && name == "":
		keys, err = c.Vaults.ListDeletedKeys(ctx, vault)
	case c.flag("InRemovedState"):
		return c.emitKey(c.Vaults.ShowDeletedKey(ctx, vault, name))
	case name == "" && (c.has("Version") || c.flag("IncludeVersions")):
		return fail.New(api.InvalidArgument, "needs -Name to show versions")
	case name == "":
		keys, err = c.Vaults.ListKeys(ctx, vault)
	case c.flag("IncludeVersions"):
		keys, err = c.Vaults.ListKeyVersions(ctx, vault, name)
	default:
		return c.emitKey(c.Vaults.ShowKey(ctx, vault, name, c.text("Version")))
	}
	if err != nil {
		return err
	}
	return emitAll(c, keys, keyObject)
}

func updateKey(ctx context.Context, c *Call) error {
	spec := KeySpec{Operations: c.texts("KeyOps"), NotBefore: c.time("NotBefore"), Expires: c.time("Expires"), Enabled: c.optionalBool("Enable")}
	if spec.Operations == nil && spec.NotBefore == nil && spec.Expires == nil && spec.Enabled == nil {
		return fail.New(api.InvalidArgument, "no change is given").WithHint("give at least one of -Enable, -Expires, -NotBefore, -KeyOps")
	}
	vault, name, version := c.text("VaultName"), c.text("Name"), c.text("Version")
	if spec.Enabled != nil && !*spec.Enabled {
		of := version
		if of == "" {
			newest, err := c.Vaults.ShowKey(ctx, vault, name, "")
			if err != nil {
				return err
			}
			of = newest.Version
		}
		c.warnNeeded(ctx, vault, name, of)
	}
	if err := c.confirm(ctx, "Change key %s in vault %s", name, vault); err != nil {
		return err
	}
	k, err := c.Vaults.UpdateKey(ctx, vault, name, version, spec)
	if err != nil || !c.flag("PassThru") {
		return err
	}
	return c.emit(keyObject(k))
}

func backupKey(ctx context.Context, c *Call) error {
	path := c.text("OutputFile")
	if err := c.confirm(ctx, "Write all versions of key %s in vault %s to file %s", c.text("Name"), c.text("VaultName"), path); err != nil {
		return err
	}
	f, err := files.OS.Create(path)
	if errors.Is(err, fs.ErrExist) {
		return fail.New(api.AlreadyExists, "file %s exists", path).WithHint("a backup does not overwrite a file; name another one")
	}
	if err != nil {
		return fail.New(api.InvalidArgument, "the backup cannot be written: %w", err)
	}
	backup, err := c.Vaults.BackupKey(ctx, c.text("VaultName"), c.text("Name"))
	if err == nil {
		if _, err = f.Write(backup); err == nil {
			err = f.Sync()
		}
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = files.OS.SyncFolder(filepath.Dir(path))
	}
	if err != nil {
		return errors.Join(err, files.OS.Remove(path))
	}
	return c.emit(path)
}

// readFile reads a file; what says in errors what it should contain.
func readFile(path, what string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, invalid("the %s cannot be read: %w", what, err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxBackup+1))
	if err != nil {
		return nil, invalid("the %s cannot be read: %w", what, err)
	}
	if len(raw) > maxBackup {
		return nil, fail.New(api.TooLarge, "file %s is not a valid %s: it has more than %d bytes", path, what, maxBackup)
	}
	return raw, nil
}

func restoreKey(ctx context.Context, c *Call) error {
	backup, err := readFile(c.text("InputFile"), "backup")
	if err != nil {
		return err
	}
	if err := c.confirm(ctx, "Restore a key into vault %s", c.text("VaultName")); err != nil {
		return err
	}
	return c.emitKey(c.Vaults.RestoreKey(ctx, c.text("VaultName"), backup))
}

func removeKey(ctx context.Context, c *Call) error {
	vault, name, ask := c.text("VaultName"), c.text("Name"), !c.flag("Force")
	c.warnNeeded(ctx, vault, name, "")
	if c.flag("InRemovedState") {
		if err := c.confirmIf(ctx, ask, "Destroy deleted key %s of vault %s with all its versions, irreversibly", name, vault); err != nil {
			return err
		}
		return c.Vaults.PurgeKey(ctx, vault, name)
	}
	if err := c.confirmIf(ctx, ask, "Delete key %s with all its versions from vault %s", name, vault); err != nil {
		return err
	}
	k, err := c.Vaults.RemoveKey(ctx, vault, name)
	if err != nil || !c.flag("PassThru") {
		return err
	}
	return c.emit(keyObject(k))
}

func undoRemoval(ctx context.Context, c *Call) error {
	vault, name := c.text("VaultName"), c.text("Name")
	if err := c.confirm(ctx, "Recover key %s in vault %s", name, vault); err != nil {
		return err
	}
	return c.emitKey(c.Vaults.RecoverKey(ctx, vault, name))
}
