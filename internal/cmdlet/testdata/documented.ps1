# The command lines of the Customer Key documentation (the pages set up, manage and roll, the copies of 2018 to 2022), as they are
# printed, in an order in which they can be run. A block is one text and begins with its name. The overview prints no command line,
# nor does the page about the availability key, but for its draft of 2019: set-permanentdatapurgerequest TRUE names no policy, and
# gave way to the Set-DataEncryptionPolicy of the page manage, which is here.
# Tests put values in place of what stands in angle or square brackets, and of the key versions of the examples.

# connect
$UserCredential = Get-Credential
$Session = New-PSSession -ConfigurationName Microsoft.Exchange -ConnectionUri https://outlook.office365.com/powershell-liveid/ -Credential $UserCredential -Authentication Basic -AllowRedirection
Import-PSSession $Session

# register for a mandatory retention period
Set-AzContext -SubscriptionId <SubscriptionId>
Register-AzProviderFeature -FeatureName mandatoryRetentionPeriodEnabled -ProviderNamespace Microsoft.Resources

# register for a mandatory retention period, 2019
Register-AzureRmProviderFeature -FeatureName mandatoryRetentionPeriodEnabled -ProviderNamespace Microsoft.Resources

# verify the status of the subscription
Get-AzProviderFeature -ProviderNamespace Microsoft.Resources -FeatureName mandatoryRetentionPeriodEnabled

# verify the status of the subscription, 2019
Get-AzureRmProviderFeature -ProviderNamespace Microsoft.Resources -FeatureName mandatoryRetentionPeriodEnabled

# complete the registration
Register-AzResourceProvider -ProviderNamespace Microsoft.KeyVault

# complete the registration, 2019
Register-AzureRmResourceProvider -ProviderNamespace "Microsoft.KeyVault"

# administrators of a vault
Set-AzKeyVaultAccessPolicy -VaultName <vault name> -UserPrincipalName <UPN of user> -PermissionsToKeys create,import,list,get,backup,restore

# administrators of a vault, example
Set-AzKeyVaultAccessPolicy -VaultName Contoso-CK-EX-NA-VaultA1 -UserPrincipalName alice@contoso.com -PermissionsToKeys create,import,list,get,backup,restore

# administrators of a vault, 2019
Set-AzureRmKeyVaultAccessPolicy -VaultName <vaultname> -UserPrincipalName <UPN of user> -PermissionsToKeys create,import,list,get,backup,restore

# administrators of a vault, example of 2019
Set-AzureRmKeyVaultAccessPolicy -VaultName Contoso-O365EX-NA-VaultA1 -UserPrincipalName alice@contoso.com -PermissionsToKeys create,import,list,get,backup,restore

# permissions of the service
Set-AzKeyVaultAccessPolicy -VaultName <vault name> -PermissionsToKeys wrapKey,unwrapKey,get -ServicePrincipalName <Office 365 appID>

# permissions of the service, Exchange
Set-AzKeyVaultAccessPolicy -VaultName Contoso-CK-EX-NA-VaultA1 -PermissionsToKeys wrapKey,unwrapKey,get -ServicePrincipalName 00000002-0000-0ff1-ce00-000000000000

# permissions of the service, SharePoint
Set-AzKeyVaultAccessPolicy -VaultName Contoso-CK-SP-NA-VaultA1 -PermissionsToKeys wrapKey,unwrapKey,get -ServicePrincipalName 00000003-0000-0ff1-ce00-000000000000

# permissions of the service, Exchange, 2019
Set-AzureRmKeyVaultAccessPolicy -VaultName Contoso-O365EX-NA-VaultA1 -PermissionsToKeys wrapKey,unwrapKey,get -ServicePrincipalName 00000002-0000-0ff1-ce00-000000000000

# permissions of the service, SharePoint, 2019
Set-AzureRmKeyVaultAccessPolicy -VaultName Contoso-O365SP-NA-VaultA1 -PermissionsToKeys wrapKey,unwrapKey,get -ServicePrincipalName 00000003-0000-0ff1-ce00-000000000000

