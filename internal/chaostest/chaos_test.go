// Package chaostest runs nodes on one database and one blob store and injects random
// failures into all three while users work and policies roll.
package chaostest_test

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/blob/s3test"
	"keyroll/internal/container"
	"keyroll/internal/lease"
	"keyroll/internal/longtest"
	"keyroll/internal/node/clustertest"
	"keyroll/internal/node/nodetest"
	"keyroll/internal/proxytest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

var chaosFor = flag.Duration("chaos", time.Duration(longtest.Of(3, 60))*time.Second, "how long TestChaos harms the nodes and the services that they use")

const (
	nodes     = 3
	mailboxes = 60
	sites     = 20
	writers   = 3 // of each kind
)

// TestChaos kills nodes, pauses them past their leases, and cuts and stalls their
// connections to the database and the blob store, of one node or of all, while users
// write and read and policies of mailboxes and of sites roll at all depths. No request
// may fail permanently, all acknowledged content must be found and nothing else, and at
// the end everything can be decrypted and is under the newest policy key.
func TestChaos(t *testing.T) {
	s := startStage(t)
	t.Cleanup(s.logOutputs)
	load, stop := context.WithTimeout(t.Context(), *chaosFor)
	defer stop()
	people, ctx := errgroup.WithContext(t.Context())
	during := func(act func(ctx context.Context) error) {
		people.Go(func() error {
			for load.Err() == nil && ctx.Err() == nil {
				if err := act(ctx); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for i := range writers {
		f := &files{user: s.user, site: siteName(i)}
		m := &mails{user: s.user, mailbox: mailboxName(i), unsure: map[string]bool{}}
		s.files, s.mails = append(s.files, f), append(s.mails, m)
		during(f.putOrRead)
		during(m.importOrRead)
	}
	s.rolls = []*rolls{
		{user: s.user, policy: nodetest.MailboxPolicy, vaults: []string{nodetest.VaultA1, nodetest.VaultA2},
			depths: []api.Depth{api.DepthRoot, api.DepthPolicy, api.DepthContainer, api.DepthContent}},
		{user: s.user, policy: nodetest.SitePolicy, vaults: []string{nodetest.VaultS1, nodetest.VaultS2}, updates: true,
			depths: []api.Depth{api.DepthPolicy, api.DepthContainer, api.DepthContent}},
	}
	for _, r := range s.rolls {
		r.begun = map[api.Depth]int{}
		during(r.rollOnce)
	}
	c := &collections{user: s.user}
	during(c.collect)
	harms := s.injectFailures(ctx)
	if err := people.Wait(); err != nil {
		t.Fatal(err)
	}
	s.checkFinalState(t.Context())
	t.Logf("harms: %v; requests sent again: %d", harms, s.retries.Load())
	t.Logf("%d collections, which deleted %d objects and then moved %d blobs", c.done, c.removed, c.moved)
	for _, r := range s.rolls {
		t.Logf("rolls of %s: %v", r.policy, r.begun)
	}
	for i := range writers {
		t.Logf("%d puts and %d reads of files, %d messages and %d reads of them", s.files[i].puts, s.files[i].reads, len(s.mails[i].sent), s.mails[i].reads)
	}
}

// logOutputs logs the last output of the nodes if the test has failed.
func (s *stage) logOutputs() {
	if !s.t.Failed() {
		return
	}
	for i, n := range s.Nodes {
		if !n.Ended() {
			n.Kill()
		}
		var last []string
		for line := range strings.Lines(n.Log()) {
			if strings.Contains(line, "level=ERROR") || strings.Contains(line, "level=WARN") {
				last = append(last, line)
			}
		}
		s.t.Logf("node %d:\n%s", i, strings.Join(last[max(0, len(last)-20):], ""))
	}
}

type stage struct {
	*clustertest.Cluster
	user
	t         *testing.T
	db        *store.DB // beside the nodes
	databases []*proxytest.Proxy
	blobs     []*proxytest.Proxy
	files     []*files
	mails     []*mails
	rolls     []*rolls
}

func siteName(i int) string    { return fmt.Sprintf("https://contoso.sharepoint.com/sites/s%d", i) }
func mailboxName(i int) string { return fmt.Sprintf("m%d@contoso.com", i) }

func startStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{t: t}
	objects := s3test.Start(t)
	objects.Setenv(t)
	o := clustertest.Options{Nodes: nodes, Database: storetest.PostgresURL(t), Blobs: objects.URL(objects.Addr, "chaos"), Args: []string{"--page-slots", "8"}}
	for range nodes {
		s.blobs = append(s.blobs, proxytest.New(t, "tcp", objects.Addr))
		s.databases = append(s.databases, proxytest.New(t, "unix", storetest.Socket(o.Database)))
	}
	o.Reach = func(i int) (database, blobs string) {
		return storetest.Through(o.Database, s.databases[i].Addr()), objects.URL(s.blobs[i].Addr(), "chaos")
	}
	s.Cluster = clustertest.Start(t, o)
	s.user = user{cluster: s.Cluster, retries: new(atomic.Int64)}
	s.db = storetest.Open(t, o.Database)
	w := s.Nodes[0].World()
	w.StageMail()
	w.StageSites()
	inside := s.Inside()
	inside.CreateMany(container.Mailbox, names(mailboxes, mailboxName), nodetest.MailboxPolicy)
	inside.CreateMany(container.Site, names(sites, siteName), "")
	inside.Stop()
	return s
}

func names(n int, name func(i int) string) (list []string) {
	for i := range n {
		list = append(list, name(i))
	}
	return list
}

// injectFailures injects failures until ctx or the time ends, and returns how often each was
// injected. It runs in the test's own goroutine, because starting a node may end the
// test.
func (s *stage) injectFailures(ctx context.Context) map[string]int {
	s.t.Helper()
	done := map[string]int{}
	for end := time.Now().Add(*chaosFor); time.Now().Before(end) && ctx.Err() == nil; {
		harms := []harm{s.randomFailure()}
		if more := s.randomFailure(); rand.IntN(2) == 0 && more.target != harms[0].target {
			harms = append(harms, more)
		}
		for _, h := range harms {
			done[h.name]++
			h.begin()
			sleep(ctx, h.most)
		}
		// A node can start only if it can access its database and blob store.
		slices.SortStableFunc(harms, func(a, b harm) int { return cmp.Compare(a.target, b.target) })
		for _, h := range harms {
			h.end()
		}
		sleep(ctx, time.Second)
	}
	return done
}

func sleep(ctx context.Context, most time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(rand.N(most)):
	}
}

// harm is one failure of limited duration, and its repair.
type harm struct {
	name       string
	target     string
	most       time.Duration
	begin, end func()
}

// randomFailure returns a random failure to inject.
func (s *stage) randomFailure() harm {
	i := rand.IntN(nodes)
	n := s.Nodes[i]
	node := fmt.Sprint("node ", i)
	paused := 2 * lease.Term
	kinds := []harm{
		{"kill", node, time.Second, n.Kill, n.Start},
		{"pause", node, paused, n.Pause, n.Resume},
	}
	for what, proxies := range map[string][]*proxytest.Proxy{"database": s.databases, "blobs": s.blobs} {
		if len(proxies) == 0 {
			continue
		}
		one, all := proxies[i:i+1], what+" of all"
		kinds = append(kinds,
			harm{"cut " + what, what, 2 * time.Second, forEachProxy(one, (*proxytest.Proxy).Cut), forEachProxy(one, (*proxytest.Proxy).Heal)},
			harm{"cut " + all, what, 2 * time.Second, forEachProxy(proxies, (*proxytest.Proxy).Cut), forEachProxy(proxies, (*proxytest.Proxy).Heal)},
			harm{"stall " + what, what, paused, forEachProxy(one, (*proxytest.Proxy).Stall), forEachProxy(one, (*proxytest.Proxy).Resume)},
			harm{"stall " + all, what, paused, forEachProxy(proxies, (*proxytest.Proxy).Stall), forEachProxy(proxies, (*proxytest.Proxy).Resume)})
	}
	return kinds[rand.IntN(len(kinds))]
}

func forEachProxy(proxies []*proxytest.Proxy, do func(p *proxytest.Proxy)) func() {
	return func() {
		for _, p := range proxies {
			do(p)
		}
	}
}

// rolls is an administrator who rolls one policy repeatedly.
type rolls struct {
	user
	policy string
	vaults []string // of the primary and of the secondary key
	depths []api.Depth
	// updates says that a roll of depth policy is started by an update of a key, as for
	// site policies.
	updates bool
	begun   map[api.Depth]int
}

func (r *rolls) rollOnce(ctx context.Context) error {
	depth := r.depths[rand.IntN(len(r.depths))]
	update := r.updates && depth == api.DepthPolicy
	if update || rand.IntN(2) == 0 {
		// It may fail if the node has a failure; a running roll is waited for in either case.
		_ = r.newVersion(rand.IntN(nodes))
	}
	if update {
		return r.waitForRoll(ctx)
	}
	return r.roll(ctx, depth)
}

// newVersion makes a version of one of the policy's keys, and updates the policy to it if
// updates is set.
func (r *rolls) newVersion(node int) error {
	which := rand.IntN(len(r.vaults))
	vault := r.vaults[which]
	script := []string{"$a = " + nodetest.AddKeyLine(vault)}
	if r.updates {
		script = append(script, r.cluster.Nodes[node].World().UpdateSitesLine(vault, []string{"Primary", "Secondary"}[which]))
	}
	_, err := r.cluster.Nodes[node].World().TryScript(script...)
	if err == nil && r.updates {
		r.begun[api.DepthPolicy]++
	}
	return err
}

// finalRoll runs one more roll, without failures.
func (r *rolls) finalRoll(ctx context.Context) error {
	if !r.updates {
		return r.roll(ctx, api.DepthPolicy)
	}
	if err := r.newVersion(0); err != nil {
		return err
	}
	return r.waitForRoll(ctx)
}

// roll refreshes the policy and waits until no roll of it runs.
func (r *rolls) roll(ctx context.Context, depth api.Depth) error {
	in := api.RefreshPolicyInput{PolicyInput: api.PolicyInput{Policy: r.policy}}
	in.Body.Depth = depth
	_, err := r.retry(ctx, func(ctx context.Context, k *client.Client) error {
		_, err := k.RefreshPolicy(ctx, in)
		return err
	})
	var p *api.Problem
	if errors.As(err, &p) && p.Code == api.NoNewVersion {
		return nil
	}
	if err != nil {
		return fmt.Errorf("refresh %s at depth %s: %w", r.policy, in.Body.Depth, err)
	}
	r.begun[in.Body.Depth]++
	return r.waitForRoll(ctx)
}

// longestRoll is longer than any roll takes here, even with failures; a roll that has not
// ended by then is stuck.
const longestRoll = 10 * time.Minute

// waitForRoll waits until no roll of the policy runs.
func (r *rolls) waitForRoll(ctx context.Context) error {
	for begin := time.Now(); ; {
		var p api.Policy
		if _, err := r.retry(ctx, func(ctx context.Context, k *client.Client) (err error) {
			p, err = k.ShowPolicy(ctx, api.PolicyInput{Policy: r.policy})
			return err
		}); err != nil {
			return fmt.Errorf("show %s: %w", r.policy, err)
		}
		switch {
		case p.Roll == nil || p.Roll.State == api.RollFinished:
			return nil
		case p.Roll.State != api.RollRunning:
			return fmt.Errorf("the roll of %s ended as %s: %s", r.policy, p.Roll.State, p.Roll.Message)
		case time.Since(begin) > longestRoll:
			return fmt.Errorf("the roll of %s has not ended in %v: %+v", r.policy, longestRoll, *p.Roll)
		}
		sleep(ctx, 100*time.Millisecond)
	}
}

// checkFinalState checks what must hold once all failures are repaired.
func (s *stage) checkFinalState(ctx context.Context) {
	s.t.Helper()
	for _, n := range s.Nodes {
		if n.Ended() {
			s.t.Fatalf("a node ended by itself:\n%s", n.Log())
		}
	}
	w := s.Nodes[0].World()
	for _, r := range s.rolls {
		if err := r.finalRoll(ctx); err != nil {
			s.t.Fatal(err)
		}
	}
	for i := range writers {
		if err := s.files[i].readAll(ctx); err != nil {
			s.t.Error(err)
		}
		if err := s.mails[i].readAll(ctx); err != nil {
			s.t.Error(err)
		}
	}
	w.VerifyClean()
	err := s.db.ViewOnce(ctx, func(tx *store.Tx) error {
		var twice int
		err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM (SELECT p.id FROM policy p JOIN policy_key g ON g.policy = p.id JOIN key_page k ON k.parent = g.id GROUP BY p.id HAVING COUNT(DISTINCT g.id) > 1) AS n`).Scan(&twice)
		if err == nil && twice > 0 {
			s.t.Errorf("%d policies have keys under two policy keys after their last rolls", twice)
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
}
