package clustertest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/container"
	"keyroll/internal/node/clustertest"
	"keyroll/internal/node/nodetest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// A roll of these takes some four seconds, so that a test comes between.
const (
	mailboxes = 2000
	slots     = "8"
	rate      = "500"
)

// stage is a cluster with many mailboxes under a policy.
type stage struct {
	*clustertest.Cluster
	t  *testing.T
	db *store.DB // beside the nodes
}

func begin(t *testing.T, nodes int) *stage {
	t.Helper()
	s := &stage{clustertest.Start(t, clustertest.Options{Nodes: nodes, Args: []string{"--page-slots", slots, "--roll-rate", rate}}), t, nil}
	s.db = storetest.Open(t, s.Database)
	s.Nodes[0].World().StageMail()
	w := s.Inside()
	names := make([]string, mailboxes)
	for i := range names {
		names[i] = fmt.Sprintf("m%d@contoso.com", i)
	}
	w.CreateMany(container.Mailbox, names, nodetest.MailboxPolicy)
	w.Stop()
	return s
}

// within waits until part of the newest roll is done, and returns the node that
// works on it and the others.
func (s *stage) within() (worker *clustertest.Node, others []*clustertest.Node) {
	s.t.Helper()
	for {
		p, err := s.Nodes[0].World().Client.ShowPolicy(s.t.Context(), api.PolicyInput{Policy: nodetest.MailboxPolicy})
		if err != nil || p.Roll == nil || p.Roll.State != api.RollRunning {
			s.t.Fatalf("no roll runs: %+v, %v", p.Roll, err)
		}
		if p.Roll.Done == 0 || len(p.Roll.Nodes) == 0 {
			continue
		}
		for _, n := range s.Nodes {
			if s.nameOf(n) == p.Roll.Nodes[0] {
				worker = n
			} else {
				others = append(others, n)
			}
		}
		if worker == nil {
			s.t.Fatalf("%v works on the roll, which is none of the nodes", p.Roll.Nodes)
		}
		return worker, others
	}
}

func (s *stage) nameOf(n *clustertest.Node) (name string) {
	s.t.Helper()
	s.view(func(ctx context.Context, tx *store.Tx) error {
		return tx.QueryRow(ctx, `SELECT name FROM node WHERE url = ?1`, n.World().Info.URL).Scan(&name)
	})
	return name
}

func (s *stage) view(fn func(ctx context.Context, tx *store.Tx) error) {
	s.t.Helper()
	ctx := s.t.Context()
	if err := s.db.View(ctx, func(tx *store.Tx) error { return fn(ctx, tx) }); err != nil {
		s.t.Fatal(err)
	}
}

// pages returns every key page as it stands.
func (s *stage) pages() (list []string) {
	s.t.Helper()
	s.view(func(ctx context.Context, tx *store.Tx) error {
		rows, err := tx.Query(ctx, `SELECT id, version, parent, count FROM key_page ORDER BY id`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id, version, parent, count int64
			if err := rows.Scan(&id, &version, &parent, &count); err != nil {
				return err
			}
			list = append(list, fmt.Sprint(id, version, parent, count))
		}
		return rows.Err()
	})
	return list
}

// moved demands that nothing of the policy stands under an older policy key, and
// that everything opens.
func (s *stage) moved(w *nodetest.World, atLeast int) {
	s.t.Helper()
	var older, current int
	s.view(func(ctx context.Context, tx *store.Tx) error {
		return tx.QueryRow(ctx, `SELECT COALESCE(SUM(CASE WHEN k.parent <> p.current THEN k.count END), 0), COALESCE(SUM(CASE WHEN k.parent = p.current THEN k.count END), 0)
			FROM key_page k JOIN policy_key g ON g.id = k.parent JOIN policy p ON p.id = g.policy WHERE p.name = ?1`, nodetest.MailboxPolicy).Scan(&older, &current)
	})
	if older != 0 || current < atLeast {
		s.t.Errorf("%d container keys stand under older policy keys, %d of at least %d under the current one", older, current, atLeast)
	}
	w.VerifyClean()
}

// buried waits until the others have noticed that a node does not answer.
func (s *stage) buried(name string) {
	s.t.Helper()
	for n := 1; n > 0; {
		s.view(func(ctx context.Context, tx *store.Tx) error {
			return tx.QueryRow(ctx, `SELECT COUNT(*) FROM node WHERE name = ?1`, name).Scan(&n)
		})
	}
}