# confirm the permissions
Get-AzKeyVault -VaultName <vault name> | fl

# confirm the permissions, example
Get-AzKeyVault -VaultName mmcexchangevault | fl

# enable soft delete
$v = Get-AzKeyVault -VaultName <vault name>
$r = Get-AzResource -ResourceId $v.ResourceId
$r.Properties | Add-Member -MemberType NoteProperty -Name enableSoftDelete -Value 'True'
Set-AzResource -ResourceId $r.ResourceId -Properties $r.Properties

# enable soft delete, 2019
$v = Get-AzureRmKeyVault -VaultName <vaultname>
$r = Get-AzureRmResource -ResourceId $v.ResourceId
$r.Properties | Add-Member -MemberType NoteProperty -Name enableSoftDelete -Value 'True'
Set-AzureRmResource -ResourceId $r.ResourceId -Properties $r.Properties

# confirm soft delete, 2019
Get-AzureRmKeyVault -VaultName <vaultname> | fl

# add a key
Add-AzKeyVaultKey -VaultName <vault name> -Name <key name> -Destination <HSM|Software> -KeyOps wrapKey,unwrapKey

# add a key, example
Add-AzKeyVaultKey -VaultName Contoso-CK-EX-NA-VaultA1 -Name Contoso-CK-EX-NA-VaultA1-Key001 -Destination HSM -KeyOps wrapKey,unwrapKey

# add a key, 2019
Add-AzureKeyVaultKey -VaultName <vaultname> -Name <keyname> -Destination <HSM|Software> -KeyOps wrapKey,unwrapKey

# add a key, example of 2019
Add-AzureKeyVaultKey -VaultName Contoso-O365EX-NA-VaultA1 -Name Contoso-O365EX-NA-VaultA1-Key001 -Destination Software -KeyOps wrapKey,unwrapKey

# check the recovery level
(Get-AzKeyVaultKey -VaultName <vault name> -Name <key name>).Attributes

# check the recovery level, 2019
(Get-AzureKeyVaultKey -VaultName <vaultname> -Name <keyname>).Attributes

# back up
Backup-AzKeyVaultKey -VaultName <vault name> -Name <key name>
-OutputFile <filename.backup>

# back up, example
Backup-AzKeyVaultKey -VaultName Contoso-CK-EX-NA-VaultA1 -Name Contoso-CK-EX-NA-VaultA1-Key001 -OutputFile Contoso-CK-EX-NA-VaultA1-Key001-Backup-20170802.backup

# back up, 2019
Backup-AzureKeyVaultKey -VaultName <vaultname> -Name <keyname>
-OutputFile <filename .backup>

# back up, example of 2019
Backup-AzureKeyVaultKey -VaultName Contoso-O365EX-NA-VaultA1 -Name Contoso-O365EX-NA-VaultA1-Key001 -OutputFile Contoso-O365EX-NA-VaultA1-Key001-Backup-20170802.backup

# validate the settings
Get-AzKeyVault -VaultName <vault name>

# validate the settings, 2019
Get-AzureRMKeyVault -VaultName <vaultname>

# correct the permissions, Exchange
Set-AzKeyVaultAccessPolicy -VaultName Contoso-CK-EX-NA-VaultA1 
-PermissionsToKeys wrapKey,unwrapKey,get -ServicePrincipalName 00000002-0000-0ff1-ce00-000000000000

# correct the permissions, SharePoint
Set-AzKeyVaultAccessPolicy -VaultName Contoso-CK-SP-NA-VaultA1
-PermissionsToKeys wrapKey,unwrapKey,get -ServicePrincipalName 00000003-0000-0ff1-ce00-000000000000

# correct the permissions, 2019
Set-AzureRmKeyVaultAccessPolicy -VaultName <vaultname> -PermissionsToKeys wrapKey,unwrapKey,get -ServicePrincipalName <Office 365 appID>

