package service_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"keyroll/api"
	"keyroll/internal/policy/policytest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// fillLists makes several entries of each list, under several policies and policy keys.
func (w testService) fillLists() {
	w.Helper()
	w.mailPolicy()
	w.Must(e(w.CreateGeo(w.ctx, newGeo("EU", "contoso-eu.sharepoint.com"))))
	w.Must(e(w.CreateGeo(w.ctx, newGeo("APC", "contoso-apc.sharepoint.com", "contoso-jp.sharepoint.com"))))
	for i := range 8 {
		name := fmt.Sprintf("user%d@contoso.com", i)
		w.Must(e(w.CreateMailbox(w.ctx, newMailbox(name, []string{"", "p"}[i%2]))))
		w.Must(e(w.ImportMail(w.ctx, into(name), -1, strings.NewReader(strings.Repeat(mbox+"\n", i)))))
		if i%4 == 1 {
			w.Must(e(w.SetMailboxState(w.ctx, newState(name, api.Inactive)))) // stays under the older policy key
		}
		w.backup("mailbox", name)
		url := fmt.Sprintf("https://contoso%s.sharepoint.com/sites/s%d", []string{"", "-eu"}[i%2], i)
		w.Must(e(w.CreateSite(w.ctx, newSite(url))))
		w.Must(e(w.PutFile(w.ctx, file(url, path), -1, strings.NewReader("content"))))
		w.newKey("A-p")
		w.Must(e(w.RefreshPolicy(w.ctx, refresh("p", ""))))
		w.finishRolls()
	}
	w.Must(e(w.registerIn("EU", "Sites-EU")))
	for _, store := range []string{"chat-messages", "sensitivity-labels"} {
		w.Must(e(w.PutWorkloadItem(w.ctx, item(store, "a"), -1, strings.NewReader("content"))))
	}
	for _, name := range []string{"left", "requested", "approved", "purged"} {
		w.namedPolicy(api.MailboxPolicy, name)
		w.Must(e(w.CreateMailbox(w.ctx, newMailbox(name+"@contoso.com", name))))
	}
	w.Must(e(w.LeavePolicy(w.ctx, leave("left"))))
	w.finishRolls()
	w.purgePolicy("purged")
	for _, name := range []string{"approved", "requested"} {
		w.revoke(name)
		w.requestPurge(name)
	}
	w.approve("approved")
}

// A list reads each page with at most three queries, however many entries it has, under
// however many policies and policy keys they are. The entry of the audit log is written
// after them.
func TestAPageOfAListNeedsThreeQueries(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		var queries atomic.Int64
		db.SetForTests(store.ForTests{Observe: func(query string) {
			if strings.HasPrefix(query, "SELECT") || strings.HasPrefix(query, "WITH") {
				queries.Add(1)
			}
		}})
		w := newTestService(policytest.New(t, db))
		w.fillLists()
		for name, list := range map[string]func(in api.PageInput) (items int, err error){
			"mailboxes": func(in api.PageInput) (int, error) {
				return sizeOf(w.ListMailboxes(w.ctx, api.ListInput{PageInput: in}))
			},
			"sites":   func(in api.PageInput) (int, error) { return sizeOf(w.ListSites(w.ctx, api.ListInput{PageInput: in})) },
			"backups": func(in api.PageInput) (int, error) { return sizeOf(w.ListBackups(w.ctx, api.ListInput{PageInput: in})) },
			"rolls":   func(in api.PageInput) (int, error) { return sizeOf(w.ListRolls(w.ctx, api.ListInput{PageInput: in})) },
			"workloads": func(in api.PageInput) (int, error) {
				return sizeOf(w.ListWorkloads(w.ctx, api.ListInput{PageInput: in}))
			},
			"geos": func(in api.PageInput) (int, error) { return sizeOf(w.ListGeos(w.ctx, api.ListInput{PageInput: in})) },
			"policies": func(in api.PageInput) (int, error) {
				return sizeOf(w.ListPolicies(w.ctx, api.ListInput{PageInput: in}))
			},
			"purges": func(in api.PageInput) (int, error) { return sizeOf(w.ListPurges(w.ctx, api.ListInput{PageInput: in})) },
		} {
			for _, limit := range []int{1, 3, 1000} {
				queries.Store(0)
				items, err := list(api.PageInput{Limit: limit})
				w.Must(err)
				if got := queries.Load(); got > 3 || items < min(limit, 2) || items > limit {
					t.Errorf("%s, limit %d: %d queries for %d entries", name, limit, got, items)
				}
			}
		}
	})
}

