package crashtest

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/node/nodetest"
)

// model is everything that a user sees in a keyroll.
type model struct {
	Mailboxes map[string]mailbox
	Sites     map[string]map[string]string // site, path: digest
	Stores    map[string]map[string]string // workload store, item: digest
	Policies  map[string]uint32            // name: generation of the policy key
	Tenants   map[string]bool              // beside the first one
	Backups   map[string]int               // backupLine: how many
}

type mailbox struct {
	State  api.MailboxState
	Policy string   // of its own
	Mail   []string // messages, as an mbox
}

func newModel() model {
	return model{Mailboxes: map[string]mailbox{}, Sites: map[string]map[string]string{}, Stores: map[string]map[string]string{},
		Policies: map[string]uint32{}, Tenants: map[string]bool{}, Backups: map[string]int{}}
}

func (m model) clone() model {
	c := newModel()
	maps.Copy(c.Mailboxes, m.Mailboxes)
	maps.Copy(c.Policies, m.Policies)
	maps.Copy(c.Tenants, m.Tenants)
	maps.Copy(c.Backups, m.Backups)
	for site, files := range m.Sites {
		c.Sites[site] = maps.Clone(files)
	}
	for store, items := range m.Stores {
		c.Stores[store] = maps.Clone(items)
	}
	return c
}

func digest[T string | []byte](content T) string {
	return fmt.Sprintf("%d bytes %x", len(content), sha256.Sum256([]byte(content)))
}

// messages splits an mbox of these scenarios.
func messages(mbox string) (list []string) {
	for i := 0; i < len(mbox); {
		end := strings.Index(mbox[i+1:], "\nFrom a")
		if end < 0 {
			return append(list, mbox[i:])
		}
		list = append(list, mbox[i:i+1+end+1])
		i += 1 + end + 1
	}
	return list
}

// view reads all that a user sees: every list, every message, every file.
func view(t *testing.T, w *nodetest.World) model {
	t.Helper()
	m := newModel()
	state := map[string]api.PolicyState{}
	policies, err := w.Client.ListPolicies(t.Context(), api.ListInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range policies.Items {
		m.Policies[p.Name], state[p.Name] = p.Generation, p.State
	}
	for in := (api.ListInput{}); ; {
		list, err := w.Client.ListMailboxes(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range list.Items {
			m.Mailboxes[b.Name] = mailbox{b.State, b.AssignedPolicy, mailOf(t, w, b, state[b.AssignedPolicy])}
		}
		if in.After = list.Next; in.After == "" {
			break
		}
	}
	sites, err := w.Client.ListSites(t.Context(), api.ListInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sites.Items {
		files, err := w.Client.ListFiles(t.Context(), api.ListSiteFiles{SiteInput: api.SiteInput{Site: s.URL}})
		if err != nil {
			t.Fatal(err)
		}
		m.Sites[s.URL] = map[string]string{}
		for _, f := range files.Items {
			m.Sites[s.URL][f.Path] = digest(w.Get(s.URL, f.Path))
		}
	}
	stores, err := w.Client.ListWorkloads(t.Context(), api.ListInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range stores.Items {
		items, err := w.Client.ListWorkloadItems(t.Context(), api.ListStoreItems{WorkloadInput: api.WorkloadInput{Workload: s.Name}})
		if err != nil {
			t.Fatal(err)
		}
		m.Stores[s.Name] = map[string]string{}
		for _, item := range items.Items {
			m.Stores[s.Name][item.Path] = digest(w.GetItem(s.Name, item.Path))
		}
	}
	for _, b := range w.Backups() {
		m.Backups[backupLine(b.Kind, b.Container, b.Items)]++
	}
	tenants, err := w.Client.ListTenants(t.Context(), api.ListInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range tenants.Items[1:] {
		m.Tenants[one.Name] = true
	}
	return m
}
