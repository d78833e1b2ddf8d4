package node

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/lease"
	"keyroll/internal/store"
)

// newName returns a name for this start of a node: the machine's name and a random
// suffix.
func newName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "node"
	}
	return strings.ToLower(host + "-" + rand.Text()[:6])
}

// joinLock is the number of the lock held while a node joins the others. Locks of ids
// have far larger numbers.
const joinLock = 1

const (
	// startTerm is the term of the lease for a start. It is long, because only another
	// starting node would take it over, and a start should not fail on a busy machine.
	startTerm = 4 * lease.Term
	// heartbeatEvery is how often a node renews its lease and checks those of the others.
	heartbeatEvery = lease.Term / 5
	// retryEvery is how often a start checks whether another one has finished.
	retryEvery = lease.Term / 20
)

// runExclusive runs work, which creates what a new database lacks, while no other node
// does so.
func (f *foundation) runExclusive(ctx context.Context, work func(ctx context.Context) error) error {
	starts := f.leases
	if starts != nil {
		starts = lease.New(f.leaseDB, f.name, startTerm)
	}
	for {
		held, err := starts.Hold(ctx, "start", work)
		if held || err != nil {
			return err
		}
		select {
		case <-time.After(retryEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// member is this node as one of the nodes of its database.
type member struct {
	base    *foundation
	url     string
	own     []string // the stores that are in this node's data folder
	fence   int64    // of its lease
	refuse  func(error)
	evicted chan struct{} // signals that this node has evicted another one
}

// join registers this node in its database, and keeps it registered until it is closed.
// It is refused if a node keeps something in its own data folder that all nodes have to
// access. The channel gets a value when this node has evicted another one.
func join(ctx context.Context, f *foundation, url string, own []string, refuse func(error)) (evicted <-chan struct{}, err error) {
	if f.leases == nil {
		return nil, nil
	}
	m := &member{base: f, url: url, own: own, refuse: refuse, evicted: make(chan struct{}, 1)}
	// The registration of a node that was killed a moment ago expires within this time.
	deadline := time.Now().Add(lease.Term + heartbeatEvery)
	for err := m.register(ctx); err != nil; err = m.register(ctx) {
		if !fail.Is(err, api.Conflict) || time.Now().After(deadline) {
			return nil, err
		}
		select {
		case <-time.After(retryEvery):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	beating, stop := context.WithCancel(context.WithoutCancel(ctx))
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		m.heartbeat(beating)
	}()
	f.onClose(func() error {
		stop()
		<-stopped
		return m.deregister(context.WithoutCancel(ctx))
	})
	return m.evicted, nil
}

// register inserts the node into the database and takes its lease. It is refused if a
// live node cannot work on the database together with it.
func (m *member) register(ctx context.Context) error {
	return m.base.leaseDB.InTx(ctx, func(tx *store.Tx) error {
		if err := tx.Lock(ctx, joinLock, true); err != nil {
			return err
		}
		peers, err := m.peers(ctx, tx)
		if err != nil {
			return err
		}
		for _, p := range peers {
			if err := m.checkCompatible(p); p.live && err != nil {
				return err
			}
		}
		_, err = tx.Exec(ctx, `INSERT INTO node (name, url, session, since, own, records_health, keeps_totals, reads_objects) VALUES (?1, ?2, ?3, `+tx.Clock()+`, ?4, 1, 1, 1)
			ON CONFLICT (name) DO NOTHING`, m.base.name, m.url, m.base.db.Session(), strings.Join(m.own, "\n"))
		if err != nil {
			return err
		}
		m.fence, _, err = lease.Take(ctx, tx, lease.OfNode(m.base.name), m.base.name, lease.Term)
		return err
	})
}

func (m *member) deregister(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lease.Term)
	defer cancel()
	err := m.base.leaseDB.InTx(ctx, func(tx *store.Tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM node WHERE name = ?1`, m.base.name); err != nil {
			return err
		}
		return lease.Release(ctx, tx, lease.OfNode(m.base.name), m.base.name, m.fence)
	})
	if err != nil { // the other nodes evict it once its lease has expired
		m.base.options.Logger.WarnContext(ctx, "the node could not deregister", "error", err)
	}
	return nil
}

// peer is another node that is registered in the database.
type peer struct {
	name, session string
	own           []string // see member.own
	live          bool
}

func (m *member) peers(ctx context.Context, tx *store.Tx) (list []peer, err error) {
	live, err := lease.Live(ctx, tx, lease.NodePrefix)
	if err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, `SELECT name, session, own FROM node WHERE name <> ?1 ORDER BY name`, m.base.name)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var o peer
		var own string
		if err := rows.Scan(&o.name, &o.session, &own); err != nil {
			return nil, err
		}
		o.own = strings.FieldsFunc(own, func(r rune) bool { return r == '\n' })
		_, o.live = live[o.name]
		list = append(list, o)
	}
	return list, rows.Err()
}

// olderNodes returns a function that reports whether a node is live that does not do what
// a column of table node says.
func olderNodes(column string) func(ctx context.Context, tx *store.Tx) (bool, error) {
	return func(ctx context.Context, tx *store.Tx) (bool, error) {
		live, err := lease.Live(ctx, tx, lease.NodePrefix)
		if err != nil || len(live) == 0 {
			return false, err
		}
		names, err := store.Collect(ctx, tx, func(row store.Scanner) (name string, err error) {
			return name, row.Scan(&name)
		}, `SELECT name FROM node WHERE `+column+` = 0`)
		return slices.ContainsFunc(names, func(name string) bool { _, lives := live[name]; return lives }), err
	}
}

// checkCompatible returns why two nodes cannot work on one database together, if they
// cannot.
func (m *member) checkCompatible(o peer) error {
	for _, store := range []struct{ whose, hint string }{
		{"availability", "--availability https://VAULT, a vault of the operator, or file:///FOLDER, a folder that all nodes can access"},
		{"blobs", "--blobs s3://BUCKET, azblob://ACCOUNT/CONTAINER, or file:///FOLDER, a folder that all nodes can access"},
	} {
		for _, at := range []struct {
			own []string
			who string
		}{{m.own, "this node"}, {o.own, "node " + o.name}} {
			for _, what := range at.own {
				if what == store.whose {
					return fail.New(api.Conflict, "node %s uses this database too, and %s keeps %s in its own data folder, which other nodes cannot access", o.name, at.who, what).
						WithHint("move them to where all nodes can access them, and start every node with %s", store.hint)
				}
			}
		}
	}
	return nil
}

// ownStores returns which of the stores, given by URL, are in the data folder. For a
// folder elsewhere it relies on the operator: all nodes must be able to access it.
func ownStores(data string, stores map[string]string) (own []string) {
	for _, name := range []string{"availability", "blobs"} {
		location := stores[name]
		u, err := url.Parse(location)
		switch {
		case location == "":
		case err != nil || u.Scheme != "file":
			continue
		default:
			inside, err := filepath.Rel(resolved(data), resolved(u.Path))
			if err != nil || inside == ".." || strings.HasPrefix(inside, ".."+string(filepath.Separator)) {
				continue
			}
		}
		own = append(own, name)
	}
	return own
}

// resolved is a path without symbolic links, as far as it is there.
func resolved(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return filepath.Clean(path)
}

// heartbeat renews the node's lease and evicts nodes that died, until ctx is done.
func (m *member) heartbeat(ctx context.Context) {
	tick := time.NewTicker(heartbeatEvery)
	defer tick.Stop()
	suspects := map[string]bool{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := m.renew(ctx)
		if err == nil {
			suspects, err = m.evict(ctx, suspects)
		}
		switch {
		case err == nil || ctx.Err() != nil:
		case fail.Is(err, api.Conflict): // it was suspended, and an incompatible node has joined meanwhile
			m.base.options.Logger.ErrorContext(ctx, "this node cannot work together with the other nodes any more and stops", "error", err)
			m.refuse(err)
			return
		default:
			m.base.options.Logger.WarnContext(ctx, "the node could not renew its lease; it will retry", "error", err)
		}
	}
}

// renew renews the node's lease. It never waits for a lock that an unresponsive node
// could hold. A node that was evicted registers again.
func (m *member) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lease.Term)
	defer cancel()
	registered := int64(0)
	err := m.base.leaseDB.InTx(ctx, func(tx *store.Tx) (err error) {
		if m.fence, _, err = lease.Take(ctx, tx, lease.OfNode(m.base.name), m.base.name, lease.Term); err != nil {
			return err
		}
		return tx.QueryRow(ctx, `SELECT COUNT(*) FROM node WHERE name = ?1`, m.base.name).Scan(&registered)
	})
	if err != nil || registered > 0 {
		return err
	}
	m.base.options.Logger.WarnContext(ctx, "this node did not renew its lease in time and was evicted; it registers again")
	return m.register(ctx)
}

// evict deletes nodes whose lease is still expired at a second check, ends all their
// leases, and cuts their connections, because locks of a paused or unreachable machine
// would block the others until it responds again. It then has the upkeep that they had
// queued queued again.
func (m *member) evict(ctx context.Context, suspects map[string]bool) (dead map[string]bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, lease.Term)
	defer cancel()
	found := false
	err = m.base.leaseDB.InTx(ctx, func(tx *store.Tx) error {
		dead, found = map[string]bool{}, false
		peers, err := m.peers(ctx, tx)
		if err != nil {
			return err
		}
		for _, o := range peers {
			switch {
			case o.live:
			case !suspects[o.name]:
				dead[o.name] = true
			default:
				m.base.options.Logger.WarnContext(ctx, "a node died or does not respond; the others continue its work", "node", o.name)
				if err := tx.EndSession(ctx, o.session); err != nil {
					return err
				}
				if err := lease.End(ctx, tx, o.name); err != nil {
					return err
				}
				found = true
				if _, err := tx.Exec(ctx, `DELETE FROM node WHERE name = ?1`, o.name); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("check for nodes that died: %w", err)
	}
	if found {
		select {
		case m.evicted <- struct{}{}:
		default: // a signal is pending already
		}
	}
	return dead, nil
}
