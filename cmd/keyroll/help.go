package main

import "keyroll/internal/terminal"

// The text that --help prints below the first line of a command: what the help of
// the flags does not say, and examples that parse.

func (*serveCommand) Help() string {
	return terminal.Help("The data folder is created at the first start. Once the server is ready, the other commands find its address in server.json in that folder. "+
		"On SIGTERM and Ctrl-C the server finishes running requests and stops; an unfinished roll continues at the next start.\n\n"+
		"A request without a valid token is cut off after 30 seconds; every other one has to transfer 1 KiB a second, and may pause for a minute. "+
		"When there are too many connections, the oldest one without an authenticated request is closed. keyroll's own calls to its vaults are exempt from these limits.",
		"keyroll serve --data /var/lib/keyroll",
		"KEYROLL_DATABASE='postgres://keyroll@db.contoso.com/keyroll?sslmode=verify-full' keyroll serve --data /var/lib/keyroll",
		"keyroll serve --listen 10.0.0.5:8443 --trusted-proxy 10.0.0.2 --trusted-proxy 10.0.0.3",
		"keyroll serve --data lab --vault-domain vault.azure.net")
}

func (*waitCommand) Help() string {
	return terminal.Help("Returns as soon as the server answers requests; fails when the time is up.",
		"keyroll wait --data lab")
}

func (versionCommand) Help() string {
	return terminal.Help("keyroll --version does the same.", "keyroll version -o json")
}

func (*demoCommand) Help() string {
	return terminal.Help("Everything runs in this process: two pairs of embedded vaults, a mailbox policy and a site policy, the documented rolls of both, "+
		"while content is read. It ends with a proof and exits 1 if any content that is read back differs from the content that was stored. "+
		"keyroll serve --data DIR serves the folder that it leaves behind.",
		"keyroll demo",
		"keyroll demo --mail inbox.mbox --files ~/Documents --data demo-data")
}

func (*shellCommand) Help() string {
	return terminal.Help("Get-Command lists the cmdlets, Get-Help NAME explains one. The syntax of a script is checked before any of it runs; a statement that fails ends the script. "+
		"With -o json each object is one line.",
		"keyroll shell -c 'Get-MailboxStatistics -Identity alice@contoso.com | fl DataEncryptionPolicyID'",
		"keyroll shell roll.ps1")
}

func (*mailboxCreate) Help() string {
	return terminal.Help("A mailbox without a policy of its own is under the multi-workload policy that is assigned to the tenant, or else under the service-managed policy. "+
		"Set-Mailbox in the shell assigns one later.",
		"keyroll mailbox create alice@contoso.com --policy USA_mailboxes")
}

func (*mailboxImport) Help() string {
	return terminal.Help("Messages are stored byte for byte, malformed ones too; they are added to those in the mailbox. "+
		"An import that is interrupted says how many messages are stored; the same command again continues after them.",
		"keyroll mailbox import alice@contoso.com inbox.mbox",
		"keyroll mailbox import --format mboxcl2 alice@contoso.com inbox.mbox",
		"keyroll mailbox import alice@contoso.com -")
}

func (*mailboxExport) Help() string {
	return terminal.Help("The messages are written byte for byte as they were imported. Reading a mailbox that is not active re-wraps its key under the newest key of its policy.",
		"keyroll mailbox export alice@contoso.com")
}

func (*mailboxList) Help() string {
	return terminal.Help("The DataEncryptionPolicyID changes once a mailbox has the refreshed key.", "keyroll mailbox list -o json")
}

func (*mailboxShow) Help() string { return terminal.Help("", "keyroll mailbox show alice@contoso.com") }

func (*mailboxState) Help() string {
	return terminal.Help("A roll re-wraps the keys of active mailboxes; the keys of all others are re-wrapped when the mailbox is next read or written.",
		"keyroll mailbox state alice@contoso.com inactive")
}

func (*siteCreate) Help() string {
	return terminal.Help("A site belongs to the geo of its host. The geo's site policy, once registered, protects it.", "keyroll site create https://contoso.sharepoint.com/sites/legal")
}

func (*sitePut) Help() string {
	return terminal.Help("A file of any size is stored whole or not at all.",
		"keyroll site put https://contoso.sharepoint.com/sites/legal contract.pdf 2026/contract.pdf",
		"keyroll site put https://contoso.sharepoint.com/sites/legal - notes.txt")
}

func (*siteGet) Help() string {
	return terminal.Help("Only the requested part is decrypted.",
		"keyroll site get https://contoso.sharepoint.com/sites/legal 2026/contract.pdf",
		"keyroll site get https://contoso.sharepoint.com/sites/legal disk.img --offset 1048576 --length 4096")
}

func (*siteLs) Help() string {
	return terminal.Help("", "keyroll site ls https://contoso.sharepoint.com/sites/legal")
}

