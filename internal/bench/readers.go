package bench

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"keyroll/api"
)

// ReadersOptions says how mail is read while it is rolled.
type ReadersOptions struct {
	Options
	Depth     api.Depth
	Readable  int           // mailboxes that have messages
	PerSecond int           // reads per second of all readers together
	Window    time.Duration // how long to read without rolls, and how long with rolls
}

// ReadersResult is the result of a benchmark of readers: medians.
type ReadersResult struct {
	RatioOfP99        float64 `json:"ratioOfP99"` // with rolls, divided by without
	P99AtRestSeconds  float64 `json:"p99AtRestSeconds"`
	P99RollingSeconds float64 `json:"p99RollingSeconds"`
	P50AtRestSeconds  float64 `json:"p50AtRestSeconds"`
	P50RollingSeconds float64 `json:"p50RollingSeconds"`
	// FreeRollPerSecond is the rate of a roll without limit and without readers,
	// RollPerSecond that of the limited rolls: containers, or at depth content bytes.
	FreeRollPerSecond float64   `json:"freeRollPerSecond"`
	RollPerSecond     float64   `json:"rollPerSecond"`
	Depth             api.Depth `json:"depth"`
	Containers        int       `json:"containers"`
	Reads             int       `json:"reads"` // in all
	ReadsPerSecond    int       `json:"readsPerSecond"`
	ItemSize          int64     `json:"itemSize"`
	Path              string    `json:"path"`
	Base
}

// readers is the number of concurrent readers; a read that is due waits for one.
const readers = 16

// Readers reads messages with a client, without rolls and while rolls at half their full
// rate run one after another, in interleaved rounds.
func Readers(ctx context.Context, o ReadersOptions) (r ReadersResult, err error) {
	if err := o.checkItems(); err != nil {
		return r, err
	}
	databases, drop, err := o.databases(ctx, 1)
	if err != nil {
		return r, err
	}
	defer drop(&err)
	o.Readable = min(o.Readable, o.Containers)
	o.Progress(fmt.Sprintf("fill %d mailboxes, %d of them with %d messages of %d bytes", o.Containers, o.Readable, o.Items, o.ItemSize))
	w, err := start(ctx, o.Options, "readers", databases[0])
	if err != nil {
		return r, err
	}
	defer w.Close()
	if err := w.importAll(ctx, o.Readable); err != nil {
		return r, err
	}
	messages, err := w.messages(ctx, o.Readable)
	if err != nil {
		return r, err
	}
	s := series{}
	for round := range o.Rounds {
		o.Progress(roundOf(round, o.Rounds))
		reads, err := w.readersRound(ctx, o, messages, s)
		if err != nil {
			return r, err
		}
		r.Reads += reads
	}
	r = ReadersResult{RatioOfP99: s.median("ratioOfP99"), P99AtRestSeconds: s.median("p99AtRestSeconds"), P99RollingSeconds: s.median("p99RollingSeconds"),
		P50AtRestSeconds: s.median("p50AtRestSeconds"), P50RollingSeconds: s.median("p50RollingSeconds"), FreeRollPerSecond: s.median("freeRollPerSecond"),
		RollPerSecond: s.median("rollPerSecond"), Depth: o.Depth, Containers: o.Containers, Reads: r.Reads, ReadsPerSecond: o.PerSecond, ItemSize: o.ItemSize,
		Path: "client, TLS 1.3, node; in one process on the same cores as the roll"}
	r.Base, err = w.base(ctx, s)
	return r, err
}

