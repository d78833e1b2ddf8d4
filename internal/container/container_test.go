package container_test

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/fault"
	"keyroll/internal/keypage"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

func TestCreatedContainerIsFoundInEverySpelling(t *testing.T) {
	each(t, func(w fixture) {
		own := w.policies.Create(t, w.tenant, "mailbox")
		c := w.mailbox("Alice@Contoso.com", own)
		if c.Name != "Alice@Contoso.com" || c.State != envelope.ClassActive || c.Policy != own || c.Generation != 1 || !c.Created.Equal(testTime) || c.Tenant != w.tenant {
			t.Errorf("created %+v", c)
		}
		for _, name := range []string{"Alice@Contoso.com", "alice@contoso.com", "ALICE@CONTOSO.COM"} {
			if got := w.find(name); got != c {
				t.Errorf("find %q: %+v, want %+v", name, got, c)
			}
		}
		site, err := w.all.Create(w.ctx, w.tenant, container.Site, "https://Contoso.SharePoint.com/sites/HR/", 0)
		w.must(err)
		if site.State != envelope.ClassSite {
			t.Errorf("a site begins in class %v", site.State)
		}
		for _, url := range []string{"https://contoso.sharepoint.com/sites/HR", "HTTPS://contoso.sharepoint.com:443/sites/HR/", "https://CONTOSO.sharepoint.com/sites/HR", "https://contoso.sharepoint.com/sites/hr"} {
			got, err := w.all.Find(w.ctx, w.tenant, container.Site, url)
			w.must(err)
			if got != site {
				t.Errorf("find %q: %+v, want %+v", url, got, site)
			}
		}
		for _, url := range []string{"https://contoso.sharepoint.com/sites/hr2", "https://contoso.sharepoint.com", "https://contoso.sharepoint.com:8443/sites/HR"} {
			_, err := w.all.Find(w.ctx, w.tenant, container.Site, url)
			w.wantCode(err, api.NotFound)
		}
	})
}

func TestUnknownNameIsNotFoundByName(t *testing.T) {
	each(t, func(w fixture) {
		_, err := w.all.Find(w.ctx, w.tenant, container.Mailbox, "unknown@contoso.com")
		w.wantCode(err, api.NotFound)
		if want := `mailbox "unknown@contoso.com" does not exist`; err.Error() != want {
			t.Errorf("error %q, want %q", err, want)
		}
	})
}

func TestTakenNameIsRefusedAndLeavesNoRow(t *testing.T) {
	each(t, func(w fixture) {
		w.mailbox("alice@contoso.com", 0)
		before := w.dump()
		_, err := w.all.Create(w.ctx, w.tenant, container.Mailbox, "ALICE@contoso.com", 0)
		w.wantCode(err, api.AlreadyExists)
		w.wantCode(w.all.CreateMany(w.ctx, w.tenant, container.Mailbox, []string{"bob", "alice@contoso.com"}, 0), api.AlreadyExists)
		w.wantCode(w.all.CreateMany(w.ctx, w.tenant, container.Mailbox, []string{"carol", "Carol"}, 0), api.AlreadyExists)
		if after := w.dump(); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
		// A site of the same name is another container.
		if _, err := w.all.Create(w.ctx, w.tenant, container.Site, "https://alice", 0); err != nil {
			t.Error(err)
		}
	})
}

func TestInvalidNamesAreRefused(t *testing.T) {
	each(t, func(w fixture) {
		before := w.dump()
		for kind, names := range map[container.Kind][]string{
			container.Mailbox: {"", " alice", "alice ", "al\nice", "al\x00ice", "al\u0085ice", "\xff", strings.Repeat("a", 257)},
			container.Site: {"", "alice", "http://contoso.com", "https://", "https:///sites", "https://:443", "https://u@contoso.com", "https://contoso.com/?a",
				"https://contoso.com/#a", "https://contoso.com/a ", "https://contoso.com/\n", "https://contoso.com/" + strings.Repeat("a", 2048), "//contoso.com", "https://a b"},
			container.Workload: {"chat", "", "Chat-Messages"},
			"calendar":         {"alice"},
		} {
			for _, name := range names {
				_, err := w.all.Create(w.ctx, w.tenant, kind, name, 0)
				w.wantCode(err, api.InvalidArgument)
				_, err = w.all.Find(w.ctx, w.tenant, kind, name)
				w.wantCode(err, api.InvalidArgument)
			}
			if _, err := w.all.List(w.ctx, w.tenant, kind, 0, 1); kind == "calendar" {
				w.wantCode(err, api.InvalidArgument)
			} else if err != nil {
				t.Errorf("list of kind %s: %v", kind, err)
			}
		}
		if after := w.dump(); after != before {
			t.Error("a refused name changed something")
		}
		w.mailbox(strings.Repeat("a", 256), 0)
	})
}