func TestANodeThatIsKilledDuringARollIsReplaced(t *testing.T) {
	s := begin(t, 3)
	s.Nodes[0].World().RefreshMail()
	killed, others := s.within()
	killed.Kill()
	died := time.Now()
	other := others[0].World()
	for took := false; !took; {
		p, err := other.Client.ShowPolicy(t.Context(), api.PolicyInput{Policy: nodetest.MailboxPolicy})
		if err != nil {
			t.Fatal(err)
		}
		if p.Roll.State != api.RollRunning {
			t.Fatalf("the roll ended before another node could take it up: %+v", p.Roll)
		}
		took = len(p.Roll.Nodes) > 0 && (p.Roll.Nodes[0] == s.nameOf(others[0]) || p.Roll.Nodes[0] == s.nameOf(others[1]))
	}
	t.Logf("another node took the roll up after %v", time.Since(died).Round(time.Millisecond))
	other.FinishRoll(nodetest.MailboxPolicy)
	s.moved(other, mailboxes)
	killed.Start()
	s.moved(killed.World(), mailboxes)
}

// A node that stops gives its work back: the next one need not wait for the end
// of a lease.
func TestANodeThatStopsHandsItsWorkOver(t *testing.T) {
	s := begin(t, 2)
	s.Nodes[0].World().RefreshMail()
	stopped, others := s.within()
	name := s.nameOf(stopped)
	stopped.Stop()
	s.view(func(ctx context.Context, tx *store.Tx) error {
		var left int
		err := tx.QueryRow(ctx, `SELECT (SELECT COUNT(*) FROM node WHERE name = ?1) + (SELECT COUNT(*) FROM lease WHERE holder = ?1 AND until > 0)`, name).Scan(&left)
		if left > 0 {
			t.Errorf("%d leases or names are left of a node that stopped", left)
		}
		return err
	})
	others[0].World().FinishRoll(nodetest.MailboxPolicy)
	s.moved(others[0].World(), mailboxes)
}

// A node that was paused past its lease, while the others ended its roll and a
// whole other one, wakes up and changes nothing.
func TestANodeThatWasPausedPastItsLeaseChangesNothing(t *testing.T) {
	s := begin(t, 3)
	s.Nodes[0].World().RefreshMail()
	paused, others := s.within()
	name := s.nameOf(paused)
	paused.Pause()
	defer paused.Resume()
	other := others[0].World()
	other.FinishRoll(nodetest.MailboxPolicy)
	other.RefreshMail()
	other.FinishRoll(nodetest.MailboxPolicy)
	s.buried(name)
	before := s.pages()
	paused.Resume()
	if s.nameOfAgain(paused) != name {
		t.Error("it joined the others under another name")
	}
	s.moved(paused.World(), mailboxes)
	if after := s.pages(); !slices.Equal(before, after) {
		t.Errorf("key pages were changed by a node that slept: %d before, %d after", len(before), len(after))
	}
}

// nameOfAgain waits until a node that was buried has joined the others again.
func (s *stage) nameOfAgain(n *clustertest.Node) (name string) {
	s.t.Helper()
	for name == "" {
		s.view(func(ctx context.Context, tx *store.Tx) error {
			return tx.QueryRow(ctx, `SELECT COALESCE(MAX(name), '') FROM node WHERE url = ?1`, n.World().Info.URL).Scan(&name)
		})
	}
	return name
}

// A node that sleeps through a whole refresh and its roll, in the middle of
// making mailboxes, puts nothing under the older key when it wakes up.
func TestANodeThatSleptThroughARefreshWrapsNothingLate(t *testing.T) {
	s := begin(t, 2)
	sleeper, other := s.Nodes[0], s.Nodes[1].World()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var making sync.WaitGroup
	var mu sync.Mutex
	var made []string
	for worker := range 4 {
		making.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				var in api.CreateMailboxInput
				in.Body.Name, in.Body.Policy = fmt.Sprintf("late%d-%d@contoso.com", worker, i), nodetest.MailboxPolicy
				_, err := sleeper.World().Client.CreateMailbox(ctx, in)
				if err != nil { // its connection to the database was cut
					continue
				}
				mu.Lock()
				made = append(made, in.Body.Name)
				mu.Unlock()
				mbox := fmt.Sprintf("From a@b Thu Jan  1 00:00:00 1970\nSubject: %d\n\nhello\n", i)
				_, _ = sleeper.World().Client.ImportMail(ctx, api.MailboxInput{Mailbox: in.Body.Name}, int64(len(mbox)), strings.NewReader(mbox))
			}
		})
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(made)
	}
	more := func() {
		for enough := count() + 20; count() < enough; {
			time.Sleep(time.Millisecond)
		}
	}
	for range 3 {
		more()
		sleeper.Pause()
		other.RefreshMail()
		other.FinishRoll(nodetest.MailboxPolicy)
		sleeper.Resume()
		more()
	}
	stop()
	making.Wait()
	s.moved(other, mailboxes+count())
	for _, name := range []string{made[0], made[len(made)-1]} {
		if _, err := other.Client.ShowMailbox(t.Context(), api.MailboxInput{Mailbox: name}); err != nil {
			t.Error(err)
		}
	}
}

