package crashtest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/longtest"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
	"keyroll/internal/store"
)

const (
	killPages     = 210
	killSlots     = 8
	killRate      = 200 // containers a second: no kill comes after a roll's end, on any machine
	killMailboxes = killPages * killSlots
)

// TestKilledDuringRollsOfManyPagesLosesNoKey kills the real command at random
// moments of rolls: once a number of mailboxes have moved that is drawn each time.
func TestKilledDuringRollsOfManyPagesLosesNoKey(t *testing.T) {
	program := filepath.Join(t.TempDir(), "keyroll")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "keyroll/cmd/keyroll").CombinedOutput(); err != nil {
		t.Fatalf("build keyroll: %v\n%s", err, out)
	}
	staged := manyMailboxes(t)
	rolls := 0
	left := int64(0)
	for range longtest.Of(5, 20) {
		child := serve(t, program, staged)
		if left < killMailboxes/2 {
			nextRoll(t, staged.data, left > 0)
			rolls++
		}
		waitMoved(t, staged.data, 1+rand.Int64N(killRate))
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-child.ended
		expireLeases(t, staged.database)
		left = countUnmoved(t, staged) // before another process goes on with the roll
		if left == 0 || left == killMailboxes {
			t.Errorf("killed with %d mailboxes left of %d: that is not within the roll", left, killMailboxes)
		}
	}

	w := nodetest.Start(t, node.Options{Data: staged.data, Database: staged.database})
	w.FinishRoll(nodetest.MailboxPolicy)
	if v := w.VerifyClean(); v.Containers < killMailboxes {
		t.Errorf("%d container keys opened, fewer than the %d mailboxes", v.Containers, killMailboxes)
	}
	checkSettled(t, w)
	p, err := w.Client.ShowPolicy(t.Context(), api.PolicyInput{Policy: nodetest.MailboxPolicy})
	if err != nil {
		t.Fatal(err)
	}
	if int(p.Generation) != 1+rolls {
		t.Errorf("%d refreshes led to generation %d", rolls, p.Generation)
	}
	if n := mailboxesUnder(t, w, p.Revision); n != killMailboxes {
		t.Errorf("%d of %d mailboxes have the current key", n, killMailboxes)
	}
}

// manyMailboxes prepares full pages of mailboxes under a policy.
func manyMailboxes(t *testing.T) prepared {
	t.Helper()
	p := empty(t)
	p.data = nodetest.Folder(t)
	w := nodetest.Start(t, node.Options{Data: p.data, Database: p.database, PageSlots: killSlots})
	w.StageMail()
	names := make([]string, killMailboxes)
	for i := range names {
		names[i] = fmt.Sprintf("m%d@contoso.com", i)
	}
	w.CreateMany(container.Mailbox, names, nodetest.MailboxPolicy)
	w.Stop()
	return p
}

func mailboxesUnder(t *testing.T, w *nodetest.World, revision string) (n int) {
	t.Helper()
	for in := (api.ListInput{PageInput: api.PageInput{Limit: 1000}}); ; {
		list, err := w.Client.ListMailboxes(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range list.Items {
			if m.Protection.DataEncryptionPolicyID == revision {
				n++
			}
		}
		if in.After = list.Next; in.After == "" {
			return n
		}
	}
}

// served is a keyroll that runs and is ready.
type served struct {
	*exec.Cmd
	ended chan error
	log   *bytes.Buffer // to be read when it has ended
}

func serve(t *testing.T, program string, p prepared) served {
	t.Helper()
	ready := filepath.Join(p.data, node.InfoFile)
	if err := os.Remove(ready); err != nil && !errors.Is(err, fs.ErrNotExist) { // a killed one leaves it
		t.Fatal(err)
	}
	s := served{exec.Command(program, "serve", "--data", p.data, "--listen", "127.0.0.1:0",
		"--page-slots", strconv.Itoa(killSlots), "--roll-rate", strconv.Itoa(killRate)), make(chan error, 1), new(bytes.Buffer)}
	if p.database != "" {
		s.Args = append(s.Args, "--database", p.database)
	}
	s.Stdout, s.Stderr = s.log, s.log
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Process.Kill() }) // if the test ends before it was killed
	go func() { s.ended <- s.Wait() }()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(ready); !errors.Is(err, fs.ErrNotExist) {
			return s
		}
		select {
		case err := <-s.ended:
			t.Fatalf("keyroll ended before it was ready: %v\n%s", err, s.log)
		case <-tick.C:
		}
	}
}

// nextRoll begins a roll in a running keyroll, after the one before has finished.
func nextRoll(t *testing.T, data string, running bool) {
	t.Helper()
	w := nodetest.Connect(t, data)
	if running {
		w.FinishRoll(nodetest.MailboxPolicy)
	}
	w.RefreshMail()
	w.Stop()
}

// waitMoved waits until n more mailboxes have moved.
func waitMoved(t *testing.T, data string, more int64) {
	t.Helper()
	w := nodetest.Connect(t, data)
	defer w.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for first := int64(-1); ; <-tick.C {
		p, err := w.Client.ShowPolicy(t.Context(), api.PolicyInput{Policy: nodetest.MailboxPolicy})
		if err != nil {
			t.Fatal(err)
		}
		if first < 0 {
			first = p.Roll.Done
		}
		if p.Roll.Done >= first+more || p.Roll.State != api.RollRunning {
			return
		}
	}
}

// countUnmoved counts the mailboxes that are not under the current policy key, in the database
// of a killed keyroll.
func countUnmoved(t *testing.T, p prepared) (n int64) {
	t.Helper()
	ctx := context.Background()
	db, err := store.Open(ctx, cmp.Or(p.database, "sqlite://"+filepath.Join(p.data, node.DatabaseFile)))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.ViewOnce(ctx, func(tx *store.Tx) error {
		return tx.QueryRow(ctx, `SELECT coalesce(sum(k.count), 0) FROM key_page k JOIN policy_key g ON g.id = k.parent
			JOIN policy p ON p.id = g.policy WHERE p.name = ?1 AND k.parent <> p.current`, nodetest.MailboxPolicy).Scan(&n)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