# correct the permissions, Exchange, 2019
Set-AzureRmKeyVaultAccessPolicy -VaultName Contoso-O365EX-NA-VaultA1 
-PermissionsToKeys wrapKey,unwrapKey,get -ServicePrincipalName 00000002-0000-0ff1-ce00-000000000000

# correct the permissions, SharePoint, 2019
Set-AzureRmKeyVaultAccessPolicy -VaultName Contoso-O365SP-NA-VaultA1
-PermissionsToKeys wrapKey,unwrapKey,get -ServicePrincipalName TBD

# verify expiry
Get-AzKeyVaultKey -VaultName <vault name>

# verify expiry, 2019
Get-AzureKeyVaultKey -VaultName <vaultname>

# change expiry
Update-AzKeyVaultKey -VaultName <vault name> -Name <key name> -Expires (Get-Date -Date "12/31/9999")

# change expiry, 2019
Set-AzureKeyVaultKeyAttribute -VaultName <vaultname> -Name <keyname>
-Expires (Get-Date -Date "12/31/9999")

# obtain the URI
(Get-AzKeyVaultKey -VaultName <vault name>).Id

# obtain the URI, 2019
(Get-AzureKeyVaultKey -VaultName <vaultname>).Id

# multi-workload policy
New-M365DataAtRestEncryptionPolicy -Name <PolicyName> -AzureKeyIDs <KeyVaultURI1, KeyVaultURI2> [-Description <String>]

# multi-workload policy, example
New-M365DataAtRestEncryptionPolicy -Name "Contoso_Global" -AzureKeyIDs "https://contosoWestUSvault1.vault.azure.net/keys/Key_01","https://contosoCentralUSvault1.vault.azure.net/keys/Key_02" -Description "Policy for multiple workloads for all users in the tenant."

# assign the multi-workload policy
Set-M365DataAtRestEncryptionPolicyAssignment -DataEncryptionPolicy <PolicyName or ID>

# assign the multi-workload policy, example
Set-M365DataAtRestEncryptionPolicyAssignment -DataEncryptionPolicy "Contoso_Global"

# mailbox policy
New-DataEncryptionPolicy -Name <PolicyName> -Description "Policy Description" -AzureKeyIDs <KeyVaultURI1>, <KeyVaultURI2>

# mailbox policy, example
New-DataEncryptionPolicy -Name USA_mailboxes -Description "Root key for mailboxes in USA and its territories" -AzureKeyIDs https://contoso_EastUSvault02.vault.azure.net/keys/USA_key_01, https://contoso_CentralUSvault02.vault.azure.net/keys/USA_Key_02

# assign a policy to a mailbox
Set-Mailbox -Identity <MailboxIdParameter> -DataEncryptionPolicy <PolicyName>

# assign a policy to a mail user
Set-MailUser -Identity <MailUserIdParameter> -DataEncryptionPolicy <PolicyName>

# site policy
Register-SPODataEncryptionPolicy -PrimaryKeyVaultName <PrimaryKeyVaultName> -PrimaryKeyName <PrimaryKeyName> -PrimaryKeyVersion <PrimaryKeyVersion> -SecondaryKeyVaultName <SecondaryKeyVaultName> -SecondaryKeyName <SecondaryKeyName> -SecondaryKeyVersion <SecondaryKeyVersion>

# see the mailbox policies
Get-DataEncryptionPolicy

# assign a policy before a migration
Set-MailUser -Identity <GeneralMailboxOrMailUserIdParameter> -DataEncryptionPolicy <DataEncryptionPolicyIdParameter>

# policy of a mailbox
Get-MailboxStatistics -Identity <GeneralMailboxOrMailUserIdParameter> | fl DataEncryptionPolicyID

# name of the policy of a mailbox
Get-DataEncryptionPolicy <GUID>

# verify the encryption of a mailbox
Get-MailboxStatistics -Identity <GeneralMailboxOrMailUserIdParameter> | fl IsEncrypted

# move a mailbox
New-MoveRequest <mailbox alias>

# verify the encryption of sites
Get-SPODataEncryptionPolicy <SPOAdminSiteUrl>

