// Package roll moves containers from older policy keys to the current one.
//
// There is no job list: the work is every key page that is not yet under the
// current policy key, and a page is replaced by compare-and-swap on its version. A
// roll may be killed at any point; the next start continues it. It touches no
// content, and gets its two policy keys again for each batch, so that a revocation
// stops it as soon as package policy drops them from its cache. Start reading at
// pass.
package roll

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/policy"
	"keyroll/internal/profiles"
	"keyroll/internal/store"
)

// defaultDeadline is how long a roll may take before it is late: the time within
// which the documented system promises a changed policy to have been applied.
const defaultDeadline = 72 * time.Hour

// Roll is a roll as stored in the database.
type Roll struct {
	ID, Tenant, Policy int64
	// Target is the policy key that containers are moved to.
	Target int64
	// Source is another policy whose containers are moved too, 0 for none.
	Source int64
	// Classes are the classes of key pages that it moves.
	Classes  []envelope.Class
	Revision uuid.UUID
	Depth    api.Depth
	State    api.RollState
	Total    int64
	Started  time.Time
	Finished time.Time // zero while it has not ended
	Deadline time.Time
	Message  string
	// ContainersPerSecond and BytesPerSecond are its rate limits, 0 for none.
	ContainersPerSecond, BytesPerSecond int64
	// Retries counts the waits for a vault, and the pages that another transaction
	// had changed before the roll wrote them.
	Retries int64
	Begun   time.Time // when it moved the first container; zero: not yet
	Warned  time.Time // when the log said that it is late; zero: not yet
	// Watermark is an id: keys with a lower id are replaced at depths container and
	// content.
	Watermark int64
	// Stage is the stage that a roll of these depths has reached; empty: policy.
	Stage                 api.RollStage
	ContainersDone        int64 // that are finished at these depths
	BlobsTotal, BlobsDone int64
	BytesTotal, BytesDone int64

	skipped bool // of a roll in a list: it skipped something
}

// Start describes a roll that is to begin.
type Start struct {
	Policy policy.Policy // its current policy key is the target
	// Source is another policy whose containers are moved too, 0 for none.
	Source   int64
	Classes  []envelope.Class // nil: those that the policy's profile rolls
	Revision uuid.UUID        // of the target
	Depth    api.Depth        // "": policy
	// NewestKey returns an id that no existing key exceeds: these keys are replaced at
	// depths container and content. Other depths do not need it.
	NewestKey func(ctx context.Context, tx *store.Tx) (int64, error)
	Options   Options
}

// Begin writes a roll in the transaction that made its target current. An
// unfinished roll of the policy is superseded, and the new one takes over its
// remaining work, source and classes included. Two sources at once are refused with
// RollInProgress.
func Begin(ctx context.Context, tx *store.Tx, policies *policy.Policies, s Start, now time.Time) (Roll, error) {
	r, err := Plan(ctx, tx, policies, s, now)
	if err != nil {
		return r, err
	}
	if err := supersede(ctx, tx, Ending{r.Tenant, r.Policy, "a newer roll took its place", now}); err != nil {
		return r, err
	}
	return r, insert(ctx, tx, r)
}

// Plan returns the roll that Begin would begin, and writes nothing. The current
// policy key is zero if the target does not exist yet.
func Plan(ctx context.Context, tx *store.Tx, policies *policy.Policies, s Start, now time.Time) (Roll, error) {
	pol := s.Policy
	if s.Classes == nil {
		s.Classes = profiles.Of(pol.Kind).Rolls
	}
	if s.Depth == "" {
		s.Depth = api.DepthPolicy
	}
	r := Roll{ID: store.NewID(), Tenant: pol.Tenant, Policy: pol.ID, Target: pol.Current.ID, Source: s.Source, Classes: slices.Clone(s.Classes),
		Revision: s.Revision, Depth: s.Depth, State: api.RollRunning, Started: now}
	s.Options.apply(&r)
	if r.deepStages() != nil {
		var err error
		if r.Watermark, err = drawWatermark(ctx, tx, s); err != nil {
			return r, err
		}
	}
	before, ok, err := Latest(ctx, tx, pol.Tenant, pol.ID)
	if err != nil {
		return r, err
	}
	if ok && before.Unfinished() {
		if err := r.takeOver(before, pol.Name); err != nil {
			return r, err
		}
	}
	if err := checkSweep(ctx, tx, policies, r, before); err != nil {
		return r, err
	}
	sc, err := r.scope(ctx, tx, policies)
	if err != nil {
		return r, err
	}
	if r.deepStages() != nil {
		sc = sc.withoutBackups()
	}
	r.Total, err = sc.count(ctx, tx)
	return r, err
}

