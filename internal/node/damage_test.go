package node_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/container"
	"keyroll/internal/longtest"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// site2 is a second site of the tenant; leaving is a policy whose purge was requested.
const (
	site2    = "https://contoso.sharepoint.com/sites/two"
	mailUser = "erin@contoso.com"
	leaving  = "Leaving"
)

// damagedNode is a running keyroll with rows in every table, and the actions of users.
type damagedNode struct {
	*nodetest.World
	t       *testing.T
	other   *nodetest.World // of another tenant
	message string          // id of alice's first message
	n       int
}

func newDamagedNode(t *testing.T) *damagedNode {
	w := &damagedNode{World: nodetest.Start(t, node.Options{PageSlots: 4}), t: t}
	w.StageMail()
	w.StageSites()
	w.CreateMany(container.Mailbox, []string{alice, bob}, nodetest.MailboxPolicy) // on one key page
	w.CreateMany(container.Mailbox, []string{carol, dave}, "")
	for _, name := range []string{alice, bob, carol} {
		w.Import(name, "From a Thu Jan  1 00:00:00 2026\nSubject: one\n\nbody\n\nFrom a Thu Jan  1 00:00:00 2026\nSubject: two\n\nbody\n")
	}
	w.SetState(carol, api.Inactive)
	var user api.CreateMailboxInput
	user.Body.Name, user.Body.Type, user.Body.ExternalAddress = mailUser, api.MailUser, "erin@old.example"
	w.requireNoError(ignore(w.Client.CreateMailbox(t.Context(), user)))
	var geo api.CreateGeoInput
	geo.Body.Name, geo.Body.Hosts = "Europe", []string{"contosoEU.sharepoint.com"}
	w.requireNoError(ignore(w.Client.CreateGeo(t.Context(), geo)))
	w.Site(site)
	w.Site(site2)
	w.Put(site, "a", bytes.Repeat([]byte("a"), 300_000))
	w.Put(site, "b", []byte("b"))
	w.Put(site2, "c", []byte("c"))
	w.StageWork()
	w.PutItem("chat-messages", "chat", []byte("hello"))
	w.RefreshMail()
	w.FinishRoll(nodetest.MailboxPolicy)
	w.Backup("mailbox", alice)
	w.Script(fmt.Sprintf("Set-AzKeyVaultAccessPolicy -VaultName %s -UserPrincipalName %s -PermissionsToKeys create", nodetest.VaultA1, alice))
	for _, v := range []string{"Leaving-1", "Leaving-2"} {
		w.Vault(v, access.Exchange.String())
	}
	w.Script(fmt.Sprintf("New-DataEncryptionPolicy -Name %s -AzureKeyIDs %s, %s", leaving, w.KeyURI("Leaving-1"), w.KeyURI("Leaving-2")))
	w.Approver("one")
	w.Revoke(access.Exchange.String(), "Leaving-1", "Leaving-2")
	w.RequestPurge(leaving)
	w.other = secondTenant(t, w.World)
	w.other.Mailbox(eve, "")
	w.other.Import(eve, "From a Thu Jan  1 00:00:00 2026\nSubject: eve\n\nbody\n")
	list, err := w.Client.ListMessages(t.Context(), api.ListMailboxItems{MailboxInput: api.MailboxInput{Mailbox: alice}})
	w.requireNoError(err)
	w.message = list.Items[0].ID
	w.Node.Upkeep.Wait()
	return w
}

