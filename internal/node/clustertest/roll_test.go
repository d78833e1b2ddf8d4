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

// A roll of these takes about four seconds, so that a test can act meanwhile.
const (
	mailboxes = 240
	slots     = 4
	rate      = "60"
)

// stage is a cluster with many mailboxes under a policy.
type stage struct {
	*clustertest.Cluster
	t  *testing.T
	db *store.DB // beside the nodes
}

func startStage(t *testing.T, nodes int, args ...string) *stage {
	t.Helper()
	s := &stage{clustertest.Start(t, clustertest.Options{Nodes: nodes, PageSlots: slots, Args: args}), t, nil}
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

// waitForProgress waits until a part of the newest roll is done, and returns the node that works
// on it and the others.
func (s *stage) waitForProgress() (worker *clustertest.Node, others []*clustertest.Node) {
	s.t.Helper()
	for ; ; pause() {
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
			s.t.Fatalf("%v works on the roll, which are not all nodes of the cluster", p.Roll.Nodes)
		}
		return worker, others
	}
}

// pause waits before a test checks again.
func pause() { <-time.After(10 * time.Millisecond) }

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
	if err := s.db.ViewOnce(ctx, func(tx *store.Tx) error { return fn(ctx, tx) }); err != nil {
		s.t.Fatal(err)
	}
}

// pages returns every key page.
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

// wantAllMoved fails the test if anything of the policy is under an older policy key, or
// cannot be decrypted.
func (s *stage) wantAllMoved(w *nodetest.World, atLeast int) {
	s.t.Helper()
	var older, current int
	s.view(func(ctx context.Context, tx *store.Tx) error {
		return tx.QueryRow(ctx, `SELECT COALESCE(SUM(CASE WHEN k.parent <> p.current THEN k.count END), 0), COALESCE(SUM(CASE WHEN k.parent = p.current THEN k.count END), 0)
			FROM key_page k JOIN policy_key g ON g.id = k.parent JOIN policy p ON p.id = g.policy WHERE p.name = ?1`, nodetest.MailboxPolicy).Scan(&older, &current)
	})
	if older != 0 || current < atLeast {
		s.t.Errorf("%d container keys are under older policy keys, %d of at least %d under the current one", older, current, atLeast)
	}
	w.VerifyClean()
}

// waitEvicted waits until the others have evicted a node.
func (s *stage) waitEvicted(name string) {
	s.t.Helper()
	for n := 1; n > 0; pause() {
		s.view(func(ctx context.Context, tx *store.Tx) error {
			return tx.QueryRow(ctx, `SELECT COUNT(*) FROM node WHERE name = ?1`, name).Scan(&n)
		})
	}
}

// A node that dies during a roll is replaced within seconds; one that is stopped hands
// its work over at once; and one that was paused past its lease, while the others
// finished its roll and another one, resumes and changes nothing.
func TestANodeThatIsKilledStoppedOrPausedDuringARollIsReplaced(t *testing.T) {
	s := startStage(t, 3, "--roll-rate", rate)

	s.Nodes[0].World().RefreshMail()
	killed, others := s.waitForProgress()
	killed.Kill()
	died := time.Now()
	other := others[0].World()
	for took := false; !took; pause() {
		p, err := other.Client.ShowPolicy(t.Context(), api.PolicyInput{Policy: nodetest.MailboxPolicy})
		if err != nil {
			t.Fatal(err)
		}
		if p.Roll.State != api.RollRunning {
			t.Fatalf("the roll ended before another node could take it up: %+v", p.Roll)
		}
		took = len(p.Roll.Nodes) > 0 && (p.Roll.Nodes[0] == s.nameOf(others[0]) || p.Roll.Nodes[0] == s.nameOf(others[1]))
	}
	t.Logf("another node took the roll of a killed one up after %v", time.Since(died).Round(time.Millisecond))
	other.FinishRoll(nodetest.MailboxPolicy)
	killed.Start()

	killed.World().RefreshMail()
	stopped, others := s.waitForProgress()
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
	stopped.Start()

	stopped.World().RefreshMail()
	paused, others := s.waitForProgress()
	name = s.nameOf(paused)
	paused.Pause()
	other = others[0].World()
	other.FinishRoll(nodetest.MailboxPolicy)
	other.RefreshMail()
	other.FinishRoll(nodetest.MailboxPolicy)
	s.waitEvicted(name)
	before := s.pages()
	paused.Resume()
	if again := s.waitRegistered(paused); again != name {
		t.Errorf("it joined the others as %s, not as %s", again, name)
	}
	s.wantAllMoved(paused.World(), mailboxes)
	if after := s.pages(); !slices.Equal(before, after) {
		t.Errorf("key pages were changed by a node that slept: %d before, %d after", len(before), len(after))
	}
}

