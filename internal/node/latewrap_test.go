package node_test

import (
	"context"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fault"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// pair is two nodes on one database, and the test's own connection to it.
type pair struct {
	a, b *nodetest.World
	db   *store.DB
	t    *testing.T

	// While silent, the vaults of a mail policy signal that node a has called them, and
	// wait for answer.
	silent        *atomic.Bool
	asked, answer chan struct{}
}

func startPair(t *testing.T) *pair {
	t.Helper()
	shared := t.TempDir()
	folder := func(name string) string {
		return (&url.URL{Scheme: "file", Path: filepath.Join(shared, name)}).String()
	}
	o := node.Options{Database: storetest.PostgresURL(t), Seal: folder("seal"), Blobs: folder("blobs"), Availability: folder("availability")}
	p := &pair{db: storetest.Open(t, o.Database), t: t, silent: new(atomic.Bool), asked: make(chan struct{}, 100), answer: make(chan struct{})}
	p.b = nodetest.Start(t, o)
	p.a = nodetest.Start(t, o.WithTrouble(func(_ http.ResponseWriter, r *http.Request) bool {
		if p.silent.Load() && strings.HasPrefix(strings.ToLower(r.Host), "contoso-o365ex") {
			p.asked <- struct{}{}
			<-p.answer
		}
		return false
	}))
	return p
}

func (p *pair) inTx(fn func(ctx context.Context, tx *store.Tx) error) {
	p.t.Helper()
	ctx := p.t.Context()
	if err := p.db.InTx(ctx, func(tx *store.Tx) error { return fn(ctx, tx) }); err != nil {
		p.t.Fatal(err)
	}
}

// pause waits before a test checks again.
func pause() { <-time.After(5 * time.Millisecond) }

// waitForBlocked returns when that many transactions wait for a lock of ids.
func (p *pair) waitForBlocked(many int) {
	p.t.Helper()
	for n := 0; n < many; pause() {
		p.inTx(func(ctx context.Context, tx *store.Tx) error {
			return tx.QueryRow(ctx, `SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
				AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`).Scan(&n)
		})
	}
}

// countOlder counts the keys of active mailboxes under older policy keys of MailboxPolicy.
func (p *pair) countOlder() (n int64) {
	p.t.Helper()
	p.inTx(func(ctx context.Context, tx *store.Tx) error {
		return tx.QueryRow(ctx, `SELECT COALESCE(SUM(k.count), 0) FROM key_page k JOIN policy_key g ON g.id = k.parent
			JOIN policy p ON p.id = g.policy WHERE p.name = ?1 AND k.parent <> p.current AND k.class = ?2`, nodetest.MailboxPolicy, envelope.ClassActive).Scan(&n)
	})
	return n
}

// wrapping wraps the key of a mailbox with its policy's current policy key.
var wrapping = []struct {
	name    string
	prepare func(w *nodetest.World, mailbox string)
	do      func(w *nodetest.World, mailbox string) error
}{
	{"create", nil, func(w *nodetest.World, mailbox string) error {
		var in api.CreateMailboxInput
		in.Body.Name, in.Body.Policy = mailbox, nodetest.MailboxPolicy
		_, err := w.Client.CreateMailbox(context.Background(), in)
		return err
	}},
	{"assign", func(w *nodetest.World, mailbox string) {
		w.Mailbox(mailbox, "")
	}, func(w *nodetest.World, mailbox string) error {
		in := api.AssignMailboxInput{MailboxInput: api.MailboxInput{Mailbox: mailbox}}
		in.Body.Policy = nodetest.MailboxPolicy
		_, err := w.Client.AssignMailbox(context.Background(), in)
		return err
	}},
	{"state", func(w *nodetest.World, mailbox string) {
		w.Mailbox(mailbox, nodetest.MailboxPolicy)
		w.SetState(mailbox, api.Inactive)
	}, func(w *nodetest.World, mailbox string) error {
		in := api.SetMailboxStateInput{MailboxInput: api.MailboxInput{Mailbox: mailbox}}
		in.Body.State = api.Active
		_, err := w.Client.SetMailboxState(context.Background(), in)
		return err
	}},
}

// eachAct runs a test of every act on one pair of nodes, of which the first acts
// and the second refreshes.
func eachAct(t *testing.T, test func(p *pair, act string, do func() error)) {
	p := startPair(t)
	p.b.StageMail()
	for _, act := range wrapping {
		t.Run(act.name, func(t *testing.T) {
			p.t, p.answer = t, make(chan struct{})
			mailbox := act.name + "@contoso.com"
			if act.prepare != nil {
				act.prepare(p.b, mailbox)
			}
			p.b.RefreshMail() // a has not opened that policy key yet
			p.b.FinishRoll(nodetest.MailboxPolicy)
			p.b.AddKey(nodetest.VaultA1)
			test(p, act.name, func() error { return act.do(p.a, mailbox) })
			p.b.FinishRoll(nodetest.MailboxPolicy)
			if n := p.countOlder(); n > 0 {
				t.Errorf("%d keys are under an older policy key", n)
			}
			p.b.VerifyClean()
		})
	}
}

// A node is suspended in the transaction that wraps, just before the commit, during a
// whole refresh and its roll on the other node, which has cut its connections. Its late
// wrap is refused.
func TestAWrapPausedDuringARefreshIsRefused(t *testing.T) {
	// Not parallel: fault points are those of the whole process.
	eachAct(t, func(p *pair, act string, do func() error) {
		asleep, wake := make(chan struct{}), make(chan struct{})
		var slept atomic.Bool
		fault.Set(func(name string) {
			if name == act+".before-commit" && slept.CompareAndSwap(false, true) {
				close(asleep)
				<-wake
			}
		})
		defer fault.Set(nil)
		done := make(chan error)
		go func() { done <- do() }()
		<-asleep
		refreshed := p.refresh()
		p.waitForBlocked(1)
		p.inTx(func(ctx context.Context, tx *store.Tx) error { return tx.EndSession(ctx, p.a.Node.DB.Session()) })
		if err := <-refreshed; err != nil {
			p.t.Error(err)
		}
		p.b.FinishRoll(nodetest.MailboxPolicy)
		close(wake)
		err := <-done
		if n := p.countOlder(); n > 0 {
			p.t.Errorf("%d keys came late under an older policy key", n)
		}
		if err != nil { // as a client does
			err = do()
		}
		if err != nil {
			p.t.Error(err)
		}
	})
}

// A node waits for a vault during a whole refresh and its roll on the other node. What
// it then wraps is wrapped again with the current policy key.
func TestAWrapPausedDuringARefreshIsRepeatedUnderTheCurrentKey(t *testing.T) {
	t.Parallel()
	eachAct(t, func(p *pair, _ string, do func() error) {
		p.silent.Store(true)
		done := make(chan error)
		go func() { done <- do() }()
		<-p.asked
		if err := <-p.refresh(); err != nil {
			p.t.Error(err)
		}
		p.b.FinishRoll(nodetest.MailboxPolicy)
		p.silent.Store(false)
		close(p.answer)
		if err := <-done; err != nil {
			p.t.Error(err)
		}
	})
}

// refresh begins a refresh on the second node; the channel returns its error at the end.
func (p *pair) refresh() <-chan error {
	refreshed := make(chan error, 1)
	go func() {
		in := api.RefreshPolicyInput{PolicyInput: api.PolicyInput{Policy: nodetest.MailboxPolicy}}
		in.Body.Depth = api.DepthPolicy
		_, err := p.b.Client.RefreshPolicy(context.Background(), in)
		refreshed <- err
	}()
	return refreshed
}