func TestListContinuesAtItsPageToken(t *testing.T) {
	each(t, func(w fixture) {
		var want []string
		for i := range 11 {
			want = append(want, fmt.Sprintf("User%02d@contoso.com", i))
		}
		w.must(w.all.CreateMany(w.ctx, w.tenant, container.Mailbox, want, 0))
		_, err := w.all.Create(w.ctx, w.tenant, container.Site, "https://contoso.com/a", 0)
		w.must(err)
		var got []string
		for after := int64(0); ; {
			part, err := w.all.List(w.ctx, w.tenant, container.Mailbox, after, 4)
			w.must(err)
			if len(part) == 0 {
				break
			}
			for _, c := range part {
				got = append(got, c.Name)
			}
			after = part[len(part)-1].ID
		}
		if !slices.Equal(got, want) {
			t.Errorf("listed %v", got)
		}
		sites, err := w.all.List(w.ctx, w.tenant, container.Site, 0, 4)
		w.must(err)
		if len(sites) != 1 || sites[0].Name != "https://contoso.com/a" {
			t.Errorf("sites %v", sites)
		}
	})
}

func TestManyContainersFillPages(t *testing.T) {
	each(t, func(w fixture) {
		var names []string
		for i := range 16*testSlots + 2*testSlots + 1 { // over one batch
			names = append(names, fmt.Sprint("user", i))
		}
		own := w.policies.Create(t, w.tenant, "mailbox")
		w.must(w.all.CreateMany(w.ctx, w.tenant, container.Mailbox, names, own))
		w.must(w.checkSlots())
		var counts []uint32
		for _, p := range w.pages() {
			if p.Parent == w.currentOf(own) {
				counts = append(counts, p.Count)
			}
		}
		w.view(func(tx *store.Tx) error {
			on, err := w.all.OnPage(w.ctx, tx, w.tenant, w.find("user5").Page)
			if len(on) != testSlots || on[1].ID != w.find("user5").ID {
				t.Errorf("on the second page: %+v", on)
			}
			return err
		})
		if len(counts) != 19 || slices.Max(counts[:18]) != testSlots || slices.Min(counts[:18]) != testSlots || counts[18] != 1 {
			t.Errorf("pages of %v slots", counts)
		}
		a, _ := w.key(w.find("user0"))
		b, _ := w.key(w.find("user1"))
		if a.Equal(b) {
			t.Error("two containers have one key")
		}
	})
}

func TestDatabaseContainsNoNameInPlaintext(t *testing.T) {
	each(t, func(w fixture) {
		const secret = "Geheimnis"
		w.mailbox(secret+"@contoso.com", 0)
		_, err := w.all.Create(w.ctx, w.tenant, container.Site, "https://"+secret+".contoso.com/sites/"+secret, 0)
		w.must(err)
		text, err := w.all.SealText(w.ctx, w.tenant, 7, secret)
		w.must(err)
		if bytes.Contains(bytes.ToLower(text), []byte(strings.ToLower(secret))) {
			t.Error("a sealed text shows what it holds")
		}
		rows := 0
		w.view(func(tx *store.Tx) error {
			all, err := tx.Query(w.ctx, `SELECT kind, name_hash, name FROM container`)
			if err != nil {
				return err
			}
			defer all.Close()
			for ; all.Next(); rows++ {
				var kind, hash, name []byte
				if err := all.Scan(&kind, &hash, &name); err != nil {
					return err
				}
				row := bytes.ToLower(slices.Concat(kind, []byte{0}, hash, []byte{0}, name))
				for _, part := range []string{strings.ToLower(secret), "contoso", "sites"} {
					if bytes.Contains(row, []byte(part)) {
						t.Errorf("a row shows %q", part)
					}
				}
			}
			return all.Err()
		})
		if rows != 3 {
			t.Errorf("%d rows, want directory, mailbox and site", rows)
		}
	})
}

