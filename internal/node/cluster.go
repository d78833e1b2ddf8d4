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

// newName names this start of a node: the machine, and something that no other
// start has.
func newName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "node"
	}
	return strings.ToLower(host + "-" + rand.Text()[:6])
}

// registering is the lock of who joins the others. Locks of ids are far larger.
const registering = 1

const (
	// startTerm is that of the lease of a start, which no other node takes over
	// but one that starts as well: a busy machine is no reason to fail it.
	startTerm = 4 * lease.Term
	// lookEvery is how often a node shows that it lives, and looks at the others.
	lookEvery = lease.Term / 5
	// tryEvery is how often a start looks whether another one is over.
	tryEvery = lease.Term / 20
)

// oneAtATime runs what makes the things that a new database is missing, while no
// other node does.
func (n *Node) oneAtATime(ctx context.Context, work func(ctx context.Context) error) error {
	starts := n.leases
	if starts != nil {
		starts = lease.New(n.aside, n.Name, startTerm)
	}
	for {
		held, err := starts.Hold(ctx, "start", work)
		if held || err != nil {
			return err
		}
		select {
		case <-time.After(tryEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// join makes this node known to the others on its database, and keeps it so
// until it is closed. It is refused where one of them keeps something in its own
// data folder that all have to reach.
func (n *Node) join(ctx context.Context, o Options) error {
	if n.leases == nil {
		return nil
	}
	n.own = ownStores(o.Data, map[string]string{"availability": n.Availability, "blobs": o.Blobs})
	// What a node left that was killed a moment ago ends within the time.
	deadline := time.Now().Add(lease.Term + lookEvery)
	for err := n.register(ctx); err != nil; err = n.register(ctx) {
		if !fail.Is(err, api.Conflict) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-time.After(tryEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	stay, leave := context.WithCancel(context.WithoutCancel(ctx))
	left := make(chan struct{})
	go func() {
		defer close(left)
		n.stay(stay)
	}()
	n.closers = append(n.closers, func() error {
		leave()
		<-left
		return n.deregister(context.WithoutCancel(ctx))
	})
	return nil
}

// register writes the node down and takes its lease, unless the nodes that live
// cannot work side by side with it.
func (n *Node) register(ctx context.Context) error {
	return n.aside.InTx(ctx, func(tx *store.Tx) error {
		if err := tx.Lock(ctx, registering, true); err != nil {
			return err
		}
		others, err := n.others(ctx, tx)
		if err != nil {
			return err
		}
		for _, other := range others {
			if err := n.fits(other); other.lives && err != nil {
				return err
			}
		}
		_, err = tx.Exec(ctx, `INSERT INTO node (name, url, session, since, own, records_health) VALUES (?1, ?2, ?3, `+tx.Clock()+`, ?4, 1)
			ON CONFLICT (name) DO NOTHING`, n.Name, n.Info.URL, n.DB.Session(), strings.Join(n.own, "\n"))
		if err != nil {
			return err
		}
		n.fence, _, err = lease.Take(ctx, tx, lease.OfNode(n.Name), n.Name, lease.Term)
		return err
	})
}

func (n *Node) deregister(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lease.Term)
	defer cancel()
	err := n.aside.InTx(ctx, func(tx *store.Tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM node WHERE name = ?1`, n.Name); err != nil {
			return err
		}
		return lease.Release(ctx, tx, lease.OfNode(n.Name), n.Name, n.fence)
	})
	if err != nil { // the others find out by themselves
		n.logger.WarnContext(ctx, "the node could not take its leave of the others", "error", err)
	}
	return nil
}

// other is another node as the database knows it.
type other struct {
	name, session string
	own           []string
	lives         bool
}

func (n *Node) others(ctx context.Context, tx *store.Tx) (list []other, err error) {
	live, err := lease.Live(ctx, tx, lease.NodePrefix)
	if err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, `SELECT name, session, own FROM node WHERE name <> ?1 ORDER BY name`, n.Name)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var o other
		var own string
		if err := rows.Scan(&o.name, &o.session, &own); err != nil {
			return nil, err
		}
		o.own = strings.FieldsFunc(own, func(r rune) bool { return r == '\n' })
		_, o.lives = live[o.name]
		list = append(list, o)
	}
	return list, rows.Err()
}

// olderNodes reports whether a node is live that does not record the health of
// customer keys.
func olderNodes(ctx context.Context, tx *store.Tx) (bool, error) {
	live, err := lease.Live(ctx, tx, lease.NodePrefix)
	if err != nil || len(live) == 0 {
		return false, err
	}
	names, err := store.Collect(ctx, tx, func(row store.Scanner) (name string, err error) {
		return name, row.Scan(&name)
	}, `SELECT name FROM node WHERE records_health = 0`)
	return slices.ContainsFunc(names, func(name string) bool { _, lives := live[name]; return lives }), err
}

// fits says why two nodes cannot work side by side.
func (n *Node) fits(o other) error {
	for _, store := range []struct{ whose, hint string }{
		{"availability", "--availability https://VAULT, a vault of the operator's, or file:///FOLDER, a folder that all nodes reach"},
		{"blobs", "--blobs s3://BUCKET, azblob://ACCOUNT/CONTAINER, or file:///FOLDER, a folder that all nodes reach"},
	} {
		for _, at := range []struct {
			own []string
			who string
		}{{n.own, "this node"}, {o.own, "node " + o.name}} {
			for _, what := range at.own {
				if what == store.whose {
					return fail.New(api.Conflict, "node %s works on this database, and %s keeps %s in its own data folder, which other nodes do not reach", o.name, at.who, what).
						WithHint("move them to where all nodes reach them, and start every node with %s", store.hint)
				}
			}
		}
	}
	return nil
}

// ownStores returns which of some stores, by their URLs, stand in a data folder.
// A folder elsewhere is the operator's word that all nodes reach it.
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

// stay renews the node's lease and buries nodes that died, until ctx is done.
func (n *Node) stay(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	suspects := map[string]bool{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := n.renew(ctx)
		if err == nil {
			suspects, err = n.bury(ctx, suspects)
		}
		switch {
		case err == nil || ctx.Err() != nil:
		case fail.Is(err, api.Conflict): // it slept, and another one took its place
			n.logger.ErrorContext(ctx, "this node cannot go on beside the others; it stops", "error", err)
			n.refused = err
			n.drain()
			return
		default:
			n.logger.WarnContext(ctx, "the node could not show the others that it lives; that is tried again", "error", err)
		}
	}
}

// renew renews the node's lease. It waits for no lock that a node could hold
// which does not answer. A node that was buried joins again.
func (n *Node) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lease.Term)
	defer cancel()
	known := int64(0)
	err := n.aside.InTx(ctx, func(tx *store.Tx) (err error) {
		if n.fence, _, err = lease.Take(ctx, tx, lease.OfNode(n.Name), n.Name, lease.Term); err != nil {
			return err
		}
		return tx.QueryRow(ctx, `SELECT COUNT(*) FROM node WHERE name = ?1`, n.Name).Scan(&known)
	})
	if err != nil || known > 0 {
		return err
	}
	n.logger.WarnContext(ctx, "this node did not answer for a while and was taken for dead; it joins again")
	return n.register(ctx)
}

// bury forgets nodes that have not renewed their lease when it is looked at a
// second time, ends whatever leases they had, and cuts their connections: what a
// paused or unreachable machine holds locked would hold up the others until it
// answers again. Upkeep that they had queued is looked for anew.
func (n *Node) bury(ctx context.Context, suspects map[string]bool) (dead map[string]bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, lease.Term)
	defer cancel()
	found := false
	err = n.aside.InTx(ctx, func(tx *store.Tx) error {
		dead, found = map[string]bool{}, false
		others, err := n.others(ctx, tx)
		if err != nil {
			return err
		}
		for _, o := range others {
			switch {
			case o.lives:
			case !suspects[o.name]:
				dead[o.name] = true
			default:
				n.logger.WarnContext(ctx, "a node died or does not answer; the others go on with its work", "node", o.name)
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
		return nil, fmt.Errorf("look for nodes that died: %w", err)
	}
	if found {
		select {
		case n.buried <- struct{}{}:
		default: // it is told already
		}
	}
	return dead, nil
}
