package node_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/store"
)

// create makes a policy of a kind. A second site policy is made for a new geo of that
// name.
func (x tenancy) create(k kind, name, primary, secondary string) (api.Policy, error) {
	x.t.Helper()
	ctx := x.t.Context()
	if k.PolicyKind != api.SitePolicy {
		var in api.CreatePolicyInput
		in.Body.Kind, in.Body.Name, in.Body.Keys = k.PolicyKind, name, []string{primary, secondary}
		return x.Client.CreatePolicy(ctx, in)
	}
	var in api.RegisterSitesInput
	if name != k.policy {
		var geo api.CreateGeoInput
		geo.Body.Name, geo.Body.Hosts = name, []string{strings.ToLower(name) + ".sharepoint.com"}
		if _, err := x.Client.CreateGeo(ctx, geo); err != nil {
			x.t.Fatal(err)
		}
		in.Body.Geo = name
	}
	in.Body.Primary, in.Body.Secondary = x.newest(primary), x.newest(secondary)
	return x.Client.RegisterSites(ctx, in)
}

// newest is the newest version of a key.
func (x tenancy) newest(uri string) api.KeyVersion {
	x.t.Helper()
	host, key, _ := strings.Cut(strings.TrimPrefix(uri, "https://"), "/keys/")
	vault, _, _ := strings.Cut(host, ".")
	k, err := x.Vaults().ShowKey(x.t.Context(), vault, key, "")
	if err != nil {
		x.t.Fatal(err)
	}
	return api.KeyVersion{Vault: x.VaultName(vault), Key: key, Version: k.Version}
}

func (x tenancy) show(policy string) api.Policy {
	x.t.Helper()
	p, err := x.Client.ShowPolicy(x.t.Context(), api.PolicyInput{Policy: policy})
	if err != nil {
		x.t.Fatal(err)
	}
	return p
}

// waitForRolls waits until no roll runs.
func (x tenancy) waitForRolls() { x.t.Helper(); lab{x.World, x.t}.waitForRolls() }

func (x tenancy) write(k kind, content string) {
	x.t.Helper()
	switch k.PolicyKind {
	case api.MailboxPolicy:
		x.Import(k.unit, content)
	case api.SitePolicy:
		x.Put(k.unit, "plan.txt", []byte(content))
	default:
		x.PutItem(k.unit, "one", []byte(content))
	}
}

func (x tenancy) read(k kind) (string, error) {
	var content []byte
	var err error
	ctx := x.t.Context()
	switch k.PolicyKind {
	case api.MailboxPolicy:
		content, err = readAll(x.Client.ExportMail(ctx, api.MailboxInput{Mailbox: k.unit}))
	case api.SitePolicy:
		content, err = readAll(x.Client.GetFile(ctx, api.FileInput{SiteInput: api.SiteInput{Site: k.unit}, Path: "plan.txt"}, 0, -1))
	default:
		content, err = readAll(x.Client.GetWorkloadItem(ctx, api.WorkloadItemInput{WorkloadInput: api.WorkloadInput{Workload: k.unit}, Item: "one"}))
	}
	return string(content), err
}

// wantReadable fails the test unless the content under a kind's policy can be read.
func (x tenancy) wantReadable(k kind, when string) {
	x.t.Helper()
	if got, err := x.read(k); err != nil || got != said {
		x.t.Errorf("%s, %s: read %q, %v", k.policy, when, got, err)
	}
}

// assignTo puts a container under another policy of a kind, and returns it.
func (x tenancy) assignTo(k kind, policy string) kind {
	x.t.Helper()
	k.policy = policy
	switch k.PolicyKind {
	case api.MailboxPolicy:
		k.unit = strings.ToLower(policy) + "@contoso.com"
		x.Mailbox(k.unit, policy)
	case api.SitePolicy:
		k.policy = sites.policy + "-" + policy
		k.unit = "https://" + strings.ToLower(policy) + ".sharepoint.com/sites/new"
		x.Site(k.unit)
	default:
		x.AssignTenant(policy)
	}
	x.waitForRolls()
	x.write(k, said)
	return k
}

// wantRefusedRead fails the test unless reading is refused with the given code.
func (x tenancy) wantRefusedRead(k kind, code api.Code, when string) {
	x.t.Helper()
	if got, err := x.read(k); codeOf(err) != code {
		x.t.Errorf("%s, %s: read %q, %v, want %s", k.policy, when, got, err, code)
	}
}

// refused fails the test unless a failure has a code and some words.
func refused(t *testing.T, what string, err error, code api.Code, words ...string) {
	t.Helper()
	if err == nil || codeOf(err) != code {
		t.Errorf("%s: %v [%s], want %s", what, err, codeOf(err), code)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v does not say %q", what, err, word)
		}
	}
}

// protection returns the protection of the container of a kind.
func (x tenancy) protection(k kind) (p api.Protection) {
	x.t.Helper()
	ctx := x.t.Context()
	var err error
	switch k.PolicyKind {
	case api.MailboxPolicy:
		var m api.Mailbox
		m, err = x.Client.ShowMailbox(ctx, api.MailboxInput{Mailbox: k.unit})
		p = m.Protection
	case api.SitePolicy:
		var s api.Site
		s, err = x.Client.ShowSite(ctx, api.SiteInput{Site: k.unit})
		p = s.Protection
	default:
		var list api.List[api.Workload]
		list, err = x.Client.ListWorkloads(ctx, api.ListInput{})
		for _, w := range list.Items {
			if w.Name == k.unit {
				p = w.Protection
			}
		}
	}
	if err != nil {
		x.t.Fatal(err)
	}
	return p
}

// audited returns the entries of root keys of a policy in the audit log, as
// "operation outcome detail", oldest first.
func (x tenancy) audited(policy string) []string {
	x.t.Helper()
	id := x.show(policy).ID
	return ask(x.t, x.Node.DB, func(tx *store.Tx) (list []string, err error) {
		rows, err := tx.Query(x.t.Context(), `SELECT operation, outcome, detail FROM audit_entry ORDER BY id`)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		for rows.Next() {
			var operation, outcome, detail string
			if err := rows.Scan(&operation, &outcome, &detail); err != nil {
				return nil, err
			}
			if strings.Contains(detail, id) {
				list = append(list, operation+" "+outcome+" "+detail)
			}
		}
		return list, rows.Err()
	})
}

// openedBy returns the key that last unwrapped a policy key of a policy, according to
// the audit log.
func (x tenancy) openedBy(policy string) (key string) {
	x.t.Helper()
	for _, entry := range x.audited(policy) {
		if before, by, ok := strings.Cut(entry, " by its "); ok && strings.Contains(before, " done unwrap ") {
			key = by
		}
	}
	return key
}

// blobs returns the content of every blob.
func (x tenancy) blobs() (list [][]byte) {
	x.t.Helper()
	for _, path := range allBlobs(x.t, x.Data) {
		content, err := os.ReadFile(path)
		if err != nil {
			x.t.Fatal(err)
		}
		list = append(list, content)
	}
	return list
}

// allBlobs returns the files of the blobs in a data folder: only they have names of
// sixteen digits.
func allBlobs(t *testing.T, data string) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(data, "blobs"), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() && len(entry.Name()) == 16 {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// waitUntil waits for a condition that background work brings about.
func (x tenancy) waitUntil(what string, holds func() bool) {
	x.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 60_000 {
		if holds() {
			return
		}
		<-tick.C
	}
	x.t.Fatalf("it does not come about: %s", what)
}
