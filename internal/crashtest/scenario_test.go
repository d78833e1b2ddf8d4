package crashtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
	"keyroll/internal/store"
)

// scenario is the work of a child on a prepared data folder.
type scenario struct {
	name    string
	fresh   bool   // the folder is not there yet
	closes  bool   // its containers are inaccessible by policy afterwards
	prepare []step // done once, on the stage
	steps   []step
	// atRest, unless nil, checks data that only this scenario changes.
	atRest func(t *testing.T, w *nodetest.World)
}

// step is one act of a user, and its visible result.
type step struct {
	name string
	do   func(w *nodetest.World)
	then func(m *model)
	// partly, unless nil, is another state that a crash in the step may leave.
	partly func(m *model)
	// again, unless nil, repeats an act that a crash may have interrupted, after which a
	// user sees seen.
	again func(t *testing.T, w *nodetest.World, seen model)
}

// options of every node: pages so small that a little data fills several, and
// rolls that take a page at a time. Transactions run once: fault points are counted.
var options = node.Options{PageSlots: 4, RollRate: 2000, ForTests: &store.ForTests{}}

const (
	alice, bob = "alice@contoso.com", "bob@contoso.com"
	site       = "https://contoso.sharepoint.com/sites/one"
	importStep = 512 // messages that an import commits at a time
)

// stage is the state before every scenario that does not begin with an empty folder: both
// policies, and a newer version of each of their keys that they have not adopted.
var stage = []step{{
	name: "stage",
	do: func(w *nodetest.World) {
		w.StageMail()
		w.StageSites()
		for _, vault := range []string{nodetest.VaultA1, nodetest.VaultA2, nodetest.VaultS1} {
			w.AddKey(vault)
		}
	},
	then: func(m *model) {
		m.Policies["Service-managed"], m.Policies[nodetest.MailboxPolicy], m.Policies[nodetest.SitePolicy] = 1, 1, 1
	},
}}

