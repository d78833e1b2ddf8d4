package container

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/keypage"
	"keyroll/internal/lease"
	"keyroll/internal/policy"
	"keyroll/internal/store"
)

// Due is a condition for containers on which a roll of depth container or content has
// work to do.
type Due struct {
	where     string // ?2 is the watermark
	watermark int64
}

// DueKey holds where the key is older than a roll's watermark, or the container still has
// an older key.
func DueKey(watermark int64) Due { return Due{`(keyed < ?2 OR older <> 0)`, watermark} }

// DueContent holds where the container may have blobs older than a roll's watermark.
func DueContent(watermark int64) Due { return Due{`renewed < ?2`, watermark} }

const (
	whereDue = ` WHERE tenant = ?1 AND page = ?2 AND keyed < ?3 AND older = 0 AND purged = 0 ORDER BY id`
	whereIDs = ` WHERE +tenant = ?1 AND id IN ` // the + prevents the index of all containers of the tenant
)

const updateKeyed = `UPDATE container SET generation = generation + 1, older = ?5, keyed = ?6
	WHERE tenant = ?1 AND id = ?2 AND page = ?3 AND generation = ?4 AND older = 0 AND purged = 0`

// updateOlder changes only containers whose key and pages are those that were opened.
const updateOlder = `UPDATE container SET older = 0, claimed_until = 0 WHERE tenant = ?1 AND id = ?2 AND older = ?3 AND generation = ?4 AND page = ?5`

const updateRenewed = `UPDATE container SET renewed = ?3, claimed_until = 0 WHERE tenant = ?1 AND id = ?2 AND renewed < ?3`

// Select selects the containers that are due and whose keys are in a set of pages.
func Select(pages keypage.Set, due Due) store.Selection {
	query, args := selectDue(pages, due)
	return store.Select(query, args...)
}

// selectDue is the query of Select. Its ?1 is the tenant, ?2 the watermark.
func selectDue(pages keypage.Set, due Due) (query string, args []any) {
	in, args := pages.IDs().In([]any{pages.Tenant, due.watermark})
	return `SELECT id FROM container WHERE tenant = ?1 AND page IN ` + in + ` AND purged = 0 AND ` + due.where, args
}

// Remaining returns up to limit of the containers that Select selects.
func Remaining(ctx context.Context, tx *store.Tx, pages keypage.Set, due Due, limit int) ([]int64, error) {
	query, args := selectDue(pages, due)
	ids, err := tx.IDs(ctx, query+fmt.Sprintf(` LIMIT %d`, limit), args...)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	return ids, nil
}

// CountBlobKeys counts the blob keys that a roll with a watermark re-wraps: those of
// containers whose key is due, and those that an earlier roll left under an older key.
func CountBlobKeys(ctx context.Context, tx *store.Tx, pages keypage.Set, watermark int64) (n int64, err error) {
	query, args := selectDue(pages, DueKey(watermark))
	args = append(args, envelope.ClassBlob)
	err = tx.QueryRow(ctx, fmt.Sprintf(`SELECT CAST(COALESCE(SUM(CASE WHEN c.keyed < ?2 THEN p.count ELSE 0 END
			+ CASE WHEN c.older <> 0 AND p.generation = c.generation - 1 THEN p.count ELSE 0 END), 0) AS BIGINT)
		FROM key_page p JOIN container c ON c.id = p.parent WHERE p.tenant = ?1 AND p.class = ?%d AND p.parent IN (%s)`, len(args), query), args...).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count blob keys: %w", err)
	}
	return n, nil
}

// claimFor is how long a claim is valid without being renewed, while its node lives.
const claimFor = 15 * time.Second

// Claimable selects containers of a key page for a claim: up to Limit, with ids above
// After.
type Claimable struct {
	Tenant, Page int64
	Due          Due
	After        int64
	Limit        int
}