// readersRound reads without rolls and while limited rolls run, and returns the number of
// reads.
func (w *fixture) readersRound(ctx context.Context, o ReadersOptions, messages []api.MessageInput, s series) (reads int, err error) {
	work := float64(o.Containers)
	if o.Depth == api.DepthContent {
		work = float64(o.Readable) * float64(o.Items) * float64(o.ItemSize)
	}
	took, err := w.roll(ctx, o.Depth, api.RollOptions{})
	if err != nil {
		return 0, err
	}
	free := work / took.Seconds()
	rest, err := w.readFor(ctx, o, messages)
	if err != nil {
		return 0, err
	}
	limit := api.RollOptions{ContainersPerSecond: int64(max(free/2, 1))}
	if o.Depth == api.DepthContent {
		limit = api.RollOptions{BytesPerSecond: int64(max(free/2, 1))}
	}
	rolling, rolls, seconds, err := w.readWhileRolling(ctx, o, messages, limit)
	if err != nil {
		return 0, err
	}
	for name, value := range map[string]float64{
		"p99AtRestSeconds": quantile(rest, 0.99), "p50AtRestSeconds": quantile(rest, 0.5),
		"p99RollingSeconds": quantile(rolling, 0.99), "p50RollingSeconds": quantile(rolling, 0.5),
		"ratioOfP99": quantile(rolling, 0.99) / quantile(rest, 0.99), "freeRollPerSecond": free, "rollPerSecond": work * float64(rolls) / seconds,
	} {
		s.add(name, value)
	}
	return len(rest) + len(rolling), nil
}

// messages lists the messages that can be read.
func (w *fixture) messages(ctx context.Context, mailboxes int) (all []api.MessageInput, err error) {
	for i := range mailboxes {
		in := api.ListMailboxItems{MailboxInput: api.MailboxInput{Mailbox: mailboxName(i)}}
		list, err := w.client.ListMessages(ctx, in)
		if err != nil {
			return nil, err
		}
		for _, m := range list.Items {
			all = append(all, api.MessageInput{MailboxInput: in.MailboxInput, Message: m.ID})
		}
	}
	return all, nil
}

// readFor reads for a window and returns how long each read took from the moment at
// which it was due, so that waiting for other reads counts.
func (w *fixture) readFor(ctx context.Context, o ReadersOptions, messages []api.MessageInput) (took []time.Duration, err error) {
	n := max(int(o.Window.Seconds()*float64(o.PerSecond)), 1)
	every := o.Window / time.Duration(n)
	due := make(chan time.Time, n)
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	for range readers {
		g.Go(func() error {
			for at := range due {
				if err := w.read(ctx, messages[int(at.UnixNano()/int64(every))%len(messages)]); err != nil {
					return err
				}
				mu.Lock()
				took = append(took, time.Since(at))
				mu.Unlock()
			}
			return nil
		})
	}
	begin := time.Now()
	for i := range n {
		at := begin.Add(time.Duration(i) * every)
		time.Sleep(time.Until(at))
		due <- at
	}
	close(due)
	err = g.Wait()
	return took, err
}

func (w *fixture) read(ctx context.Context, in api.MessageInput) error {
	r, err := w.client.ReadMessage(ctx, in)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(io.Discard, r)
	return err
}

// readWhileRolling is readFor while rolls run one after another, and returns their
// number and how long they took.
func (w *fixture) readWhileRolling(ctx context.Context, o ReadersOptions, messages []api.MessageInput, limit api.RollOptions) (took []time.Duration, rolls int, seconds float64, err error) {
	g, ctx := errgroup.WithContext(ctx)
	done := make(chan struct{})
	g.Go(func() error {
		for {
			once, err := w.roll(ctx, o.Depth, limit)
			if err != nil {
				return err
			}
			rolls++
			seconds += once.Seconds()
			select {
			case <-done:
				return nil
			default:
			}
		}
	})
	g.Go(func() (err error) {
		defer close(done)
		took, err = w.readFor(ctx, o, messages)
		return err
	})
	err = g.Wait()
	return took, rolls, seconds, err
}

// quantile returns the q-quantile.
func quantile(all []time.Duration, q float64) float64 {
	s := slices.Sorted(slices.Values(all))
	return s[min(int(q*float64(len(s))), len(s)-1)].Seconds()
}
