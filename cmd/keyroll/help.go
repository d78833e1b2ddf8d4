package main

import "strings"

// What --help says below the first line of a command: what the flags do not
// tell, and an example that runs.

func (*serveCommand) Help() string {
	return help("The data folder is made at first start. Once ready, server.json in it tells the other commands where the server is. "+
		"On SIGTERM and Ctrl-C running requests are finished; a roll goes on at the next start.\n\n"+
		"A request without a valid token is cut after 30 seconds; any other has to transfer 1 KiB a second, and may pause for a minute. "+
		"When there are too many connections, the oldest one that has authenticated nothing makes way. keyroll's own calls to its vaults are never held up.",
		"keyroll serve --data /var/lib/keyroll",
		"KEYROLL_DATABASE='postgres://keyroll@db.contoso.com/keyroll?sslmode=verify-full' keyroll serve --data /var/lib/keyroll",
		"keyroll serve --listen 10.0.0.5:8443 --trusted-proxy 10.0.0.2 --trusted-proxy 10.0.0.3",
		"keyroll serve --data lab --vault-domain vault.azure.net")
}

func (*waitCommand) Help() string {
	return help("Returns as soon as the server answers requests; fails when the time is up.",
		"keyroll serve --data lab 2> serve.log & keyroll wait --data lab")
}

func (versionCommand) Help() string { return help("", "keyroll version -o json") }

func (*demoCommand) Help() string {
	return help("Everything runs in this process: two pairs of embedded vaults, a mailbox policy and a site policy, the documented rolls of both, "+
		"while content is read. It ends with a proof and exits 1 if anything came out other than it went in. "+
		"keyroll serve --data DIR opens the folder that it leaves.",
		"keyroll demo",
		"keyroll demo --mail inbox.mbox --files ~/Documents --data demo-data")
}

func (*shellCommand) Help() string {
	return help("Get-Command lists the cmdlets, Get-Help NAME explains one. A text is checked whole before any of it runs; a failing statement ends it. "+
		"With -o json each object is one line.",
		"keyroll shell -c 'Get-MailboxStatistics -Identity alice@contoso.com | fl DataEncryptionPolicyID'",
		"keyroll shell roll.ps1")
}

func (*mailboxCreate) Help() string {
	return help("Without a policy of its own a mailbox stands under the multi-workload policy that is assigned, or else under the service-managed one. "+
		"Set-Mailbox in the shell assigns one later.",
		"keyroll mailbox create alice@contoso.com --policy USA_mailboxes")
}

func (*mailboxImport) Help() string {
	return help("Messages are kept byte for byte, malformed ones too; they are added to what the mailbox holds. "+
		"An import that is interrupted says how many messages are stored; the same command again continues after them.",
		"keyroll mailbox import alice@contoso.com inbox.mbox",
		"keyroll mailbox import --format mboxcl2 alice@contoso.com inbox.mbox",
		"keyroll mailbox import alice@contoso.com -")
}

func (*mailboxExport) Help() string {
	return help("The messages come out as they went in. Reading brings a mailbox that is not active to its policy's newest key.",
		"keyroll mailbox export alice@contoso.com")
}

func (*mailboxList) Help() string {
	return help("The DataEncryptionPolicyID changes once a mailbox has the refreshed key.", "keyroll mailbox list -o json")
}

func (*mailboxShow) Help() string { return help("", "keyroll mailbox show alice@contoso.com") }

func (*mailboxState) Help() string {
	return help("A roll brings active mailboxes over; the others keep the key that they have until they are read or written.",
		"keyroll mailbox state alice@contoso.com inactive")
}

func (*siteCreate) Help() string {
	return help("A site stands in the geo of its host. The geo's site policy, once registered, covers it.", "keyroll site create https://contoso.sharepoint.com/sites/legal")
}

func (*sitePut) Help() string {
	return help("A file of any size is stored whole or not at all.",
		"keyroll site put https://contoso.sharepoint.com/sites/legal contract.pdf 2026/contract.pdf",
		"keyroll site put https://contoso.sharepoint.com/sites/legal - notes.txt")
}

func (*siteGet) Help() string {
	return help("Only the part that is asked for is decrypted.",
		"keyroll site get https://contoso.sharepoint.com/sites/legal 2026/contract.pdf",
		"keyroll site get https://contoso.sharepoint.com/sites/legal disk.img --offset 1048576 --length 4096")
}

func (*siteLs) Help() string {
	return help("", "keyroll site ls https://contoso.sharepoint.com/sites/legal")
}

func (*siteList) Help() string { return help("", "keyroll site list -o json") }

func (*siteShow) Help() string {
	return help("", "keyroll site show https://contoso.sharepoint.com/sites/legal")
}

func (*policyList) Help() string {
	return help("The shell makes policies: New-DataEncryptionPolicy for mailboxes, New-M365DataAtRestEncryptionPolicy for several workloads, "+
		"Register-SPODataEncryptionPolicy for sites.", "keyroll policy list")
}

func (*policyShow) Help() string { return help("", "keyroll policy show USA_mailboxes") }