// Claim gives a node containers that are due and on which no other node works. Claims
// only avoid duplicate work; writes are protected by compare-and-swap. A node without a
// name is the only node and needs no claims.
func (s *Containers) Claim(ctx context.Context, c Claimable, node string) (ids []int64, err error) {
	const of = ` FROM container WHERE tenant = ?1 AND page = ?3 AND id > ?4 AND purged = 0 AND `
	if node == "" {
		err = s.db.View(ctx, func(tx *store.Tx) error {
			ids, err = tx.IDs(ctx, `SELECT id`+of+c.Due.where+` ORDER BY id LIMIT ?5`, c.Tenant, c.Due.watermark, c.Page, c.After, c.Limit)
			return err
		})
	} else {
		err = s.db.InTx(ctx, func(tx *store.Tx) error {
			ids, err = tx.IDs(ctx, `UPDATE container SET claimed_by = ?6, claimed_until = `+tx.Clock()+` + ?7 WHERE id IN (SELECT id`+of+c.Due.where+
				` AND (claimed_until < `+tx.Clock()+` OR claimed_by = ?6 OR NOT `+lease.NodeLives(tx, "claimed_by")+`) ORDER BY id LIMIT ?5`+tx.SkipLocked()+`) RETURNING id`,
				c.Tenant, c.Due.watermark, c.Page, c.After, c.Limit, node, claimFor.Milliseconds())
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("claim containers: %w", err)
	}
	slices.Sort(ids)
	return ids, nil
}

// KeepClaims renews a node's claims on some containers.
func (s *Containers) KeepClaims(ctx context.Context, tenant int64, ids []int64, node string) error {
	args := make([][]any, len(ids))
	for i, id := range ids {
		args[i] = []any{tenant, id, node, claimFor.Milliseconds()}
	}
	return s.db.InTx(ctx, func(tx *store.Tx) error {
		_, err := tx.ExecMany(ctx, `UPDATE container SET claimed_until = `+tx.Clock()+` + ?4 WHERE tenant = ?1 AND id = ?2 AND claimed_by = ?3`, args)
		return err
	})
}

// Newest returns the highest id that a container has, 0 if there is none.
func Newest(ctx context.Context, tx *store.Tx) (id int64, err error) {
	if err := tx.QueryRow(ctx, `SELECT COALESCE(MAX(id), 0) FROM container`).Scan(&id); err != nil {
		return 0, fmt.Errorf("find the newest container: %w", err)
	}
	return id, nil
}

// AcceptsBlobs reports whether blob keys may be put under a generation of a container's
// key. Only the present generation is accepted, so that no page is ever added under an
// older key. renewed is the lowest id that a blob may have. Neither changes until tx ends.
func (s *Containers) AcceptsBlobs(ctx context.Context, tx *store.Tx, tenant, id int64, generation uint32) (accepts bool, renewed int64, err error) {
	if err := tx.Lock(ctx, id, false); err != nil {
		return false, 0, err
	}
	r, found, err := selectRow(ctx, tx, whereID, tenant, id)
	if err != nil || !found {
		return false, 0, err
	}
	return generation == r.Generation, r.Renewed, nil
}

// SetRenewed records that no blob of a container is older than mark. The caller
// holds the container's lock exclusively and has verified it.
func (s *Containers) SetRenewed(ctx context.Context, tx *store.Tx, tenant, id, mark int64) (bool, error) {
	n, err := tx.Exec(ctx, updateRenewed, tenant, id, mark)
	return n == 1, err
}

// Group is a number of containers opened together, each of their key pages once.
type Group struct {
	Opened []Opened
	Failed map[int64]error // by container: why it is not in Opened

	policies map[int64]*envelope.Key // by policy key
}

// Zero wipes all keys of the group.
func (g *Group) Zero() {
	for _, o := range g.Opened {
		o.Zero()
	}
	for _, key := range g.policies {
		key.Zero()
	}
}

// OpenGroup opens the keys of some containers of a tenant at their current locations.
// A container whose key cannot be decrypted is in Failed and does not affect the others.
func (s *Containers) OpenGroup(ctx context.Context, tenant int64, ids []int64) (g *Group, err error) {
	g = &Group{Failed: map[int64]error{}, policies: map[int64]*envelope.Key{}}
	var locations []location
	err = s.db.View(ctx, func(tx *store.Tx) error {
		locations, err = locateAll(ctx, tx, tenant, ids)
		return err
	})
	if err != nil {
		return g, err
	}
	pages := openedPages{opened: map[int64]*envelope.Page{}, failed: map[int64]error{}}
	defer pages.zero()
	for _, p := range locations {
		for _, at := range p.slots() {
			if g.policies[at.page.Parent] == nil {
				key, err := s.openPolicyKey(ctx, tenant, at.page.Parent, policy.User)
				if err != nil {
					return g, err
				}
				g.policies[at.page.Parent] = key
			}
		}
		g.open(p, pages)
	}
	return g, nil
}

// open adds a container to the group whose policy keys are opened.
func (g *Group) open(p location, pages openedPages) {
	o := Opened{Container: p.Container, PolicyKey: p.page.Parent, olderErr: p.olderErr}
	for _, at := range p.slots() {
		key, err := pages.key(g.policies[at.page.Parent], p, at)
		if at.generation != p.Generation {
			o.older, o.olderErr = key, err
		} else {
			o.Key = key
			if err != nil {
				g.Failed[p.ID] = err
			}
		}
	}
	if o.olderErr != nil {
		g.Failed[p.ID] = o.olderErr
	}
	if g.Failed[p.ID] != nil {
		o.Zero()
		return
	}
	g.Opened = append(g.Opened, o)
}

// openedPages are key pages that were opened once each, or why they could not be.
type openedPages struct {
	opened map[int64]*envelope.Page
	failed map[int64]error
}

func (o openedPages) zero() {
	for _, page := range o.opened {
		page.Zero()
	}
}

// key opens the key of a container in a slot of a page that is under a policy key.
func (o openedPages) key(policyKey *envelope.Key, p location, at slot) (*envelope.Key, error) {
	if err := p.checkClass(at); err != nil {
		return nil, err
	}
	id := at.page.ID
	if o.opened[id] == nil && o.failed[id] == nil {
		page, err := envelope.OpenPage(policyKey, at.page.EncryptionContext(), at.page.Body)
		if err != nil {
			o.failed[id] = err
		} else {
			o.opened[id] = page
		}
	}
	if err := o.failed[id]; err != nil {
		return nil, err
	}
	return p.keyIn(at, o.opened[id])
}

// locateAll is locate for several containers; it omits those that no longer exist.
func locateAll(ctx context.Context, tx *store.Tx, tenant int64, ids []int64) (list []location, err error) {
	args := []any{tenant}
	placeholders := make([]string, len(ids))
	for i, id := range ids {
		args = append(args, id)
		placeholders[i] = fmt.Sprintf("?%d", i+2)
	}
	rows, err := selectRows(ctx, tx, whereIDs+`(`+strings.Join(placeholders, `, `)+`) ORDER BY id`, args...)
	if err != nil {
		return nil, err
	}
	known := map[int64]keypage.Row{} // containers share their pages
	for _, r := range rows {
		page, hasPage := known[r.Page]
		older, hasOlder := known[r.Older]
		p := location{Container: r.Container, page: page, older: older}
		if !hasPage || r.Older != 0 && !hasOlder {
			if p, err = locate(ctx, tx, r.Container); err != nil {
				return nil, err
			}
			known[p.page.ID], known[p.older.ID] = p.page, p.older
		}
		list = append(list, p)
	}
	return list, nil
}

// HasAllKeys reports whether o has the key of every generation that the container
// has now.
func (o Opened) HasAllKeys(ctx context.Context, tx *store.Tx) (bool, error) {
	r, found, err := selectRow(ctx, tx, whereID, o.Tenant, o.ID)
	return found && r.Generation == o.Generation && (r.Older == 0 || o.older != nil), err
}

// DropOlder deletes the older keys of some containers of the group, under which
// there is no blob key any more. The caller holds their locks exclusively and has
// verified it. If a page was changed in the meantime, Changed reports true for the error.
func (s *Containers) DropOlder(ctx context.Context, tx *store.Tx, g *Group, done []Opened) error {
	byPage := map[int64][]Opened{}
	var ids []int64
	for _, o := range done {
		if byPage[o.Older] == nil {
			ids = append(ids, o.Older)
		}
		byPage[o.Older] = append(byPage[o.Older], o)
	}
	slices.Sort(ids)
	for _, id := range ids {
		if err := s.dropSlots(ctx, tx, g, id, byPage[id]); err != nil {
			return err
		}
	}
	args := make([][]any, len(done))
	for i, o := range done {
		args[i] = []any{o.Tenant, o.ID, o.Older, o.Generation, o.Page}
	}
	return oneRowEach(tx.ExecMany(ctx, updateOlder, args))
}

func (s *Containers) dropSlots(ctx context.Context, tx *store.Tx, g *Group, id int64, done []Opened) error {
	if err := tx.Lock(ctx, id, true); err != nil { // every removal of slots from a page takes this lock
		return err
	}
	row, err := keypage.Get(ctx, tx, done[0].Tenant, id)
	if fail.Is(err, api.NotFound) {
		return errors.Join(store.ErrOutdated, err)
	}
	if err != nil {
		return err
	}
	if int(row.Count) == len(done) { // a page that is deleted whole need not be decrypted
		return writeRest(ctx, tx, row, nil, &envelope.Page{})
	}
	key := g.policies[row.Parent]
	if key == nil {
		return store.ErrOutdated
	}
	page, err := envelope.OpenPage(key, row.EncryptionContext(), row.Body)
	if err != nil {
		return err
	}
	defer page.Zero()
	for _, o := range done {
		page.Remove(o.ID, o.Generation-1)
	}
	return writeRest(ctx, tx, row, key, page)
}