// Nodes are restarted one after the other during a roll, under a client that
// reads and writes and goes on to the next node when one refuses: every request
// succeeds, and what was written is what is read.
func TestNodesAreRestartedOneByOneWithoutAStop(t *testing.T) {
	s := begin(t, 3)
	const site = "https://contoso.sharepoint.com/sites/finance"
	s.Nodes[0].World().Site(site)
	s.Nodes[0].World().RefreshMail()
	s.within()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var using sync.WaitGroup
	var mu sync.Mutex
	requests, retried := 0, 0
	for worker := range 3 {
		using.Go(func() {
			path := fmt.Sprintf("report%d.txt", worker)
			for i := 0; ctx.Err() == nil; i++ {
				n, err := s.Do(t.Context(), func(ctx context.Context, k *client.Client) error {
					return writeAndRead(ctx, k, site, path, fmt.Sprint("version ", i))
				})
				mu.Lock()
				requests, retried = requests+1, retried+n
				mu.Unlock()
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for _, n := range s.Nodes {
		n.Stop()
		n.Start()
	}
	stop()
	using.Wait()
	w := s.Nodes[0].World()
	w.FinishRoll(nodetest.MailboxPolicy)
	s.moved(w, mailboxes)
	t.Logf("%d requests, of which %d were sent again", requests, retried)
}

func writeAndRead(ctx context.Context, k *client.Client, site, path, content string) error {
	in := api.FileInput{SiteInput: api.SiteInput{Site: site}, Path: path}
	if _, err := k.PutFile(ctx, in, int64(len(content)), strings.NewReader(content)); err != nil {
		return err
	}
	r, err := k.GetFile(ctx, in, 0, -1)
	if err != nil {
		return err
	}
	defer r.Close()
	var got strings.Builder
	if _, err := io.Copy(&got, r); err != nil {
		return err
	}
	if got.String() != content {
		return errors.New("read " + got.String() + " where " + content + " was written")
	}
	return nil
}

// A newer keyroll has brought the schema forward: nodes that run go on, and an
// older program does not start any more.
func TestNodesGoOnWhileTheSchemaIsBroughtForward(t *testing.T) {
	s := begin(t, 2)
	a, b := s.Nodes[0].World(), s.Nodes[1].World()
	a.RefreshMail()
	s.within()
	err := s.db.InTx(t.Context(), func(tx *store.Tx) error {
		for _, statement := range []string{
			`ALTER TABLE container ADD COLUMN later BIGINT NOT NULL DEFAULT 0`, `ALTER TABLE key_page ADD COLUMN later TEXT NOT NULL DEFAULT ''`,
			`ALTER TABLE roll ADD COLUMN later BIGINT NOT NULL DEFAULT 0`, `ALTER TABLE policy ADD COLUMN later BIGINT NOT NULL DEFAULT 0`,
			`ALTER TABLE item ADD COLUMN later BIGINT NOT NULL DEFAULT 0`, `CREATE TABLE later (id BIGINT PRIMARY KEY)`,
			`INSERT INTO schema_version (version_id, is_applied) VALUES (99999, true)`,
		} {
			if _, err := tx.Exec(t.Context(), statement); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	b.Mailbox("new@contoso.com", nodetest.MailboxPolicy)
	a.Import("new@contoso.com", "From a@b Thu Jan  1 00:00:00 1970\nSubject: x\n\nhello\n")
	if !strings.Contains(b.Export("new@contoso.com"), "hello") {
		t.Error("the message is not there")
	}
	b.FinishRoll(nodetest.MailboxPolicy)
	s.moved(b, mailboxes+1)
	s.Nodes[0].Stop()
	if said := s.Nodes[0].Refused(); !strings.Contains(said, "[NewerFormat]") {
		t.Errorf("an older program said %q", said)
	}
	s.moved(b, mailboxes+1)
}