func (*policyRefresh) Help() string {
	return help("Add a version to one of the policy's keys first; with no newer version nothing is changed, unless --include-inactive asks for a sweep "+
		"or the roll before was cancelled: then what is not under the current policy key comes there. The answer comes at once, the roll goes on in the background: "+
		"keyroll roll watch follows it. Depth root touches no mailbox, and so its limit: who holds an old copy of the wrap and the old key version "+
		"still opens what the policy key protects. Depths container and content do their work without a newer version too, for site policies under the "+
		"exact versions that these name; depth content stores twice, for a moment, what it is working on: at most 32 MiB for each of a node's units.",
		"keyroll policy refresh USA_mailboxes",
		"keyroll policy refresh USA_mailboxes --depth root --all-generations",
		"keyroll policy refresh USA_mailboxes --depth content --bytes-per-second 20000000",
		"keyroll policy refresh USA_mailboxes --include-inactive --dry-run",
		"keyroll policy refresh USA_mailboxes --containers-per-second 2000 --deadline 24h")
}

func (*policyUpdate) Help() string {
	return help("One key at a time: while a roll of the policy runs, another is refused with the progress of the first.",
		"keyroll policy update Sites --key-type primary --key https://stageRG3vault.vault.azure.net/keys/SPKey3/46a0c7b9a1d245d4a8a7b5a6b1c2d3e4")
}

func (*rollList) Help() string { return help("", "keyroll roll list") }
func (*rollShow) Help() string {
	return help("keyroll roll list shows the ids.", "keyroll roll show 1763959200123456")
}

func (*rollWatch) Help() string {
	return help("A bar on a terminal, elsewhere a line every two seconds, with the rate, the time left, the nodes at work, retries and what was skipped. "+
		"With -o json standard output has the roll as one line whenever something has changed, once a second at most; the last line is how it ended. "+
		"It ends when the roll no longer runs; Ctrl-C ends the watching, not the roll.",
		"keyroll roll watch 1763959200123456",
		"keyroll roll watch -o json 1763959200123456")
}

func (*rollPause) Help() string {
	return help("What has come over stays; everything remains readable.", "keyroll roll pause 1763959200123456")
}

func (*rollResume) Help() string { return help("", "keyroll roll resume 1763959200123456") }

func (*rollCancel) Help() string {
	return help("Only a roll that has brought nothing over yet can be cancelled, and only one whose policy covers as before without it; "+
		"any other is refused with the reason and what to do instead. The new policy key stays current, and what stands under older ones stays readable; "+
		"a later refresh brings it over.",
		"keyroll roll cancel 1763959200123456")
}

func (*keyUsage) Help() string {
	return help("\"in use\" means that something keyroll stores is wrapped by the key version; \"safe to retire\", that nothing is any more. "+
		"Each policy key is wrapped by both keys of its policy, and either opens it.",
		"keyroll key usage",
		"keyroll key usage --vault Contoso-O365EX-NA-VaultA1 -o json")
}

func (*verifyCommand) Help() string {
	return help("With no server running it opens the data folder itself, of every tenant unless one is named, and starts the embedded vault on a free loopback port; --database, --blobs, --seal and --availability are then those of serve. "+
		"What a rule keeps shut is closed; what should open and does not is damaged, named, and exit status 1.",
		"keyroll verify",
		"keyroll verify --policy USA_mailboxes",
		"keyroll verify --data demo-data --require-open")
}

func (*databaseMove) Help() string {
	return help("With no server running, every table is copied and read again on both sides. Then keyroll.db in the data folder is marked as moved: no server "+
		"opens it any more. Until that moment it is the one to use, and the target is refused; what was interrupted is begun anew by the same command.",
		"keyroll database move --to postgres:///keyroll?host=/run/postgresql",
		"PGPASSFILE=/etc/keyroll/pgpass keyroll database move --data /var/lib/keyroll --to 'postgres://keyroll@db.contoso.com/keyroll?sslmode=verify-full'")
}

func (*benchRoll) Help() string {
	return help("Interleaved rounds in one run, on the same database, disk, driver and durability; every key is opened again at the end, or all content read. "+
		"Figures are medians with their range, ratios those of the ratios within each round.",
		"keyroll bench roll --containers 200000 -o json",
		"keyroll bench roll --depth content --database postgres:///keyroll?host=/run/postgresql")
}

func (*benchGrowth) Help() string {
	return help("A policy each of 1,000, 10,000, 100,000 mailboxes and so on; each is rolled at depth policy, then at depth root, in interleaved rounds of one run.",
		"keyroll bench growth --containers 10000000")
}

func (*benchReaders) Help() string {
	return help("In each round a roll runs alone and free; then messages are read by a client at a steady pace, at rest and while rolls held to half that rate follow each other. "+
		"A read counts from the moment that it was due.",
		"keyroll bench readers --depth content")
}

func (*benchContent) Help() string {
	return help("A file goes into a site and comes out again, in interleaved rounds beside io.Copy with fsync on the same disk. Client and node are one process on the same cores, with TLS between them.",
		"keyroll bench content --size 1GiB -o json")
}

// help is a paragraph, unless it is empty, and examples.
func help(text string, examples ...string) string {
	var b strings.Builder
	if text != "" {
		b.WriteString(text + "\n\n")
	}
	b.WriteString("Example:\n\n")
	for _, line := range examples {
		b.WriteString("    " + line + "\n")
	}
	return b.String()
}