func (w *damagedNode) requireNoError(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func ignore[T any](_ T, err error) error { return err }

// acts are actions of users; none of them affects another one.
var acts = map[string]func(ctx context.Context, w *damagedNode) error{
	"list mailboxes": func(ctx context.Context, w *damagedNode) error {
		return whole(w.Client.ListMailboxes(ctx, api.ListInput{}))
	},
	"show alice":      func(ctx context.Context, w *damagedNode) error { return show(ctx, w, alice) },
	"show bob":        func(ctx context.Context, w *damagedNode) error { return show(ctx, w, bob) },
	"show mail user":  func(ctx context.Context, w *damagedNode) error { return show(ctx, w, mailUser) },
	"export alice":    func(ctx context.Context, w *damagedNode) error { return ignore(exportMail(ctx, w.World, alice)) },
	"export bob":      func(ctx context.Context, w *damagedNode) error { return ignore(exportMail(ctx, w.World, bob)) },
	"export inactive": func(ctx context.Context, w *damagedNode) error { return ignore(exportMail(ctx, w.World, carol)) },
	"alice's messages": func(ctx context.Context, w *damagedNode) error {
		return whole(w.Client.ListMessages(ctx, api.ListMailboxItems{MailboxInput: api.MailboxInput{Mailbox: alice}}))
	},
	"read alice's first": func(ctx context.Context, w *damagedNode) error {
		return ignore(readAll(w.Client.ReadMessage(ctx, api.MessageInput{MailboxInput: api.MailboxInput{Mailbox: alice}, Message: w.message})))
	},
	"import": func(ctx context.Context, w *damagedNode) error {
		const mbox = "From a Thu Jan  1 00:00:00 2026\n\nx\n"
		return ignore(w.Client.ImportMail(ctx, api.ImportMailInput{MailboxInput: api.MailboxInput{Mailbox: dave}}, int64(len(mbox)), strings.NewReader(mbox)))
	},
	"new mailbox": func(ctx context.Context, w *damagedNode) error {
		w.n++
		var in api.CreateMailboxInput
		in.Body.Name, in.Body.Policy = fmt.Sprintf("new%d@contoso.com", w.n), nodetest.MailboxPolicy
		return ignore(w.Client.CreateMailbox(ctx, in))
	},
	"list approvals": func(ctx context.Context, w *damagedNode) error {
		return whole(w.Client.ListApprovals(ctx, api.ListApprovalsInput{}))
	},
	"list sites": func(ctx context.Context, w *damagedNode) error {
		return whole(w.Client.ListSites(ctx, api.ListInput{}))
	},
	"list files": func(ctx context.Context, w *damagedNode) error {
		return whole(w.Client.ListFiles(ctx, api.ListSiteFiles{SiteInput: api.SiteInput{Site: site}}))
	},
	"get a": func(ctx context.Context, w *damagedNode) error { return get(ctx, w, site, "a") },
	"get b": func(ctx context.Context, w *damagedNode) error { return get(ctx, w, site, "b") },
	"get c": func(ctx context.Context, w *damagedNode) error { return get(ctx, w, site2, "c") },
	"put": func(ctx context.Context, w *damagedNode) error {
		in := api.FileInput{SiteInput: api.SiteInput{Site: site2}, Path: "new"}
		return ignore(w.Client.PutFile(ctx, in, 1, strings.NewReader("x")))
	},
	"get item": func(ctx context.Context, w *damagedNode) error {
		return ignore(readAll(w.Client.GetWorkloadItem(ctx, api.WorkloadItemInput{WorkloadInput: api.WorkloadInput{Workload: "chat-messages"}, Item: "chat"})))
	},
	"list policies": func(ctx context.Context, w *damagedNode) error {
		return whole(w.Client.ListPolicies(ctx, api.ListInput{}))
	},
	"test policy": func(ctx context.Context, w *damagedNode) error {
		return ignore(w.Client.TestPolicy(ctx, api.PolicyInput{Policy: nodetest.MailboxPolicy}))
	},
	"list rolls": func(ctx context.Context, w *damagedNode) error {
		return whole(w.Client.ListRolls(ctx, api.ListInput{}))
	},
	"key usage": func(ctx context.Context, w *damagedNode) error {
		return whole(w.Client.ListKeyUsage(ctx, api.KeyUsageInput{}))
	},
	"list backups": func(ctx context.Context, w *damagedNode) error {
		return whole(w.Client.ListBackups(ctx, api.ListInput{}))
	},
	"list geos": func(ctx context.Context, w *damagedNode) error { return whole(w.Client.ListGeos(ctx, api.ListInput{})) },
	"list purges": func(ctx context.Context, w *damagedNode) error {
		return whole(w.Client.ListPurges(ctx, api.ListInput{}))
	},
	"show vault": func(_ context.Context, w *damagedNode) error {
		return ignore(w.TryScript("Get-AzKeyVault -VaultName " + nodetest.VaultA1))
	},
	"show key": func(_ context.Context, w *damagedNode) error {
		return ignore(w.TryScript(fmt.Sprintf("Get-AzKeyVaultKey -VaultName %s -Name %s", nodetest.VaultA1, nodetest.KeyOf(nodetest.VaultA1))))
	},
	"another tenant": func(ctx context.Context, w *damagedNode) error { return ignore(exportMail(ctx, w.other, eve)) },
}

// whole fails as damaged if a list could not show all entries.
func whole[T any](l api.List[T], err error) error {
	if err == nil && len(l.Damaged) > 0 {
		err = &api.Problem{Code: api.Damaged, Detail: strings.Join(l.Damaged, "; ")}
	}
	return err
}

func show(ctx context.Context, w *damagedNode, mailbox string) error {
	return ignore(w.Client.ShowMailbox(ctx, api.MailboxInput{Mailbox: mailbox}))
}

func get(ctx context.Context, w *damagedNode, site, path string) error {
	return ignore(getFile(ctx, w.World, api.FileInput{SiteInput: api.SiteInput{Site: site}, Path: path}))
}

// failures runs acts and returns the code and text of those that failed.
func (w *damagedNode) failures(names []string) map[string]string {
	failed := map[string]string{}
	for _, name := range names {
		if err := acts[name](w.t.Context(), w); err != nil {
			var p *api.Problem
			if errors.As(err, &p) {
				failed[name] = fmt.Sprintf("%s: %s", p.Code, p.Detail)
			} else {
				failed[name] = "?: " + err.Error()
			}
		}
	}
	return failed
}

// clearKeyCaches clears the node's caches of keys.
func (w *damagedNode) clearKeyCaches() {
	w.Node.Policies.Close()
	w.Node.Containers.Close()
}

// corruption is one damaged value, and its consequences.
type corruption struct {
	column string // table.column
	where  string // of the one row
	fails  string // acts that fail, separated by commas; all others go on
	code   api.Code
	finds  string // kind of a finding of verify, empty for none
}

// The rows that injuries damage, as conditions, and the acts that need them.
const (
	lastKey     = `id = (SELECT MAX(id) FROM vault_key_version)` // of a policy that is revoked
	firstTenant = `tenant = (SELECT MIN(id) FROM tenant)`
	mailPolicy  = `(SELECT id FROM policy WHERE name = 'USA_mailboxes' AND ` + firstTenant + `)`
	currentOf   = `(SELECT current FROM policy WHERE name = 'USA_mailboxes' AND ` + firstTenant + `)`
	thePolicy   = `id = ` + mailPolicy
	theKey      = `id = ` + currentOf
	theRevision = `policy = ` + mailPolicy + ` AND policy_key = ` + currentOf
	alicesBox   = `id = (SELECT MIN(id) FROM container WHERE kind = 'mailbox' AND policy = ` + mailPolicy + `)`
	boxPage     = `id = (SELECT page FROM container WHERE ` + alicesBox + `)`
	firstItem   = `(SELECT MIN(id) FROM item WHERE container = (SELECT id FROM container WHERE ` + alicesBox + `))`
	alicesItem  = `id = ` + firstItem
	alicesBlob  = `item = ` + firstItem
	blobPage    = `id = (SELECT page FROM blob WHERE ` + alicesBlob + `)`
	firstFile   = `(SELECT MIN(id) FROM item WHERE path_hash IS NOT NULL AND container = (SELECT MIN(id) FROM container WHERE kind = 'site'))`
	fileA       = `id = ` + firstFile
	fileABlob   = `item = ` + firstFile
	anyText     = `id = (SELECT MAX(id) FROM audit_entry WHERE actor IS NOT NULL AND target IS NOT NULL)`

	alicesMail = "alice's messages,export alice,read alice's first"
	pageMail   = alicesMail + ",export bob"
	revision   = pageMail + ",new mailbox,test policy"
)

var injuries = []corruption{
	{"key_page.body", boxPage, pageMail, api.Damaged, "key page"},
	{"key_page.version", boxPage, pageMail, api.Damaged, "key page"},
	{"key_page.count", boxPage, pageMail, api.Damaged, "key page"},
	{"key_page.generation", boxPage, pageMail, api.Damaged, "policy key"},
	{"key_page.parent", boxPage, pageMail + ",list mailboxes,show alice,show bob", api.Damaged, "policy key"},
	{"key_page.class", boxPage, pageMail, api.Damaged, "container"},
	{"key_page.tenant", boxPage, pageMail + ",list mailboxes,show alice,show bob", api.Damaged, "container"},
	{"key_page.id", boxPage, pageMail + ",list mailboxes,show alice,show bob", api.Damaged, "key page"},
	{"key_page.body", blobPage, alicesMail, api.Damaged, "item"},
	{"key_page.version", blobPage, alicesMail, api.Damaged, "item"},
	{"container.name", alicesBox, alicesMail + ",list mailboxes,show alice", api.Damaged, "container"},
	{"container.name_hash", alicesBox, alicesMail + ",show alice", api.NotFound, "container"},
	{"container.kind", alicesBox, alicesMail + ",show alice", api.NotFound, "container"},
	{"container.class", alicesBox, alicesMail, api.Damaged, "container"},
	{"container.page", alicesBox, alicesMail + ",list mailboxes,show alice", api.Damaged, "container"},
	{"container.generation", alicesBox, alicesMail, api.Damaged, "container"},
	{"container.older", alicesBox, "", "", "container"},
	{"container.id", alicesBox, alicesMail + ",list mailboxes,show alice", api.Damaged, "container"},
	{"container.external", `recipient = 'MailUser'`, "list mailboxes,show mail user", api.Damaged, "container"},
	{"item.metadata", alicesItem, "alice's messages,read alice's first", api.Damaged, "item"},
	{"item.version", alicesItem, "alice's messages,read alice's first", api.Damaged, "item"},
	{"item.size", alicesItem, "alice's messages,read alice's first", api.Damaged, "item"},
	{"item.container", alicesItem, "read alice's first", api.NotFound, "container"},
	{"item.metadata", fileA, "get a,list files", api.Damaged, "item"},
	{"item.path_hash", fileA, "get a", api.NotFound, "item"},
	{"item.size", fileA, "get a", api.Damaged, "item"},
	{"blob.size", alicesBlob, alicesMail, api.Damaged, "item"},
	{"blob.page", alicesBlob, alicesMail, api.Damaged, "item"},
	{"blob.id", alicesBlob, alicesMail, api.Damaged, "item"},
	{"blob.sequence", alicesBlob, "alice's messages,export alice,read alice's first", "", "item"},
	{"blob.size", fileABlob, "get a", api.Damaged, "item"},
	{"blob.sequence", fileABlob, "get a,list files", api.Damaged, "item"},
	{"revision.guid", theRevision, revision, api.Damaged, "revision"},
	{"revision.primary_vault", theRevision, revision, api.Damaged, "revision"},
	{"revision.primary_key_name", theRevision, revision, api.Damaged, "revision"},
	{"revision.primary_version", theRevision, revision, api.Damaged, "revision"},
	{"revision.secondary_vault", theRevision, revision, api.Damaged, "revision"},
	{"revision.secondary_key_name", theRevision, revision, api.Damaged, "revision"},
	{"revision.secondary_version", theRevision, revision, api.Damaged, "revision"},
	{"revision.availability", theRevision, revision, api.Damaged, "revision"},
	{"revision.availability_version", theRevision, revision, api.Damaged, "revision"},
	{"revision.wrap_primary", theRevision, revision, api.Damaged, "revision"},
	{"revision.wrap_secondary", theRevision, revision, api.Damaged, "revision"},
	{"revision.wrap_availability", theRevision, revision, api.Damaged, "revision"},
	{"revision.mac", theRevision, revision, api.Damaged, "revision"},
	{"policy_key.generation", theKey, revision, api.Damaged, "revision"},
	{"policy.guid", thePolicy, revision, api.Damaged, "revision"},
	{"geo_host.host", `id > 0`, "list geos", api.Damaged, "geo host"},
	{"geo_host.host_hash", `id > 0`, "", "", "geo host"},
	{"purge.reason", `policy > 0`, "list purges", api.Damaged, ""},
	{"purge.contact", `policy > 0`, "list purges", api.Damaged, ""},
	{"approval_request.target", `id > 0`, "list approvals", api.Damaged, ""},
	{"vault_key_version.sealed", lastKey, "", "", "vault key"},
	{"vault_key_version.public", lastKey, "", "", "vault key"},
	{"audit_entry.actor", anyText, "", "", ""},
	{"audit_entry.target", anyText, "", "", ""},
}

// elsewhere are the columns of encrypted or authenticated bytes without an injury in
// this table, with the test that covers them.
var elsewhere = map[string]string{
	"approval_request.input":   "opened when the act is done: a damaged one ends as failed",
	"approval_request.outcome": "shown like the target",
	"credential.hash":          "a hash, not a seal: a secret that does not fit it is wrong",
	"mail_import.digest":       "a hash, not a seal: the import takes the mail for another one and stores all of it",
	"principal.secret_hash":    "a hash, not a seal: a token that does not fit it is not known",
	"seal_check.value":         "read at start: TestDatabaseOfAnotherSealIsRefused",
	"secret.sealed":            "read at start: the seal's tests",
	"vault_person.name":        "the vault's: it names the person in its error",
}

// Every key version of the embedded vaults that cannot be decrypted under the seal is
// named and counted as damaged.
func TestDamagedVaultKeysAreNamed(t *testing.T) {
	t.Parallel()
	w := nodetest.Start(t, node.Options{})
	w.StageMail()
	keys := w.Verify().VaultKeys
	if keys < 2 {
		t.Fatalf("%d vault keys are decrypted", keys)
	}
	err := w.Node.DB.InTx(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(t.Context(), `UPDATE vault_key_version SET sealed = public`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	w.Restart(nil)
	v, err := w.Client.Verify(t.Context(), api.VerifyInput{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var named int64
	for _, f := range v.Damaged {
		if f.Kind == "vault key" && strings.Contains(f.ID, "/") && strings.Contains(f.Detail, "seal") {
			named++
		}
	}
	if v.VaultKeys != 0 || named != keys {
		t.Errorf("%d of %d are named: %+v", named, keys, v)
	}
}

// Every column of bytes is classified: a new one fails this test until the consequence
// of a flipped bit in it is declared.
func TestEveryColumnOfBytesHasADeclaredConsequenceOfDamage(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		query := `SELECT m.name || '.' || c.name FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table' AND c.type = 'BLOB'`
		if db.Dialect().Name == "postgres" {
			query = `SELECT table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = 'public' AND data_type = 'bytea'`
		}
		columns := ask(t, db, func(tx *store.Tx) (list []string, err error) {
			rows, err := tx.Query(t.Context(), query)
			if err != nil {
				return nil, err
			}
			defer rows.Close()
			for rows.Next() {
				var name string
				if err := rows.Scan(&name); err != nil {
					return nil, err
				}
				list = append(list, name)
			}
			return list, rows.Err()
		})
		if len(columns) < 15 {
			t.Fatalf("only %q", columns)
		}
		for _, name := range columns {
			met := slices.ContainsFunc(injuries, func(i corruption) bool { return i.column == name })
			if _, known := elsewhere[name]; met == known {
				t.Errorf("column %s has an injury: %t, and is met elsewhere: %t", name, met, known)
			}
		}
	})
}

// One value at a time is damaged: all acts that need it fail and say so, all others
// succeed, verify reports it and continues, and everything works once the value is
// restored. In make test each injury is tried with the acts that need the value and a
// quarter of all others, not always the same ones.
func TestAFlippedBitInAnyColumnIsReportedAndAffectsNothingElse(t *testing.T) {
	t.Parallel()
	w := newDamagedNode(t)
	all := slices.Sorted(maps.Keys(acts))
	if failed := w.failures(all); len(failed) > 0 {
		t.Fatalf("before any damage: %v", failed)
	}
	part := longtest.Of(4, 1)
	for n, i := range injuries {
		var want, meets []string
		if i.fails != "" {
			want = strings.Split(i.fails, ",")
		}
		for a, name := range all {
			if (n+a)%part == 0 || slices.Contains(want, name) {
				meets = append(meets, name)
			}
		}
		w.testCorruption(i, meets, want)
		if (n+1)%part == 0 || n == len(injuries)-1 {
			if v := w.Verify(); len(v.Damaged) > 0 {
				t.Fatalf("%s where %s: once it is put back, verify still finds %v", i.column, i.where, v.Damaged)
			}
		}
	}
}

// primary names the column that identifies a row, if that is not id.
var primary = map[string]string{"purge": "policy", "blob": "item"}

// testCorruption makes one corruption, runs acts, of which those of want have to fail, and restores
// the value.
func (w *damagedNode) testCorruption(i corruption, acting, want []string) {
	t := w.t
	t.Helper()
	what := i.column + " where " + i.where
	table, column, _ := strings.Cut(i.column, ".")
	key := primary[table]
	if key == "" {
		key = "id"
	}
	var old any
	var id int64
	w.requireNoError(w.Node.DB.ViewOnce(t.Context(), func(tx *store.Tx) error {
		return tx.QueryRow(t.Context(), fmt.Sprintf(`SELECT %s, %s FROM %s WHERE %s`, column, key, table, i.where)).Scan(&old, &id)
	}))
	if b, ok := old.([]byte); ok {
		old = bytes.Clone(b)
	}
	set := fmt.Sprintf(`UPDATE %s SET %s = ?1 WHERE %s = ?2`, table, column, key)
	if key == column {
		w.exec(set, id^farAway, id)
		id ^= farAway
	} else {
		w.exec(set, flipBit(old), id)
	}
	w.clearKeyCaches()

	failed := w.failures(acting)
	slices.Sort(want)
	if got := slices.Sorted(maps.Keys(failed)); !slices.Equal(got, want) {
		t.Errorf("%s: %q fail, want %q: %v", what, got, want, failed)
	}
	for act, why := range failed {
		truncated := strings.HasPrefix(act, "export ") && strings.HasPrefix(why, string(api.Truncated)) // after whole messages
		if i.code != "" && !strings.HasPrefix(why, string(i.code)) && !truncated {
			t.Errorf("%s: %s fails with %s", what, act, why)
		}
	}
	v := w.Verify()
	if found := slices.ContainsFunc(v.Damaged, func(f api.Finding) bool { return f.Kind == i.finds }); found != (i.finds != "") {
		t.Errorf("%s: verify found %v, want a %q", what, v.Damaged, i.finds)
	}

	if key == column {
		w.exec(set, id^farAway, id)
	} else {
		w.exec(set, old, id)
	}
	w.clearKeyCaches()
	for act := range failed {
		if err := acts[act](t.Context(), w); err != nil {
			t.Fatalf("%s: once it is put back, %s still fails: %v", what, act, err)
		}
	}
}

func (w *damagedNode) exec(query string, args ...any) {
	w.t.Helper()
	w.requireNoError(w.Node.DB.InTx(w.t.Context(), func(tx *store.Tx) error { return ignore(tx.Exec(w.t.Context(), query, args...)) }))
}

// farAway is the bit of an id that is flipped; flipping a low bit could give the id of a
// neighbour.
const farAway = 1 << 40

// flipBit flips one bit.
func flipBit(value any) any {
	switch v := value.(type) {
	case int64:
		if v > farAway {
			return v ^ farAway
		}
		return v ^ 1
	case string: // another digit, so that a GUID stays one
		b := []byte(v)
		if b[len(b)-1]++; b[len(b)-1] == '9'+1 || b[len(b)-1] == 'f'+1 {
			b[len(b)-1] -= 2
		}
		return string(b)
	case []byte:
		b := bytes.Clone(v)
		b[len(b)/2] ^= 1
		return b
	}
	panic(fmt.Sprintf("%T", value))
}