# see the multi-workload policies
Get-M365DataAtRestEncryptionPolicy

# see a multi-workload policy
Get-M365DataAtRestEncryptionPolicy -Identity "Contoso_Global"

# see the assignment
Get-M365DataAtRestEncryptionPolicyAssignment

# disable a multi-workload policy
Set-M365DataAtRestEncryptionPolicy -[Identity] "PolicyName" -Enabled $false

# restore a key
Restore-AzKeyVaultKey -VaultName <vault name> -InputFile <filename>

# restore a key, example
Restore-AzKeyVaultKey -VaultName Contoso-O365EX-NA-VaultA1 -InputFile Contoso-O365EX-NA-VaultA1-Key001-Backup-20170802.backup

# see the permissions of a vault
Get-AzKeyVault -VaultName <vault name>

# see the permissions of a vault, example
Get-AzKeyVault -VaultName Contoso-O365EX-NA-VaultA1

# remove an administrator
Remove-AzKeyVaultAccessPolicy -VaultName <vault name> -UserPrincipalName <UPN of user>

# remove an administrator, example
Remove-AzKeyVaultAccessPolicy -VaultName Contoso-O365EX-NA-VaultA1 -UserPrincipalName alice@contoso.com

# roll: add a version
Add-AzKeyVaultKey -VaultName Contoso-CK-EX-NA-VaultA1 -Name Contoso-CK-EX-NA-VaultA1-Key001 -Destination HSM -KeyOps @('wrapKey','unwrapKey') -NotBefore (Get-Date -Date "12/27/2016 12:01 AM")

# roll: multi-workload
Set-M365DataAtRestEncryptionPolicy -[Identity] "PolicyName" -Refresh

# roll: multi-workload, example
Set-M365DataAtRestEncryptionPolicy -Identity "Contoso_Global" -Refresh

# roll: mailboxes
Set-DataEncryptionPolicy -Identity <DataEncryptionPolicyID> -Refresh

# roll: sites, primary
Update-SPODataEncryptionPolicy  <SPOAdminSiteUrl> -KeyVaultName <ReplacementKeyVaultName> -KeyName <ReplacementKeyName> -KeyVersion <ReplacementKeyVersion> -KeyType <Primary | Secondary>

# roll: sites, secondary
Update-SPODataEncryptionPolicy -KeyVaultName <ReplacementKeyVaultName> -KeyVaultType < KeyVault | ManagedHSM> -KeyName <ReplacementKeyName> -KeyVersion <ReplacementKeyVersion> -KeyType <Primary | Secondary> 

# roll: progress
Get-SPODataEncryptionPolicy <SPOAdminSiteUrl>

# disable a multi-workload policy, example
Set-M365DataAtRestEncryptionPolicy -Identity "Contoso_Global" -Enabled $false

# back to the service's keys
Set-Mailbox -Identity <mailbox> -DataEncryptionPolicy $null

# purge
Set-DataEncryptionPolicy <Policy ID> -PermanentDataPurgeRequested -PermanentDataPurgeReason <Reason> -PermanentDataPurgeContact <ContactName>

# site policy, example
Register-SPODataEncryptionPolicy -PrimaryKeyVaultName 'stageRG3vault' -PrimaryKeyName 'SPKey3' -PrimaryKeyVersion 'f635a23bd4a44b9996ff6aadd88d42ba' -SecondaryKeyVaultName 'stageRG5vault' -SecondaryKeyName 'SPKey5' -SecondaryKeyVersion '2b3e8f1d754f438dacdec1f0945f251a'

# site policy, 2019
Register-SPODataEncryptionPolicy -Identity <SPOAdminSiteUrl> -PrimaryKeyVaultName <PrimaryKeyVaultName> -PrimaryKeyName <PrimaryKeyName> -PrimaryKeyVersion <PrimaryKeyVersion> -SecondaryKeyVaultName <SecondaryKeyVaultName> -SecondaryKeyName <SecondaryKeyName> -SecondaryKeyVersion <SecondaryKeyVersion>