// An entry of a list is shown as it is alone, and the pages of a list are the parts of
// the whole, whatever their size.
func TestAListedEntryIsShownAsItIsAlone(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newTestService(policytest.New(t, db))
		w.fillLists()
		policies := wholeOfPages(t, func(in api.PageInput) (api.List[api.Policy], error) {
			return w.ListPolicies(w.ctx, api.ListInput{PageInput: in})
		})
		states := map[api.PolicyState]bool{}
		for _, p := range policies {
			states[p.State] = true
			if alone := w.shown(p.ID); !reflect.DeepEqual(p, alone) {
				t.Errorf("policy %s is listed as %+v, alone it is %+v", p.Name, p, alone)
			}
		}
		for _, state := range []api.PolicyState{api.Registered, api.Unregistered, api.PurgePending, api.PurgeDone} {
			if !states[state] {
				t.Errorf("no policy is %s", state)
			}
		}
		purges := wholeOfPages(t, func(in api.PageInput) (api.List[api.Purge], error) {
			return w.ListPurges(w.ctx, api.ListInput{PageInput: in})
		})
		for _, p := range purges {
			alone, err := w.ShowPurge(w.ctx, policyNamed(p.PolicyID))
			w.Must(err)
			if !reflect.DeepEqual(p, alone) {
				t.Errorf("the purge of %s is listed as %+v, alone it is %+v", p.Policy, p, alone)
			}
			if approvals := map[string]int{"purged": 2, "approved": 2}[p.Policy]; p.Containers != 1 || len(p.Destroy) != 2 || len(p.Approvals) != approvals {
				t.Errorf("the purge of %s is listed as %+v", p.Policy, p)
			}
		}
		geos := wholeOfPages(t, func(in api.PageInput) (api.List[api.Geo], error) {
			return w.ListGeos(w.ctx, api.ListInput{PageInput: in})
		})
		var text []string
		for _, g := range geos {
			text = append(text, fmt.Sprintf("%s %v %d %s %s", g.Name, g.Default, g.Sites, g.Hosts, g.Policy))
		}
		if want := []string{"default true 4 [] ", "EU false 4 [contoso-eu.sharepoint.com] Sites-EU", "APC false 0 [contoso-apc.sharepoint.com contoso-jp.sharepoint.com] "}; !slices.Equal(text, want) {
			t.Errorf("geos %q", text)
		}
		stores := wholeOfPages(t, func(in api.PageInput) (api.List[api.Workload], error) {
			return w.ListWorkloads(w.ctx, api.ListInput{PageInput: in})
		})
		if len(purges) != 3 || len(stores) != 2 {
			t.Errorf("%d purges, %d stores", len(purges), len(stores))
		}
	})
}

// wholeOfPages returns all entries of a list, which its pages of any size together must be.
func wholeOfPages[T any](t *testing.T, list func(api.PageInput) (api.List[T], error)) []T {
	t.Helper()
	whole, err := list(api.PageInput{Limit: 1000})
	if err != nil || whole.Next != "" {
		t.Fatal(whole.Next, err)
	}
	for limit := 1; limit <= len(whole.Items); limit++ {
		var parts []T
		for in := (api.PageInput{Limit: limit}); ; {
			l, err := list(in)
			if err != nil || len(l.Items) > limit || len(parts) > len(whole.Items) {
				t.Fatalf("limit %d: %d entries after %d, %v", limit, len(l.Items), len(parts), err)
			}
			parts = append(parts, l.Items...)
			if in.After = l.Next; in.After == "" {
				break
			}
		}
		if !reflect.DeepEqual(parts, whole.Items) {
			t.Errorf("limit %d: %+v, want %+v", limit, parts, whole.Items)
		}
	}
	return whole.Items
}

func sizeOf[T any](l api.List[T], err error) (int, error) { return len(l.Items), err }

