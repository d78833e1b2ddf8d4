package roll

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/store"
)

func insert(ctx context.Context, tx *store.Tx, r Roll) error {
	_, err := tx.Exec(ctx, `INSERT INTO roll (id, tenant, policy, target, source, classes, revision, depth, state, total, started, finished, deadline, message,
		containers_per_second, bytes_per_second, mark)
		VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, 0, ?12, ?13, ?14, ?15, ?16)`,
		r.ID, r.Tenant, r.Policy, r.Target, r.Source, joinClasses(r.Classes), r.Revision.String(), string(r.Depth), string(r.State), r.Total,
		r.Started.UnixMilli(), r.Deadline.UnixMilli(), r.Message, r.ContainersPerSecond, r.BytesPerSecond, r.Watermark)
	return err
}

// Ending says which rolls end, those of a policy, and why.
type Ending struct {
	Tenant, Policy int64
	Message        string
	At             time.Time
}

// supersede ends the unfinished rolls to a policy.
func supersede(ctx context.Context, tx *store.Tx, e Ending) error {
	return endUnfinished(ctx, tx, `policy = ?2`, e)
}

// endUnfinished ends the unfinished rolls for which a condition on the policy ?2 holds.
func endUnfinished(ctx context.Context, tx *store.Tx, where string, e Ending) error {
	_, err := tx.Exec(ctx, `UPDATE roll SET state = ?3, finished = ?4, message = ?5
		WHERE tenant = ?1 AND (`+where+`) AND state IN (?6, ?7, ?8)`,
		e.Tenant, e.Policy, string(api.RollSuperseded), e.At.UnixMilli(), e.Message,
		string(api.RollRunning), string(api.RollPaused), string(api.RollFailed))
	return err
}

const columns = `id, tenant, policy, target, source, classes, revision, depth, state, total, started, finished, deadline, message,
	containers_per_second, bytes_per_second, retries, begun, warned,
	mark, stage, containers_done, blobs_total, blobs_done, bytes_total, bytes_done`

func query(ctx context.Context, tx *store.Tx, where string, args ...any) ([]Roll, error) {
	return store.Collect(ctx, tx, func(row store.Scanner) (Roll, error) { return scan(row) }, `SELECT `+columns+` FROM roll WHERE `+where, args...)
}

// scan reads columns and more columns after them.
func scan(row store.Scanner, more ...any) (r Roll, err error) {
	var classes, revision string
	var started, finished, deadline, begun, warned int64
	err = row.Scan(append([]any{&r.ID, &r.Tenant, &r.Policy, &r.Target, &r.Source, &classes, &revision, &r.Depth, &r.State, &r.Total,
		&started, &finished, &deadline, &r.Message, &r.ContainersPerSecond, &r.BytesPerSecond, &r.Retries, &begun, &warned,
		&r.Watermark, &r.Stage, &r.ContainersDone, &r.BlobsTotal, &r.BlobsDone, &r.BytesTotal, &r.BytesDone}, more...)...)
	if err != nil {
		return r, err
	}
	if r.Revision, err = uuid.Parse(revision); err != nil {
		return r, err
	}
	r.Started, r.Deadline = time.UnixMilli(started), time.UnixMilli(deadline)
	r.Finished, r.Begun, r.Warned = store.TimeOrZero(finished), store.TimeOrZero(begun), store.TimeOrZero(warned)
	r.Classes, err = splitClasses(classes)
	return r, err
}

// change is a change of a roll's state. A zero finished means that it has not ended.
type change struct {
	from, to api.RollState
	message  string
	finished time.Time
}

// setState changes the state of a roll that is in state from, and reports whether it
// was.
func setState(ctx context.Context, tx *store.Tx, r Roll, c change) (bool, error) {
	var at int64
	if !c.finished.IsZero() {
		at = c.finished.UnixMilli()
	}
	n, err := tx.Exec(ctx, `UPDATE roll SET state = ?4, message = ?5, finished = ?6 WHERE tenant = ?1 AND id = ?2 AND state = ?3`,
		r.Tenant, r.ID, string(c.from), string(c.to), c.message, at)
	return n == 1, err
}

// progress is the result of one transaction of a roll: whether it moved a container, and
// how many writes it has to retry.
type progress struct {
	moved   bool
	retries int
}

// recordProgress records the result of a transaction. now is the roll as read in this
// transaction.
func recordProgress(ctx context.Context, tx *store.Tx, now Roll, p progress, at time.Time) error {
	if (!p.moved || !now.Begun.IsZero()) && p.retries == 0 {
		return nil
	}
	var begun int64
	if p.moved {
		begun = at.UnixMilli()
	}
	_, err := tx.Exec(ctx, `UPDATE roll SET begun = CASE WHEN begun = 0 THEN ?3 ELSE begun END, retries = retries + ?4 WHERE tenant = ?1 AND id = ?2`,
		now.Tenant, now.ID, begun, p.retries)
	return err
}

// enterStage records that a roll has reached a stage and, at the first one, how much
// work there is. If several nodes do so, the first one's count is kept.
func enterStage(ctx context.Context, tx *store.Tx, r Roll, stage api.RollStage, work Done) error {
	_, err := tx.Exec(ctx, `UPDATE roll SET blobs_total = CASE WHEN stage = '' THEN ?4 ELSE blobs_total END,
		bytes_total = CASE WHEN stage = '' THEN ?5 ELSE bytes_total END, stage = CASE WHEN stage = ?6 THEN stage ELSE ?3 END
		WHERE tenant = ?1 AND id = ?2`, r.Tenant, r.ID, string(stage), work.Blobs, work.Bytes, string(api.StageContent))
	return err
}

// recordDeepProgress records what a transaction of a deep stage did.
func recordDeepProgress(ctx context.Context, tx *store.Tx, r Roll, d Done, at time.Time) error {
	_, err := tx.Exec(ctx, `UPDATE roll SET begun = CASE WHEN begun = 0 THEN ?3 ELSE begun END,
		containers_done = containers_done + ?4, blobs_done = blobs_done + ?5, bytes_done = bytes_done + ?6 WHERE tenant = ?1 AND id = ?2`,
		r.Tenant, r.ID, at.UnixMilli(), d.Containers, d.Blobs, d.Bytes)
	return err
}

func joinClasses(classes []envelope.Class) string {
	texts := make([]string, len(classes))
	for i, c := range classes {
		texts[i] = strconv.Itoa(int(c))
	}
	return strings.Join(texts, " ")
}

func splitClasses(text string) (classes []envelope.Class, err error) {
	for field := range strings.FieldsSeq(text) {
		n, err := strconv.ParseUint(field, 10, 8)
		if err != nil {
			return nil, err
		}
		classes = append(classes, envelope.Class(n))
	}
	return classes, nil
}

// newestWatermark returns the highest watermark of any roll, 0 if there is none.
func newestWatermark(ctx context.Context, tx *store.Tx) (mark int64, err error) {
	return mark, tx.QueryRow(ctx, `SELECT COALESCE(MAX(mark), 0) FROM roll`).Scan(&mark)
}
