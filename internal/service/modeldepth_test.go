package service_test

import (
	"fmt"
	"slices"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/roll"
	"keyroll/internal/store"
)

// keyring has the keys that existed at a moment, by container.
type keyring map[int64]keysOf

type keysOf struct {
	policy     int64 // that it is under
	class      int64
	generation int64
	blobs      map[int64]bool
}

func (m *model) keyring() keyring {
	m.Helper()
	all := keyring{}
	m.rows(`SELECT c.id, k.policy, p.class, c.generation FROM container c JOIN key_page p ON p.id = c.page
		JOIN policy_key k ON k.id = p.parent WHERE c.tenant = ?1`, func(scan func(...any) error) error {
		var id int64
		of := keysOf{blobs: map[int64]bool{}}
		err := scan(&id, &of.policy, &of.class, &of.generation)
		all[id] = of
		return err
	})
	m.rows(`SELECT i.container, b.id FROM blob b JOIN item i ON i.id = b.item WHERE b.tenant = ?1`, func(scan func(...any) error) error {
		var container, blob int64
		err := scan(&container, &blob)
		if of, ok := all[container]; ok { // else it is on its way in or out
			of.blobs[blob] = true
		}
		return err
	})
	return all
}

// rows reads what a query finds of the tenant.
func (m *model) rows(query string, row func(scan func(...any) error) error) {
	m.Helper()
	m.View(func(tx *store.Tx) error {
		rows, err := tx.Query(m.Ctx, query, m.Tenant)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			if err := row(rows.Scan); err != nil {
				return err
			}
		}
		return rows.Err()
	})
}

func deep(d api.Depth) bool { return d == api.DepthContainer || d == api.DepthContent }

// recordRoll records what the new roll of a policy has to do, including the rest of an
// unfinished one.
func (m *model) recordRoll(p *modelPolicy, depth api.Depth, inactive bool) {
	unfinished := false
	for _, ro := range m.rolled {
		unfinished = unfinished || ro.policy == p && ro.unfinished
	}
	if !unfinished {
		p.sweeps, p.depth = false, api.DepthPolicy
	}
	p.sweeps = p.sweeps || inactive
	if deep(depth) {
		p.before = m.keyring()
	}
	if p.depth != api.DepthContent && depth != api.DepthRoot {
		if deep(depth) {
			p.depth = depth
		}
	}
}

// checkDeepRoll fails the test if anything that a roll below depth policy has covered is
// under, or has, a key from before the request.
func (m *model) checkDeepRoll(ro roll.Roll, p *modelPolicy) {
	m.Helper()
	if !deep(p.depth) {
		return
	}
	for id, now := range m.keyring() {
		was, known := p.before[id]
		if !known || now.policy != ro.Policy || was.policy != ro.Policy && was.policy != ro.Source || !slices.ContainsFunc(ro.Classes, func(c envelope.Class) bool { return int64(c) == now.class }) {
			continue
		}
		if now.class == int64(envelope.ClassBackup) { // it is frozen
			continue
		}
		if now.generation <= was.generation {
			m.Fatalf("a roll of depth %s has left container %d its key", p.depth, id)
		}
		for blob := range now.blobs {
			if p.depth == api.DepthContent && was.blobs[blob] {
				m.Fatalf("a roll of depth content has left container %d blob %d", id, blob)
			}
		}
	}
	p.depth = api.DepthPolicy
	if known := m.rolled[ro.ID]; known.things == m.countable() {
		now := m.rolls()[slices.IndexFunc(m.rolls(), func(r roll.Roll) bool { return r.ID == ro.ID })]
		if now.BlobsDone != now.BlobsTotal || now.BytesDone != now.BytesTotal {
			m.Fatalf("nothing came or went, and of %d blobs and %d bytes it did %d and %d", now.BlobsTotal, now.BytesTotal, now.BlobsDone, now.BytesDone)
		}
	}
}

// countable names all that there is for a roll to count.
func (m *model) countable() (all string) {
	m.Helper()
	for _, query := range []string{`SELECT id, class, policy FROM container WHERE tenant = ?1 ORDER BY id`, `SELECT container, id, 0 FROM item WHERE tenant = ?1 ORDER BY id`} {
		m.rows(query, func(scan func(...any) error) error {
			var a, b, c int64
			err := scan(&a, &b, &c)
			all += fmt.Sprintln(a, b, c)
			return err
		})
	}
	return all
}
