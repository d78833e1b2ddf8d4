package node_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/longtest"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
)

var soakFor = flag.Duration("soak", time.Duration(longtest.Of(2, 30))*time.Second, "how long TestSoak keeps keyroll under load")

// outages makes one vault after the other unavailable for a while, never two of the same
// policy at a time.
type outages struct{ away atomic.Pointer[string] }

func (o *outages) disconnects(host string) bool {
	name := o.away.Load()
	return name != nil && strings.HasPrefix(strings.ToLower(host), strings.ToLower(*name)+".")
}

// TestSoak keeps a node under mixed load: users read and write mail and files,
// admins assign, change states and roll policies of all three kinds, while one vault after
// the other has an outage and cached policy keys are dropped. No request of a user may
// fail, all content must be read as it was written, and at the end everything can be
// decrypted.
func TestSoak(t *testing.T) {
	var vaults outages
	o := node.Options{PageSlots: 8, Logger: slog.New(slog.DiscardHandler)}
	w := nodetest.StartUsing(t, o, nodetest.StartOutside(t, o.WithOutage(vaults.disconnects)))
	w.StageMail()
	w.StageSites()
	w.StageWork()
	w.AssignTenant(nodetest.WorkPolicy)
	s := &soak{World: w, counts: map[string]*atomic.Int64{}}
	s.fill(container.Mailbox, nodetest.MailboxPolicy, "m%d@contoso.com", 60)
	s.fill(container.Site, "", "https://contoso.sharepoint.com/sites/s%d", 30)

	load, stop := context.WithTimeout(t.Context(), *soakFor)
	defer stop()
	users, ctx := errgroup.WithContext(t.Context())
	during := func(what string, do func(i int) error) {
		n := new(atomic.Int64)
		s.counts[what] = n
		users.Go(func() error {
			for i := 0; load.Err() == nil && ctx.Err() == nil; i++ {
				if err := do(i); err != nil {
					return fmt.Errorf("%s %d: %w", what, i, err)
				}
				n.Add(1)
			}
			return nil
		})
	}
	for u := range 2 {
		during(fmt.Sprintf("mail of user %d", u), s.mail(ctx, u))
		during(fmt.Sprintf("files of user %d", u), s.files(ctx, u))
	}
	during("workload items", s.items(ctx))
	during("assignments", s.assign(ctx))
	during("mail rolls", s.roll(ctx, nodetest.MailboxPolicy, nodetest.VaultA1, nodetest.VaultA2))
	during("site rolls", s.rollSites(ctx))
	during("rolls for the tenant", s.roll(ctx, nodetest.WorkPolicy, nodetest.VaultW1, nodetest.VaultW2))
	users.Go(func() error { return s.interruptVaults(load, &vaults) })
	if err := users.Wait(); err != nil {
		t.Fatal(err)
	}
	for what, n := range s.counts {
		t.Logf("%s: %d", what, n.Load())
		if n.Load() == 0 {
			t.Errorf("%s: nothing was done", what)
		}
	}
	w.FinishRoll(nodetest.MailboxPolicy)
	w.FinishRoll(nodetest.SitePolicy)
	w.FinishRoll(nodetest.WorkPolicy)
	w.Node.Upkeep.Wait()
	w.VerifyClean()
}

// soak is a world under load.
type soak struct {
	*nodetest.World
	mailboxes, sites []string
	counts           map[string]*atomic.Int64
}

func (s *soak) fill(kind container.Kind, policy, form string, n int) {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf(form, i))
	}
	s.CreateMany(kind, names, policy)
	if kind == container.Mailbox {
		s.mailboxes = names
	} else {
		s.sites = names
	}
}

// mail imports a message and reads the whole mailbox back. Mailboxes only grow, so a
// user changes to another one from time to time.
func (s *soak) mail(ctx context.Context, user int) func(i int) error {
	written := ""
	return func(i int) error {
		if i%40 == 0 {
			written = ""
		}
		name := s.mailboxes[20*user+i/40%20]
		if i%40 == 0 {
			var err error
			if written, err = exportMail(ctx, s.World, name); err != nil {
				return err
			}
		}
		message := fmt.Sprintf("From u%d Thu Jan  1 00:00:00 2026\nSubject: %d\n\nbody %d\n\n", user, i, i)
		if err := importMail(ctx, s.World, name, message); err != nil {
			return err
		}
		written += message
		got, err := exportMail(ctx, s.World, name)
		if err == nil && got != written {
			err = fmt.Errorf("%d bytes read, %d written", len(got), len(written))
		}
		return err
	}
}