// drawWatermark draws an id above those of all existing keys and watermarks, even if
// the clock of another node is ahead.
func drawWatermark(ctx context.Context, tx *store.Tx, s Start) (int64, error) {
	newest, err := newestWatermark(ctx, tx)
	if err == nil && s.NewestKey != nil {
		var key int64
		key, err = s.NewestKey(ctx, tx)
		newest = max(newest, key)
	}
	if err != nil {
		return 0, err
	}
	store.PastID(newest)
	return store.NewID(), nil
}

// takeOver adds the remaining work of an unfinished roll of the same policy.
func (r *Roll) takeOver(before Roll, policyName string) error {
	if r.Source == 0 {
		r.Source = before.Source
	}
	if before.Source != 0 && before.Source != r.Source {
		return fail.New(api.RollInProgress, "roll %d is moving the containers of another policy to policy %q", before.ID, policyName).
			WithHint("wait until it has finished: keyroll roll watch %d shows its progress", before.ID)
	}
	r.Classes = union(r.Classes, before.Classes)
	if len(before.deepStages()) > len(r.deepStages()) {
		r.Depth = before.Depth
		r.Watermark = max(r.Watermark, before.Watermark)
	}
	return nil
}

// checkSweep refuses a roll that would also sweep a source policy that has not been
// left: the backups under that policy must stay there.
func checkSweep(ctx context.Context, tx *store.Tx, policies *policy.Policies, r, before Roll) error {
	if r.Source == 0 || !slices.Contains(r.Classes, envelope.ClassBackup) {
		return nil
	}
	source, err := policies.ByID(ctx, tx, r.Tenant, r.Source)
	if err == nil && source.Left.IsZero() {
		err = fail.New(api.RollInProgress, "a sweep of inactive mailboxes and backups cannot run together with a roll that moves containers of policy %q; roll %d is unfinished", source.Name, before.ID).
			WithHint("wait until it has finished: keyroll roll watch %d shows its progress", before.ID)
	}
	return err
}

// Leave ends the rolls to a policy that is being left, in the transaction that
// leaves it: the rolls that empty the policy move the remaining containers.
func Leave(ctx context.Context, tx *store.Tx, left policy.Policy, now time.Time) error {
	return supersede(ctx, tx, Ending{left.Tenant, left.ID, "its policy was left", now})
}

// Unfinished reports whether a roll may have work left.
func (r Roll) Unfinished() bool {
	return r.State == api.RollRunning || r.State == api.RollPaused || r.State == api.RollFailed
}

// byID returns the current state of a roll.
func byID(ctx context.Context, tx *store.Tx, tenant, id int64) (Roll, error) {
	list, err := query(ctx, tx, `tenant = ?1 AND id = ?2`, tenant, id)
	if err == nil && len(list) == 0 {
		err = fail.New(api.NotFound, "roll %d does not exist", id).WithHint("keyroll roll list shows the rolls")
	}
	if err != nil {
		return Roll{}, err
	}
	return list[0], nil
}

// Latest returns the newest roll of a policy, and false if there was none.
func Latest(ctx context.Context, tx *store.Tx, tenant, policy int64) (Roll, bool, error) {
	list, err := query(ctx, tx, `tenant = ?1 AND policy = ?2 ORDER BY id DESC LIMIT 1`, tenant, policy)
	if err != nil || len(list) == 0 {
		return Roll{}, false, err
	}
	return list[0], true, nil
}

// Find returns a roll by its id as the API shows it.
func Find(ctx context.Context, tx *store.Tx, tenant int64, id string) (Roll, error) {
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil {
		return Roll{}, fail.New(api.InvalidArgument, "roll %q: a roll id must be a number", id)
	}
	return byID(ctx, tx, tenant, n)
}

// SetState pauses a running roll or resumes one that is paused or has failed.
func SetState(ctx context.Context, tx *store.Tx, r Roll, state api.RollState) error {
	from := map[api.RollState][]api.RollState{
		api.RollPaused:  {api.RollRunning},
		api.RollRunning: {api.RollPaused, api.RollFailed},
	}[state]
	for _, s := range from {
		ok, err := setState(ctx, tx, r, change{from: s, to: state})
		if err == nil && ok && s == api.RollFailed {
			err = deleteSkipped(ctx, tx, r)
		}
		if err != nil || ok {
			return err
		}
	}
	return fail.New(api.Conflict, "roll %d is %s; it cannot become %s", r.ID, r.State, state)
}