func TestDirectoryIsCreatedOnceAndCanBeDecryptedLater(t *testing.T) {
	each(t, func(w fixture) {
		before := w.dump()
		w.must(w.all.Bootstrap(w.ctx, w.tenant))
		if after := w.dump(); after != before {
			t.Error("a second bootstrap changed something")
		}
		c := w.mailbox("alice", 0)
		d, err := w.all.Directory(w.ctx, w.tenant)
		w.must(err)
		sealed := d.Seal(7, "who")
		// Another process, after the service-managed policy was rolled.
		w.policies.Refresh(t, w.tenant, w.managed)
		_, err = w.policies.Roll(w.ctx, w.tenant, w.managed, 100, envelope.ClassWorkload, envelope.ClassActive)
		w.must(err)
		other := w
		other.all.Containers = container.New(w.db, w.policies, testSlots, w.now)
		if _, err := other.all.SealText(w.ctx, w.tenant, 7, "who"); err == nil {
			t.Error("a directory that was not opened sealed a text")
		}
		if got := other.find("ALICE"); got.ID != c.ID || got.Name != "alice" {
			t.Errorf("found %+v", got)
		}
		again, err := other.all.Directory(w.ctx, w.tenant)
		w.must(err)
		if text, err := again.Open(7, sealed); err != nil || text != "who" {
			t.Errorf("opened %q, %v", text, err)
		}
		_, err = again.Open(8, sealed)
		w.wantCode(err, api.Damaged)
		if !bytes.Equal(d.Hash("path", 1, "a"), again.Hash("path", 1, "a")) {
			t.Error("one name has two hashes")
		}
		if bytes.Equal(d.Hash("path", 1, "a"), d.Hash("path", 2, "a")) || bytes.Equal(d.Hash("path", 1, "a"), d.Hash("mailbox", 1, "a")) {
			t.Error("two names have one hash")
		}
		other.all.Close()
		if _, err := other.all.SealText(w.ctx, w.tenant, 7, "who"); err == nil {
			t.Error("a closed directory sealed a text")
		}
	})
}

func TestContainersOfAnotherTenantAreNotFound(t *testing.T) {
	each(t, func(w fixture) {
		c := w.mailbox("alice", 0)
		key, _ := w.key(c)
		n := w.neighbour()
		theirPolicy := n.policies.Create(t, n.tenant, "mailbox")
		before := w.dump()

		_, err := n.all.Find(n.ctx, n.tenant, container.Mailbox, "alice")
		w.wantCode(err, api.NotFound)
		list, err := n.all.List(n.ctx, n.tenant, container.Mailbox, 0, 10)
		if len(list) != 0 || err != nil {
			t.Errorf("listed %v, %v", list, err)
		}
		n.view(func(tx *store.Tx) error {
			on, err := n.all.OnPage(n.ctx, tx, n.tenant, c.Page)
			if len(on) != 0 {
				t.Errorf("on the page of another tenant: %v", on)
			}
			return err
		})
		forged := c
		forged.Tenant = n.tenant
		_, err = n.all.OpenKey(n.ctx, forged, api.ByUser)
		w.wantCode(err, api.NotFound)
		_, err = n.all.MoveKeyAfterAccess(n.ctx, forged)
		w.wantCode(err, api.NotFound)
		for _, c := range []container.Container{c, forged} {
			_, err = n.all.Assign(n.ctx, n.tenant, c, theirPolicy, api.ForRecovery)
			w.wantCode(err, api.NotFound)
			_, err = n.all.SetState(n.ctx, n.tenant, c, envelope.ClassInactive)
			w.wantCode(err, api.NotFound)
		}
		_, err = w.all.Assign(w.ctx, w.tenant, c, theirPolicy, api.ForRecovery)
		w.wantCode(err, api.NotFound)
		_, err = w.all.Create(w.ctx, w.tenant, container.Mailbox, "bob", theirPolicy)
		w.wantCode(err, api.NotFound)

		if w.dump() != before {
			t.Error("a refused request changed something")
		}
		if after, _ := w.key(c); !after.Equal(key) {
			t.Error("the key changed")
		}
		// The same name is free to them, and gets another hash.
		if mine := n.mailbox("alice", 0); mine.ID == c.ID {
			t.Error("one container, two tenants")
		}
	})
}