// waitRegistered waits until an evicted node has registered again.
func (s *stage) waitRegistered(n *clustertest.Node) (name string) {
	s.t.Helper()
	for ; name == ""; pause() {
		s.view(func(ctx context.Context, tx *store.Tx) error {
			return tx.QueryRow(ctx, `SELECT COALESCE(MAX(name), '') FROM node WHERE url = ?1`, n.World().Info.URL).Scan(&name)
		})
	}
	return name
}

// A node that is suspended in the middle of making mailboxes, during a whole refresh and
// its roll, wraps nothing with the older key when it resumes.
func TestANodePausedDuringARefreshWrapsNothingUnderTheOldKey(t *testing.T) {
	s := startStage(t, 2)
	sleeper, other := s.Nodes[0], s.Nodes[1].World()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	made := make(chan string, 1<<16)
	var making sync.WaitGroup
	for worker := range 4 {
		making.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				var in api.CreateMailboxInput
				in.Body.Name, in.Body.Policy = fmt.Sprintf("late%d-%d@contoso.com", worker, i), nodetest.MailboxPolicy
				if _, err := sleeper.World().Client.CreateMailbox(ctx, in); err != nil { // its connection to the database was cut
					continue
				}
				made <- in.Body.Name
			}
		})
	}
	all := 0
	more := func() (last string) {
		for range max(20, len(made)) {
			last = <-made
			all++
		}
		return last
	}
	more()
	sleeper.Pause()
	other.RefreshMail()
	other.FinishRoll(nodetest.MailboxPolicy)
	sleeper.Resume()
	if _, err := other.Client.ShowMailbox(t.Context(), api.MailboxInput{Mailbox: more()}); err != nil {
		t.Error(err)
	}
	stop()
	making.Wait()
	s.wantAllMoved(other, mailboxes+all)
}

// A newer keyroll migrates the schema and replaces the older one, a node at a time,
// during a roll and with clients that try the next node when one refuses: every
// request succeeds, and content is read as it was written. An older program no longer
// starts.
func TestRollingUpgradeToANewerVersionCausesNoDowntime(t *testing.T) {
	s := startStage(t, 2, "--roll-rate", rate)
	const site = "https://contoso.sharepoint.com/sites/finance"
	s.Nodes[0].World().Site(site)
	s.Nodes[0].World().RefreshMail()
	s.waitForProgress()
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
	served := func() (n int) {
		mu.Lock()
		defer mu.Unlock()
		return requests
	}
	for _, table := range s.tables() {
		s.change(`ALTER TABLE ` + table + ` ADD COLUMN of_the_next_version TEXT NOT NULL DEFAULT ''`)
	}
	for enough := served() + 30; served() < enough && !t.Failed(); pause() { // both nodes, on the newer schema
	}
	for _, n := range s.Nodes {
		n.Stop()
		n.Start()
	}
	stop()
	using.Wait()
	w := s.Nodes[0].World()
	w.FinishRoll(nodetest.MailboxPolicy)
	s.wantAllMoved(w, mailboxes)
	t.Logf("%d requests, of which %d were sent again", requests, retried)

	s.change(`INSERT INTO schema_version (version_id, is_applied) VALUES (99999, true)`)
	s.Nodes[1].Stop()
	if said := s.Nodes[1].Refused(); !strings.Contains(said, "[NewerFormat]") {
		t.Errorf("an older program said %q", said)
	}
	w.VerifyClean() // by the one that has run on
}

// tables returns keyroll's tables.
func (s *stage) tables() (list []string) {
	s.t.Helper()
	s.view(func(ctx context.Context, tx *store.Tx) error {
		rows, err := tx.Query(ctx, `SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema() AND table_name <> 'schema_version' ORDER BY 1`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var table string
			if err := rows.Scan(&table); err != nil {
				return err
			}
			list = append(list, table)
		}
		return rows.Err()
	})
	return list
}

func (s *stage) change(statement string) {
	s.t.Helper()
	ctx := s.t.Context()
	if err := s.db.InTx(ctx, func(tx *store.Tx) error { _, err := tx.Exec(ctx, statement); return err }); err != nil {
		s.t.Fatal(err)
	}
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