// Whatever the sizes of the pages, and whatever is created while they are read: each
// entry that existed before is listed once, in order, and each damaged one is reported
// once.
func TestPagesHaveEachEntryOnce(t *testing.T) {
	w := newTestService(policytest.New(t, storetest.One(t)))
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		before := w.Number(`SELECT COALESCE(MAX(id), 0) FROM container WHERE tenant = ?1`, w.Tenant) // made by earlier runs
		mailboxes := pagedList{
			begin: fmt.Sprint(before),
			create: func() string {
				n++
				name := fmt.Sprintf("user%d@contoso.com", n)
				w.Must(e(w.CreateMailbox(w.ctx, newMailbox(name, ""))))
				return name
			},
			damage: func(nth int) {
				w.Exec(`UPDATE container SET name = ?2 WHERE id = (SELECT id FROM container WHERE tenant = ?1 AND kind = 'mailbox' AND id > ?4 ORDER BY id LIMIT 1 OFFSET ?3)`,
					w.Tenant, []byte("x"), nth, before)
			},
			page: func(in api.PageInput) (names []string, next string, damaged int) {
				l, err := w.ListMailboxes(w.ctx, api.ListInput{PageInput: in})
				w.Must(err)
				for _, m := range l.Items {
					names = append(names, m.Name)
				}
				return names, l.Next, len(l.Damaged)
			},
		}
		n++
		of := fmt.Sprint(team, n)
		w.Must(e(w.CreateSite(w.ctx, newSite(of))))
		last := w.Number(`SELECT MAX(id) FROM container WHERE tenant = ?1`, w.Tenant)
		files := pagedList{
			create: func() string {
				n++
				name := fmt.Sprintf("%d/file %d", 999999-n, n) // not in the order of creation
				w.Must(e(w.PutFile(w.ctx, file(of, name), -1, strings.NewReader("content"))))
				return name
			},
			damage: func(nth int) {
				w.Exec(`UPDATE item SET metadata = ?2 WHERE id = (SELECT id FROM item WHERE tenant = ?1 AND container = ?4 ORDER BY id LIMIT 1 OFFSET ?3)`, w.Tenant, []byte("x"), nth, last)
			},
			page: func(in api.PageInput) (paths []string, next string, damaged int) {
				l, err := w.ListFiles(w.ctx, api.ListSiteFiles{SiteInput: site(of), PageInput: in})
				w.Must(err)
				for _, f := range l.Items {
					paths = append(paths, f.Path)
				}
				if !slices.IsSorted(paths) {
					rt.Fatalf("a page with %q", paths)
				}
				return paths, l.Next, len(l.Damaged)
			},
			sortedPages: true,
		}
		mailboxes.check(rt)
		files.check(rt)
	})
}

// pagedList is a list with which a test pages.
type pagedList struct {
	begin       string // page token
	create      func() string
	damage      func(nth int)
	page        func(in api.PageInput) (names []string, next string, damaged int)
	sortedPages bool // only the order of pages is that of creation
}

func (l pagedList) check(t *rapid.T) {
	var want []string
	for range rapid.IntRange(0, 8).Draw(t, "entries") {
		want = append(want, l.create())
	}
	damaged := map[int]bool{}
	if len(want) > 0 {
		for _, nth := range rapid.SliceOfN(rapid.IntRange(0, len(want)-1), 0, 2).Draw(t, "damaged") {
			damaged[nth] = true
			l.damage(nth)
		}
	}
	var sound []string
	for i, name := range want {
		if !damaged[i] {
			sound = append(sound, name)
		}
	}
	var got, created []string
	reported := 0
	for in := (api.PageInput{After: l.begin}); ; {
		in.Limit = rapid.IntRange(1, 4).Draw(t, "limit")
		names, next, bad := l.page(in)
		if len(names)+bad > in.Limit {
			t.Fatalf("limit %d: %d entries", in.Limit, len(names)+bad)
		}
		if l.sortedPages { // compared in the order of creation
			all := append(slices.Clone(want), created...)
			slices.SortFunc(names, func(a, b string) int { return slices.Index(all, a) - slices.Index(all, b) })
		}
		got, reported = append(got, names...), reported+bad
		if next == "" {
			break
		}
		if in.After = next; rapid.Bool().Draw(t, "create") {
			created = append(created, l.create())
		}
	}
	if len(got) < len(sound) || !slices.Equal(got[:len(sound)], sound) || reported != len(damaged) {
		t.Fatalf("listed %q and %d damaged ones, want %q and %d", got, reported, sound, len(damaged))
	}
	if rest := got[len(sound):]; !slices.Equal(rest, created) {
		t.Fatalf("created during the list: %q, listed %q", created, rest)
	}
}