func TestPointerToAPageOfAnotherTenantIsRefused(t *testing.T) {
	each(t, func(w fixture) {
		c := w.mailbox("alice", 0)
		theirs := w.neighbour().mailbox("alice", 0)
		w.must(w.db.InTx(w.ctx, func(tx *store.Tx) error {
			_, err := tx.Exec(w.ctx, `UPDATE container SET page = ?1 WHERE id = ?2`, theirs.Page, c.ID)
			return err
		}))
		_, err := w.all.OpenKey(w.ctx, c, api.ByUser)
		w.wantCode(err, api.Damaged)
		_, err = w.all.SetState(w.ctx, w.tenant, c, envelope.ClassInactive)
		w.wantCode(err, api.Damaged)
	})
}

func TestPointerToAPageWithoutItsSlotIsDamage(t *testing.T) {
	each(t, func(w fixture) {
		c, other := w.mailbox("alice", 0), w.mailbox("bob", 0)
		w.must(w.db.InTx(w.ctx, func(tx *store.Tx) error {
			_, err := tx.Exec(w.ctx, `UPDATE container SET page = ?1 WHERE id = ?2`, other.Page, c.ID)
			return err
		}))
		_, err := w.all.OpenKey(w.ctx, c, api.ByUser)
		w.wantCode(err, api.Damaged)
		w.must(w.db.InTx(w.ctx, func(tx *store.Tx) error {
			_, err := tx.Exec(w.ctx, `UPDATE container SET page = ?1, class = ?3 WHERE id = ?2`, c.Page, c.ID, envelope.ClassInactive)
			return err
		}))
		_, err = w.all.OpenKey(w.ctx, c, api.ByUser)
		w.wantCode(err, api.Damaged)
	})
}

func TestCallbackRunsInTheSameTransaction(t *testing.T) {
	each(t, func(w fixture) {
		own := w.policies.Create(t, w.tenant, "mailbox")
		c := w.mailboxes("alice", "bob")[0]
		before := w.dump()
		refuse := func(*store.Tx, container.Container) error { return errRefused }
		_, err := w.all.Create(w.ctx, w.tenant, container.Mailbox, "carol", 0, refuse)
		if err != errRefused {
			t.Error(err)
		}
		if _, err = w.all.Assign(w.ctx, w.tenant, c, own, api.ForRecovery, refuse); err != errRefused {
			t.Error(err)
		}
		if _, err = w.all.SetState(w.ctx, w.tenant, c, envelope.ClassDisabled, refuse); err != errRefused {
			t.Error(err)
		}
		if w.dump() != before {
			t.Error("what was refused stayed")
		}
		var seen container.Container
		see := func(tx *store.Tx, c container.Container) error {
			seen = c
			_, err := tx.Exec(w.ctx, `UPDATE fake_policy SET kind = kind`) // there is a transaction to write in
			return err
		}
		c, err = w.all.Assign(w.ctx, w.tenant, c, own, api.ForRecovery, see)
		w.must(err)
		if seen != c || c != w.find("alice") {
			t.Errorf("saw %+v, got %+v, stored %+v", seen, c, w.find("alice"))
		}
		if c, err = w.all.Create(w.ctx, w.tenant, container.Mailbox, "carol", 0, see); err != nil || seen != c {
			t.Errorf("saw %+v, got %+v, %v", seen, c, err)
		}
	})
}

func TestKilledAtAnyPointChangesAllOrNothing(t *testing.T) {
	storetest.KeepAnswers(t)
	each(t, func(w fixture) {
		own := w.policies.Create(t, w.tenant, "mailbox")
		list := w.mailboxes("alice", "bob", "carol", "dave")
		inactive, err := w.all.SetState(w.ctx, w.tenant, list[3], envelope.ClassInactive)
		w.must(err)
		acts := map[string]func(){
			"create": func() { w.mailbox("eve", 0) },
			"assign": func() { w.all.Assign(w.ctx, w.tenant, list[0], own, api.ForRecovery) },
			"state":  func() { w.all.SetState(w.ctx, w.tenant, list[1], envelope.ClassDisabled) },
			"move":   func() { w.all.MoveKeyAfterAccess(w.ctx, inactive) },
			"fold": func() {
				w.all.Fold(w.ctx, w.tenant, w.parentOfKey(list[2]), envelope.ClassActive)
			},
		}
		w.policies.Refresh(t, w.tenant, w.managed) // gives move something to do
		for _, name := range []string{"one", "two"} {
			w.mailbox(name, 0)
		}
		list[2] = w.find("one")
		keys := map[string]*envelope.Key{}
		for _, c := range []string{"alice", "bob", "carol", "dave", "one", "two"} {
			keys[c], _ = w.key(w.find(c))
		}
		for _, act := range []string{"create", "assign", "state", "move", "fold"} {
			for _, point := range []string{".before-commit", ".after-commit"} {
				before := w.dump()
				if !dieAt(act+point, acts[act]) {
					t.Errorf("%s%s was not reached", act, point)
				}
				if changed := w.dump() != before; changed != (point == ".after-commit") {
					t.Errorf("%s%s: changed is %v", act, point, changed)
				}
				if err := w.checkSlots(); err != nil {
					t.Errorf("%s%s: %v", act, point, err)
				}
				for name, key := range keys {
					if now, _ := w.key(w.find(name)); !now.Equal(key) {
						t.Errorf("%s%s: %s has another key", act, point, name)
					}
				}
			}
		}
	})
}