var scenarios = []scenario{
	{
		name: "first start", fresh: true,
		steps: []step{
			{name: "start", do: func(*nodetest.World) {}, then: func(m *model) { m.Policies["Service-managed"] = 1 }},
			create(alice, ""), create(bob, ""), importMessages(alice, mbox(1, 2)),
		},
	},
	{
		name:    "create",
		prepare: []step{create("carol@contoso.com", nodetest.MailboxPolicy)},
		steps:   []step{create(alice, nodetest.MailboxPolicy), create(bob, ""), makeSite(site)},
	},
	{
		name:    "import",
		prepare: []step{create(alice, nodetest.MailboxPolicy)},
		steps:   []step{importMessages(alice, mbox(1, 3)), importMessages(alice, mbox(4, importStep+9)), importMessages(alice, mbox(1000, 1))},
	},
	{
		name:    "put",
		prepare: []step{makeSite(site)},
		steps: []step{
			put(site, "a.txt", []byte("new")), put(site, "a.txt", []byte("newer, and longer")),
			put(site, "big", pattern(9<<20)), put(site, "big", nil), collectOrphans(),
		},
	},
	{
		name:    "compact",
		prepare: []step{makeSite(site), putMany(site, 70)},
		steps:   []step{collectOrphans(), put(site, "small 1", pattern(40)), collectOrphans()},
	},
	{
		name:    "assign",
		prepare: []step{createMailboxes(3, ""), create(alice, ""), importMessages(alice, mbox(1, 2))},
		steps:   []step{assign(alice, nodetest.MailboxPolicy), assign("m1@contoso.com", nodetest.MailboxPolicy), assign(alice, "")},
	},
	{
		name:    "state",
		prepare: []step{create(alice, nodetest.MailboxPolicy), importMessages(alice, mbox(1, 2)), createMailboxes(3, nodetest.MailboxPolicy)},
		steps:   []step{setState(alice, api.Inactive), setState("m2@contoso.com", api.Inactive), setState(alice, api.Disabled), setState(alice, api.Active)},
	},
	{
		name: "roll",
		prepare: []step{createMailboxes(14, nodetest.MailboxPolicy), importMessages("m3@contoso.com", mbox(1, 5)),
			create(alice, nodetest.MailboxPolicy), importMessages(alice, mbox(6, 2)), setState(alice, api.Inactive)},
		steps: []step{refresh(api.DepthPolicy)},
	},
	{
		name: "roll at depth content",
		prepare: []step{createMailboxes(5, nodetest.MailboxPolicy), importMessages("m1@contoso.com", mbox(1, 5)), importMessages("m4@contoso.com", mbox(6, 1)),
			create(alice, nodetest.MailboxPolicy), importMessages(alice, mbox(7, 2)), setState(alice, api.Inactive)},
		steps: []step{refresh(api.DepthContent), importMessages("m1@contoso.com", mbox(9, 1))},
	},
	{
		name: "move at the next access",
		prepare: []step{create(alice, nodetest.MailboxPolicy), importMessages(alice, mbox(1, 2)), setState(alice, api.Inactive),
			create(bob, nodetest.MailboxPolicy), importMessages(bob, mbox(3, 2)), setState(bob, api.Inactive), refresh(api.DepthPolicy)},
		steps: []step{readMailbox(alice), readMailbox(bob), importMessages(alice, mbox(5, 1))},
	},
	{
		name:    "refresh at depth root",
		prepare: []step{createMailboxes(5, nodetest.MailboxPolicy), create(alice, nodetest.MailboxPolicy), importMessages(alice, mbox(1, 1))},
		steps:   []step{refresh(api.DepthRoot)},
	},
	{
		name:    "update sites",
		prepare: []step{makeSite(site), put(site, "a.txt", []byte("content")), createSites(9)},
		steps:   []step{updateSites()},
	},
	{
		name:  "tenant and geo",
		steps: []step{makeTenant("contoso"), makeGeo("EU", "contoso-eu.sharepoint.com"), makeSite("https://contoso-eu.sharepoint.com/sites/one")},
	},
	{
		name: "assign to the tenant",
		prepare: []step{createMailboxes(9, ""), importMessages("m1@contoso.com", mbox(1, 2)), create(alice, nodetest.MailboxPolicy), importMessages(alice, mbox(3, 2)),
			putItem("chat-messages", "thread", []byte("hello")), workPolicy()},
		steps: []step{assignTenant(), putItem("sensitivity-labels", "labels.xml", []byte("labels")), leave(nodetest.WorkPolicy)},
	},
	{
		name: "leave",
		prepare: []step{createMailboxes(9, nodetest.MailboxPolicy), importMessages("m1@contoso.com", mbox(1, 2)), setState("m1@contoso.com", api.Inactive),
			setState("m2@contoso.com", api.Disabled), makeSite(site), put(site, "a.txt", []byte("content"))},
		steps: []step{leave(nodetest.MailboxPolicy)},
	},
	{
		name: "roll availability keys",
		prepare: []step{create(alice, nodetest.MailboxPolicy), importMessages(alice, mbox(1, 2)), setState(alice, api.Inactive), // two policy keys are needed
			createMailboxes(3, nodetest.MailboxPolicy), refresh(api.DepthPolicy)},
		steps:  []step{rollAvailability(nodetest.MailboxPolicy), rollAvailability(serviceManaged)},
		atRest: checkAvailabilityKeys,
	},
	backups,
	purging,
}

