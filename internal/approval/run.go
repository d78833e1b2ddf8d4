package approval

import (
	"context"
	"log/slog"
	"time"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/lease"
	"keyroll/internal/retry"
	"keyroll/internal/store"
)

const (
	// longestWait bounds the time between two attempts of an act that is blocked.
	longestWait = 30 * time.Second
	// lookEvery is how often a node looks for requests that were approved on another node,
	// or left by a node that died, and for requests whose time is over.
	lookEvery = 2 * time.Second
	// atOnce bounds the requests that are read together.
	atOnce = 100
)

// Config holds the dependencies of a Runner.
type Config struct {
	DB *store.DB
	// Run does the act of an approved request, and ends the request in the same transaction
	// with Done, or with Fail if the act is refused. A failure of Run means that it is to be
	// tried again.
	Run func(ctx context.Context, r Request) error
	// Over ends a pending request whose time is over, with Expire.
	Over func(ctx context.Context, r Request) error
	// Leases are those of this node; nil means that it is the only node.
	Leases *lease.Leases
	Now    func() time.Time
	Logger *slog.Logger
}

// Runner has approved acts done.
type Runner struct {
	config Config
	wake   chan struct{}
}

// NewRunner returns a runner; Run starts it.
func NewRunner(c Config) *Runner { return &Runner{config: c, wake: make(chan struct{}, 1)} }

// Wake makes Run look for approved requests at once.
func (r *Runner) Wake() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run has approved acts done until ctx is done, and ends requests whose time is over.
func (r *Runner) Run(ctx context.Context) {
	loop := retry.Loop{First: time.Second, Longest: longestWait, Wake: r.wake}
	loop.Run(ctx, func(ctx context.Context) retry.Next {
		var waits bool
		_, err := r.config.Leases.Hold(ctx, "approval", func(ctx context.Context) error {
			waits = r.WorkAll(ctx)
			return nil
		})
		if err != nil && ctx.Err() == nil {
			r.config.Logger.ErrorContext(ctx, "approved requests could not be processed", "error", err)
		}
		if waits {
			return retry.Blocked(0)
		}
		return retry.After(lookEvery)
	})
}

// WorkAll works on every approved request and on every one whose time is over, and reports
// whether one must be tried again.
func (r *Runner) WorkAll(ctx context.Context) (waits bool) {
	for _, part := range []struct {
		where string
		args  []any
		do    func(context.Context, Request) error
	}{
		{`state = ?1 ORDER BY id LIMIT ?2`, []any{api.ApprovalApproved, atOnce}, r.run},
		{`state = ?1 AND expires <= ?3 ORDER BY id LIMIT ?2`, []any{api.ApprovalPending, atOnce, r.config.Now().UnixMilli()}, r.config.Over},
	} {
		var list []Request
		err := r.config.DB.View(ctx, func(tx *store.Tx) (err error) {
			list, err = selectRequests(ctx, tx, part.where, part.args...)
			return err
		})
		if err != nil && ctx.Err() == nil {
			r.config.Logger.ErrorContext(ctx, "requests for approval could not be listed", "error", err)
			return true
		}
		waits = waits || len(list) == atOnce
		for _, one := range list {
			if err := part.do(ctx, one); err != nil && ctx.Err() == nil {
				r.config.Logger.WarnContext(ctx, "a request is blocked and will be tried again", "request", one.ID, "operation", one.Operation, "error", err)
				waits = true
			}
		}
	}
	return waits
}

// run has an approved act done.
func (r *Runner) run(ctx context.Context, one Request) error {
	if err := r.confirm(ctx, one); err != nil {
		return err
	}
	return r.config.Run(ctx, one)
}

// confirm fails Damaged unless the rows themselves, and not only the indexes, contain the
// approvals of a request.
func (r *Runner) confirm(ctx context.Context, one Request) error {
	if err := r.config.DB.CheckTables(ctx, "approval_request", "approval_decision"); err != nil {
		return err
	}
	var requester string
	var needed int
	approvers := map[string]bool{}
	err := r.config.DB.Scan(ctx, store.ScanQuery{Table: "approval_request", Columns: "requester, needed", Column: "id", IDs: []int64{one.ID}}, func(row store.Scanner) error {
		return row.Scan(&requester, &needed)
	})
	if err == nil {
		err = r.config.DB.Scan(ctx, store.ScanQuery{Table: "approval_decision", Columns: "approver, approves", Column: "request", IDs: []int64{one.ID}}, func(row store.Scanner) error {
			var approver string
			var approves int
			err := row.Scan(&approver, &approves)
			if approves == 1 {
				approvers[approver] = true
			}
			return err
		})
	}
	if err != nil {
		return err
	}
	delete(approvers, requester)
	if requester == "" || needed < 1 || len(approvers) < needed {
		return fail.New(api.Damaged, "request %d: an index of the database contradicts its rows, which have %d approvals", one.ID, len(approvers)).
			WithHint("docs/damage.md says how to rebuild an index from the rows")
	}
	return nil
}
