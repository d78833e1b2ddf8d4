package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/node"
)

// ListOptions says which list is read.
type ListOptions struct {
	Options
	// Command lists the mailboxes of a node as a table, in a process of its own.
	Command func(ctx context.Context, n *node.Node) (*exec.Cmd, error)
}

// ListResult is the result of a benchmark of a list: medians.
type ListResult struct {
	// ServerSecondsPer1000 is the processor time of the server, user and system, for
	// 1,000 mailboxes. PostgreSQL, which is another process, is not in it.
	ServerSecondsPer1000 float64 `json:"serverSecondsPer1000"`
	FirstLineSeconds     float64 `json:"firstLineSeconds"` // from the start of the command's process to its first line
	Seconds              float64 `json:"seconds"`          // to its end
	PeakRSSBytes         int64   `json:"peakRSSBytes"`     // of the command's process
	Containers           int     `json:"containers"`
	Items                int     `json:"items"` // messages per mailbox
	Base
}

// List measures the command that lists all mailboxes: time, its memory, and the processor
// time of the server, which is this process.
func List(ctx context.Context, o ListOptions) (r ListResult, err error) {
	if err := o.check(); err != nil {
		return r, err
	}
	databases, drop, err := o.databases(ctx, 1)
	if err != nil {
		return r, err
	}
	defer drop(&err)
	o.Progress(fmt.Sprintf("fill %d mailboxes with %d messages each", o.Containers, o.Items))
	w, err := start(ctx, o.Options, "list", databases[0])
	if err != nil {
		return r, err
	}
	defer w.Close()
	if o.Items > 0 {
		if err := w.fillItems(ctx, o.Items); err != nil {
			return r, err
		}
	}
	s := series{}
	for round := range o.Rounds {
		o.Progress(roundOf(round, o.Rounds))
		cmd, err := o.Command(ctx, w.Node)
		if err != nil {
			return r, err
		}
		before, err := processorTime()
		if err != nil {
			return r, err
		}
		began := time.Now()
		first, peak, err := linesOf(cmd, o.Containers+1)
		if err != nil {
			return r, err
		}
		s.add("seconds", time.Since(began).Seconds())
		s.add("firstLineSeconds", first.Seconds())
		after, err := processorTime()
		if err != nil {
			return r, err
		}
		s.add("serverSecondsPer1000", (after-before).Seconds()*1000/float64(o.Containers))
		r.PeakRSSBytes = max(r.PeakRSSBytes, peak)
	}
	r = ListResult{ServerSecondsPer1000: s.median("serverSecondsPer1000"), FirstLineSeconds: s.median("firstLineSeconds"), Seconds: s.median("seconds"),
		PeakRSSBytes: r.PeakRSSBytes, Containers: o.Containers, Items: o.Items}
	r.Base, err = w.base(ctx, s)
	return r, err
}

// linesBetween is after how many lines the memory of a command is read.
const linesBetween = 1000

// linesOf runs a command and returns when its first line came, and the peak of its
// resident memory. It fails unless the command prints that many lines.
func linesOf(cmd *exec.Cmd, want int) (first time.Duration, peak int64, err error) {
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	n := 0
	for lines := bufio.NewReader(out); ; n++ {
		_, err := lines.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		if n == 0 {
			first = time.Since(began)
		}
		if err != nil {
			return 0, 0, errors.Join(err, cmd.Wait())
		}
		if n%linesBetween == 0 {
			if now, err := statusOf(fmt.Sprint(cmd.Process.Pid), "VmHWM"); err == nil { // else it has just ended
				peak = now
			}
		}
	}
	if err := cmd.Wait(); err != nil {
		return 0, 0, fmt.Errorf("list the mailboxes: %w", err)
	}
	if n != want {
		return 0, 0, fail.New(api.Internal, "the list has %d lines instead of %d", n, want)
	}
	return first, peak, nil
}

// processorTime returns the processor time that this process has used.
func processorTime() (time.Duration, error) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}