// randomScenario is a scenario of acts drawn from a seed.
func randomScenario(seed uint64) scenario {
	r := rand.New(rand.NewPCG(seed, 0))
	s := scenario{name: fmt.Sprintf("random %d", seed), prepare: []step{
		createMailboxes(9, nodetest.MailboxPolicy), makeSite(site), put(site, "f0", []byte("first")), importMessages("m0@contoso.com", mbox(1, 3))}}
	acts := []func(name string) step{
		func(name string) step { return importMessages(name, mbox(10*r.IntN(100), 1+r.IntN(9))) },
		func(name string) step { return importMessages(name, mbox(10*r.IntN(100), 1)) },
		func(string) step { return put(site, fmt.Sprintf("f%d", r.IntN(3)), pattern(r.IntN(200_000))) },
		func(name string) step { return assign(name, []string{"", nodetest.MailboxPolicy}[r.IntN(2)]) },
		func(name string) step {
			return setState(name, []api.MailboxState{api.Active, api.Inactive, api.Disconnected, api.Disabled}[r.IntN(4)])
		},
		readMailbox,
	}
	refreshAt := r.IntN(12)
	for i := range 12 {
		if i == refreshAt {
			s.steps = append(s.steps, refresh(api.DepthPolicy), updateSites())
		}
		s.steps = append(s.steps, acts[r.IntN(len(acts))](fmt.Sprintf("m%d@contoso.com", r.IntN(9))))
	}
	return s
}

func create(name, policy string) step {
	return step{
		name: "create " + name,
		do:   func(w *nodetest.World) { w.Mailbox(name, policy) },
		then: func(m *model) { m.Mailboxes[name] = mailbox{api.Active, policy, nil} },
	}
}

// createMailboxes makes mailboxes in full pages.
func createMailboxes(n int, policy string) step {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("m%d@contoso.com", i)
	}
	return step{
		name: fmt.Sprintf("fill %d", n),
		do: func(w *nodetest.World) {
			w.CreateMany(container.Mailbox, names, policy)
		},
		then: func(m *model) {
			for _, name := range names {
				m.Mailboxes[name] = mailbox{api.Active, policy, nil}
			}
		},
	}
}

func createSites(n int) step {
	urls := make([]string, n)
	for i := range urls {
		urls[i] = fmt.Sprintf("https://contoso.sharepoint.com/sites/s%d", i)
	}
	return step{
		name: fmt.Sprintf("fill %d sites", n),
		do:   func(w *nodetest.World) { w.CreateMany(container.Site, urls, "") },
		then: func(m *model) {
			for _, url := range urls {
				m.Sites[url] = map[string]string{}
			}
		},
	}
}

// mbox is n messages, numbered from first on.
func mbox(first, n int) []string {
	messages := make([]string, n)
	for i := range messages {
		k := first + i
		messages[i] = fmt.Sprintf("From a%d@contoso.com Thu Jan  1 00:00:00 2026\nSubject: message %d\nFrom: a%d@contoso.com\n\nbody %d%s\n\n", k, k, k, k, strings.Repeat(".", k%50))
	}
	return messages
}

func importMessages(name string, messages []string) step {
	s := step{
		name: fmt.Sprintf("import %d into %s", len(messages), name),
		do:   func(w *nodetest.World) { w.Import(name, strings.Join(messages, "")) },
		then: func(m *model) { m.append(name, messages) },
	}
	if len(messages) > importStep {
		s.partly = func(m *model) { m.append(name, messages[:importStep]) }
	}
	return s
}

func (m *model) append(name string, messages []string) {
	b := m.Mailboxes[name]
	b.Mail = append(b.Mail[:len(b.Mail):len(b.Mail)], messages...)
	m.Mailboxes[name] = b
}

func readMailbox(name string) step {
	return step{name: "read " + name, do: func(w *nodetest.World) { w.Export(name) }, then: func(*model) {}}
}

func makeSite(url string) step {
	return step{
		name: "create " + url,
		do:   func(w *nodetest.World) { w.Site(url) },
		then: func(m *model) { m.Sites[url] = map[string]string{} },
	}
}

func put(url, path string, content []byte) step {
	return step{
		name: fmt.Sprintf("put %s, %d bytes", path, len(content)),
		do:   func(w *nodetest.World) { w.Put(url, path, content) },
		then: func(m *model) { m.Sites[url][path] = digest(content) },
	}
}