func (s *soak) files(ctx context.Context, user int) func(i int) error {
	return func(i int) error {
		in := api.FileInput{SiteInput: api.SiteInput{Site: s.sites[15*user+i%15]}, Path: "f"}
		content := bytes.Repeat([]byte{byte('a' + i%26)}, 1000+7*(i%1000))
		if _, err := s.Client.PutFile(ctx, in, int64(len(content)), bytes.NewReader(content)); err != nil {
			return err
		}
		got, err := getFile(ctx, s.World, in)
		if err == nil && !bytes.Equal(got, content) {
			err = fmt.Errorf("%d bytes read, %d written", len(got), len(content))
		}
		return err
	}
}

// items stores and reads items of a workload store.
func (s *soak) items(ctx context.Context) func(i int) error {
	return func(i int) error {
		in := api.WorkloadItemInput{WorkloadInput: api.WorkloadInput{Workload: "chat-messages"}, Item: fmt.Sprintf("thread %d", i%15)}
		content := bytes.Repeat([]byte{byte('a' + i%26)}, 1000+7*(i%1000))
		if _, err := s.Client.PutWorkloadItem(ctx, in, int64(len(content)), bytes.NewReader(content)); err != nil {
			return err
		}
		got, err := readAll(s.Client.GetWorkloadItem(ctx, in))
		if err == nil && !bytes.Equal(got, content) {
			err = fmt.Errorf("%d bytes read, %d written", len(got), len(content))
		}
		return err
	}
}

// assign assigns policies to mailboxes that users do not write to.
func (s *soak) assign(ctx context.Context) func(i int) error {
	return func(i int) error {
		assign := api.AssignMailboxInput{MailboxInput: api.MailboxInput{Mailbox: s.mailboxes[40+i%10]}}
		assign.Body.Policy = []string{"", nodetest.MailboxPolicy}[i/10%2]
		if _, err := s.Client.AssignMailbox(ctx, assign); err != nil {
			return err
		}
		state := api.SetMailboxStateInput{MailboxInput: api.MailboxInput{Mailbox: s.mailboxes[50+i%10]}}
		state.Body.State = []api.MailboxState{api.Inactive, api.Active}[i/10%2]
		_, err := s.Client.SetMailboxState(ctx, state)
		return err
	}
}

// roll adds a version to one key of a policy that names none, and refreshes it.
func (s *soak) roll(ctx context.Context, policy string, vaults ...string) func(i int) error {
	return func(i int) error {
		vault := vaults[i%len(vaults)]
		return s.retryAct(ctx, func() error {
			if _, err := s.TryScript(nodetest.AddKeyLine(vault)); err != nil {
				return err
			}
			_, err := s.Client.RefreshPolicy(ctx, api.RefreshPolicyInput{PolicyInput: api.PolicyInput{Policy: policy}})
			return err
		})
	}
}

func (s *soak) rollSites(ctx context.Context) func(i int) error {
	return func(i int) error {
		vault, which := nodetest.VaultS1, "Primary"
		if i%2 == 1 {
			vault, which = nodetest.VaultS2, "Secondary"
		}
		return s.retryAct(ctx, func() error {
			_, err := s.TryScript("$a = "+nodetest.AddKeyLine(vault), s.UpdateSitesLine(vault, which))
			return err
		})
	}
}

// retryAct repeats an admin's act while a vault that it needs is unavailable or a roll
// runs: a new policy key needs both vaults, and sites roll one key at a time.
func (s *soak) retryAct(ctx context.Context, act func() error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := act()
		if err == nil || ctx.Err() != nil {
			return nil
		}
		var p *api.Problem
		waits := errors.As(err, &p) && (p.Code == api.VaultUnavailable || p.Code == api.RollInProgress)
		broken := strings.Contains(err.Error(), "EOF") // the shell's own request to a vault that is away
		if !waits && !broken {
			return err
		}
		<-tick.C
	}
}

// interruptVaults makes one vault after the other unavailable for a while, and meanwhile clears
// the cache of policy keys, so that they are unwrapped again.
func (s *soak) interruptVaults(ctx context.Context, vaults *outages) error {
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	names := []string{nodetest.VaultA1, nodetest.VaultS2, nodetest.VaultW1, nodetest.VaultA2, nodetest.VaultS1, nodetest.VaultW2}
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			vaults.away.Store(nil)
			return nil
		case <-tick.C:
		}
		if i%2 == 0 {
			vaults.away.Store(&names[i/2%len(names)])
			s.Node.Policies.Close()
		} else {
			vaults.away.Store(nil)
		}
	}
}