func (*siteList) Help() string { return terminal.Help("", "keyroll site list -o json") }

func (*siteShow) Help() string {
	return terminal.Help("", "keyroll site show https://contoso.sharepoint.com/sites/legal")
}

func (*policyList) Help() string {
	return terminal.Help("Policies are created in keyroll shell: New-DataEncryptionPolicy for mailboxes, New-M365DataAtRestEncryptionPolicy for several workloads, "+
		"Register-SPODataEncryptionPolicy for sites.", "keyroll policy list")
}

func (*policyShow) Help() string { return terminal.Help("", "keyroll policy show USA_mailboxes") }

func (*policyRefresh) Help() string {
	return terminal.Help("Add a version to one of the policy's keys first; without a newer version nothing is changed, except with --include-inactive, "+
		"or if the previous roll was cancelled: then all that is not under the current policy key is moved there. The command returns at once and the roll runs in the background: "+
		"keyroll roll watch follows it. Depth root changes no mailbox, which limits what it protects against: anyone with an old copy of the wrapped policy key and the old key version "+
		"can still decrypt all that the policy key protects. Depths container and content also roll without a newer version; for site policies, under the "+
		"exact versions that the policy names. Depth content stores the content that it is working on twice for a moment: at most 64 MiB for each core of a node.",
		"keyroll policy refresh USA_mailboxes",
		"keyroll policy refresh USA_mailboxes --depth root --all-generations",
		"keyroll policy refresh USA_mailboxes --depth content --bytes-per-second 20000000",
		"keyroll policy refresh USA_mailboxes --include-inactive --dry-run",
		"keyroll policy refresh USA_mailboxes --containers-per-second 2000 --deadline 24h")
}

func (*policyUpdate) Help() string {
	return terminal.Help("Replaces one key at a time: while a roll of the policy runs, another update is refused, with the progress of the running roll.",
		"keyroll policy update Sites --key-type primary --key https://stageRG3vault.vault.azure.net/keys/SPKey3/46a0c7b9a1d245d4a8a7b5a6b1c2d3e4")
}

func (*rollList) Help() string { return terminal.Help("", "keyroll roll list") }
func (*rollShow) Help() string {
	return terminal.Help("keyroll roll list shows the ids.", "keyroll roll show 1763959200123456")
}

func (*rollWatch) Help() string {
	return terminal.Help("Shows a bar on a terminal, elsewhere a line every two seconds, with the rate, the time left, the number of nodes at work, of retries and of skipped items. "+
		"With -o json it prints the roll as one line whenever something has changed, at most once a second; the last line shows how the roll ended. "+
		"It returns when the roll no longer runs; Ctrl-C stops watching, not the roll.",
		"keyroll roll watch 1763959200123456",
		"keyroll roll watch -o json 1763959200123456")
}

func (*rollPause) Help() string {
	return terminal.Help("Keys that have been moved stay where they are; everything remains readable.", "keyroll roll pause 1763959200123456")
}

func (*rollResume) Help() string { return terminal.Help("", "keyroll roll resume 1763959200123456") }

func (*rollCancel) Help() string {
	return terminal.Help("Only a roll that has moved nothing yet can be cancelled, and only if its policy protects the same content without it; "+
		"otherwise the command is refused, with the reason and what to do instead. The new policy key stays current, and content under older ones stays readable; "+
		"a later refresh moves it.",
		"keyroll roll cancel 1763959200123456")
}

func (*keyUsage) Help() string {
	return terminal.Help("\"in use\" means that something keyroll stores is wrapped by the key version; \"safe to retire\" means that nothing is any more. "+
		"Each policy key is wrapped by both keys of its policy, and either of them can unwrap it.",
		"keyroll key usage",
		"keyroll key usage --vault Contoso-O365EX-NA-VaultA1 -o json")
}

func (*verifyCommand) Help() string {
	return terminal.Help("Without a running server it opens the data folder itself, verifies every tenant (or the one that --tenant names), and starts the embedded vault on a free loopback port; --database, --blobs, --seal and --availability are then needed as for serve. "+
		"It lists data that is inaccessible by policy, and data that is damaged: that should decrypt and does not. Damage makes the exit status 1.",
		"keyroll verify",
		"keyroll verify --policy USA_mailboxes",
		"keyroll verify --data demo-data --require-open")
}

func (*databaseMove) Help() string {
	return terminal.Help("Run it while no server runs. It copies every table and compares both sides row by row, then marks keyroll.db in the data folder as moved: no server "+
		"opens it any more. Until then keyroll.db is the valid database, and servers refuse the target; after an interruption, run the same command again.",
		"keyroll database move --to postgres:///keyroll?host=/run/postgresql",
		"PGPASSFILE=/etc/keyroll/pgpass keyroll database move --data /var/lib/keyroll --to 'postgres://keyroll@db.contoso.com/keyroll?sslmode=verify-full'")
}