// putMany stores n small files, enough for their objects to be combined.
func putMany(url string, n int) step {
	file := func(i int) (path string, content []byte) { return fmt.Sprint("small ", i), pattern(i) }
	return step{
		name: fmt.Sprintf("put %d small files", n),
		do: func(w *nodetest.World) {
			for i := range n {
				path, content := file(i)
				w.Put(url, path, content)
			}
		},
		then: func(m *model) {
			for i := range n {
				path, content := file(i)
				m.Sites[url][path] = digest(content)
			}
		},
	}
}

// collectOrphans collects the blobs of uploads that crashed, if there are any.
func collectOrphans() step {
	return step{
		name: "collect orphans",
		do: func(w *nodetest.World) {
			var in api.CollectBlobsInput
			in.Body.GraceSeconds = 1
			if _, err := w.Client.CollectBlobs(context.Background(), in, nil); err != nil {
				panic(err)
			}
		},
		then: func(*model) {},
	}
}

// pattern is n bytes that do not repeat at any power of two.
func pattern(n int) []byte {
	return bytes.Repeat([]byte("0123456789abc"), n/13+1)[:n]
}

func assign(name, policy string) step {
	return step{
		name: fmt.Sprintf("assign %q to %s", policy, name),
		do:   func(w *nodetest.World) { w.Assign(name, policy) },
		then: func(m *model) {
			b := m.Mailboxes[name]
			b.Policy = policy
			m.Mailboxes[name] = b
		},
	}
}

func setState(name string, state api.MailboxState) step {
	return step{
		name: fmt.Sprintf("state %s of %s", state, name),
		do:   func(w *nodetest.World) { w.SetState(name, state) },
		then: func(m *model) {
			b := m.Mailboxes[name]
			b.State = state
			m.Mailboxes[name] = b
		},
	}
}

// refresh adopts the versions that stage has made.
func refresh(depth api.Depth) step {
	return step{
		name: fmt.Sprintf("refresh at depth %s", depth),
		do:   func(w *nodetest.World) { w.Refresh(nodetest.MailboxPolicy, depth) },
		then: func(m *model) {
			if depth != api.DepthRoot {
				m.Policies[nodetest.MailboxPolicy]++
			}
		},
	}
}

func updateSites() step {
	return step{
		name: "update sites",
		do:   func(w *nodetest.World) { w.UpdateSitesToNewest() },
		then: func(m *model) { m.Policies[nodetest.SitePolicy]++ },
	}
}

func makeTenant(name string) step {
	create := func(w *nodetest.World) (api.CreatedTenant, error) {
		var in api.CreateTenantInput
		in.Body.Name = name
		return w.Client.CreateTenant(context.Background(), in)
	}
	return step{
		name: "tenant " + name,
		do: func(w *nodetest.World) {
			if _, err := create(w); err != nil {
				panic(err)
			}
		},
		then: func(m *model) { m.Tenants[name] = true },
		again: func(t *testing.T, w *nodetest.World, seen model) {
			made, err := create(w)
			if seen.Tenants[name] {
				var p *api.Problem
				if !errors.As(err, &p) || p.Code != api.AlreadyExists {
					t.Errorf("a tenant that is made is made again: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatalf("a tenant that was begun does not go on: %v", err)
			}
			own := w.As(made.AdminToken)
			defer own.Client.Close()
			own.Mailbox(alice, "")
			own.Import(alice, strings.Join(mbox(1, 2), ""))
			own.VerifyClean()
		},
	}
}

func makeGeo(name, host string) step {
	return step{
		name: "geo " + name,
		do: func(w *nodetest.World) {
			var in api.CreateGeoInput
			in.Body.Name, in.Body.Hosts = name, []string{host}
			if _, err := w.Client.CreateGeo(context.Background(), in); err != nil {
				panic(err)
			}
		},
		then: func(m *model) { m.Policies["Service-managed-"+name] = 1 },
	}
}