// dieAt runs f and dies at a fault point; it reports whether that was reached.
func dieAt(point string, f func()) (reached bool) {
	fault.Set(func(name string) {
		if name == point {
			panic(errRefused)
		}
	})
	defer fault.Set(nil)
	defer func() {
		if p := recover(); p != nil {
			if p != any(errRefused) {
				panic(p)
			}
			reached = true
		}
	}()
	f()
	return false
}

func TestPolicyKeyOfReturnsTheParentOfTheKey(t *testing.T) {
	each(t, func(w fixture) {
		c := w.mailbox("alice", 0)
		next := w.policies.Refresh(t, w.tenant, w.managed)
		_, err := w.policies.Roll(w.ctx, w.tenant, w.managed, 100, envelope.ClassActive)
		w.must(err)
		if p := w.parentOfKey(c); p != (keypage.Parent{ID: next.ID, Generation: 2}) {
			t.Errorf("key is under %+v, want %+v", p, next)
		}
		if _, under := w.key(c); under != next.ID {
			t.Errorf("opened under %d, want %d", under, next.ID)
		}
	})
}

func FuzzNamesAreFoundAsWritten(f *testing.F) {
	for _, seed := range []string{"alice@contoso.com", "https://contoso.com/sites/HR/", "İstanbul", "https://[::1]:443/%2f", "https://a:443:443", "ẞ", "https://contoso.com/sites/HR%2fa,b;É"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		for _, kind := range []container.Kind{container.Mailbox, container.Site} {
			normal, err := container.Normalise(kind, name)
			if err != nil {
				if !fail.Is(err, api.InvalidArgument) || len(err.Error()) > math.MaxInt16 {
					t.Errorf("refused with %v", err)
				}
				continue
			}
			exact, folded := normal.Forms()
			again, err := container.Normalise(kind, exact)
			if err != nil || again != normal {
				t.Errorf("%s %q is %q, and that is %q (%v)", kind, name, normal, again, err)
			}
			again, err = container.Normalise(kind, folded)
			if err == nil {
				_, twice := again.Forms()
				if twice != folded {
					t.Errorf("%s %q folds to %q, and that to %q", kind, name, folded, twice)
				}
			}
		}
	})
}

// Two names that were exchanged in the database are not mistaken for each other, and
// a changed one is reported.
func TestExchangedNamesAreDetected(t *testing.T) {
	each(t, func(w fixture) {
		alice, bob := w.mailbox("alice@contoso.com", 0), w.mailbox("bob@contoso.com", 0)
		hash := func(id int64) (h []byte) {
			w.view(func(tx *store.Tx) error {
				return tx.QueryRow(w.ctx, `SELECT name_hash FROM container WHERE id = ?1`, id).Scan(&h)
			})
			return h
		}
		set := func(id int64, h []byte) {
			w.must(w.db.InTx(w.ctx, func(tx *store.Tx) error {
				_, err := tx.Exec(w.ctx, `UPDATE container SET name_hash = ?2 WHERE id = ?1`, id, h)
				return err
			}))
		}
		check := func(c container.Container) (err error) {
			w.view(func(tx *store.Tx) error { _, err = w.all.CheckName(w.ctx, tx, c); return nil })
			return err
		}
		w.must(check(alice))
		a, b := hash(alice.ID), hash(bob.ID)
		set(alice.ID, []byte("elsewhere"))
		w.wantCode(check(alice), api.Damaged)
		set(bob.ID, a)
		set(alice.ID, b)
		_, err := w.all.Find(w.ctx, w.tenant, container.Mailbox, "alice@contoso.com")
		w.wantCode(err, api.Damaged)
		w.wantCode(check(alice), api.Damaged)
		w.wantCode(check(bob), api.Damaged)
	})
}
