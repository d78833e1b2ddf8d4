package bench

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/keypage"
	"keyroll/internal/store"
)

// samplePages bounds the pages on which the cryptography is measured; they are used
// repeatedly until as many keys are done as the roll has.
const samplePages = 256

// sampled are key pages in memory.
type sampled struct {
	rows []keypage.Row
	keys []*envelope.Key // each its page's parent
}

// newSample copies the first pages that walk visits.
func newSample(ctx context.Context, walk func(context.Context, func(keypage.Row, *envelope.Key) (bool, error)) error) (s sampled, err error) {
	err = walk(ctx, func(row keypage.Row, key *envelope.Key) (bool, error) {
		s.rows, s.keys = append(s.rows, row), append(s.keys, key.Clone())
		return len(s.rows) < samplePages, nil
	})
	return s, err
}

// cryptography re-wraps keys on all cores, without a database, and returns the rate in
// keys per second.
func cryptography(s sampled, keys int) float64 {
	to := envelope.NewKey()
	work := make(chan int, 64)
	var workers sync.WaitGroup
	begin := time.Now()
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for i := range work {
				row := s.rows[i]
				next := row.EncryptionContext()
				next.Parent, next.Version = 1, next.Version+1
				if _, err := envelope.Reseal(s.keys[i], to, row.EncryptionContext(), next, row.Body); err != nil {
					panic(err) // the page was opened before
				}
			}
		})
	}
	done := 0
	for i := 0; done < keys; i++ {
		work <- i % len(s.rows)
		done += int(s.rows[i%len(s.rows)].Count)
	}
	close(work)
	workers.Wait()
	return float64(done) / time.Since(begin).Seconds()
}

// rows is the design that key pages are compared with: one row per container, with each
// key wrapped on its own.
type rows struct {
	db     *store.DB
	tenant int64
	n      int
	parent cipher.AEAD
	gen    int64
}

// rowBatch is how many rows one transaction updates; for PostgreSQL the statements are
// pipelined.
var rowBatch = map[string]int{"sqlite": 10_000, "postgres": 5_000}

type row struct {
	id      int64
	wrapped []byte
}

func newRows(ctx context.Context, b bulk, tenant int64, n int) (*rows, error) {
	db := b.db
	blobType := map[string]string{"sqlite": "BLOB", "postgres": "BYTEA"}[db.Dialect().Name]
	r := &rows{db: db, tenant: tenant, n: n, parent: newAEAD(), gen: 1}
	err := db.InTx(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(ctx, `CREATE TABLE bench_row (id BIGINT PRIMARY KEY, tenant BIGINT NOT NULL, parent BIGINT NOT NULL, version BIGINT NOT NULL, wrapped `+blobType+` NOT NULL)`)
		return err
	})
	if err != nil {
		return nil, err
	}
	return r, inParallel(ctx, n, fillRows, func(first, n int) ([]rowsOf, error) {
		part := rowsOf{table: rowTable}
		for id := int64(first) + 1; id <= int64(first+n); id++ {
			key := make([]byte, 32)
			rand.Read(key)
			part.rows = append(part.rows, []any{id, tenant, r.gen, int64(1), r.parent.Seal(nil, nil, key, rowAD(tenant, id, r.gen))})
		}
		return []rowsOf{part}, nil
	}, b.insert)
}

func newAEAD() cipher.AEAD {
	key := make([]byte, 32)
	rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return aead
}

// rowAD returns the associated data that binds a wrap to its row, as a key page binds a
// slot.
func rowAD(tenant, id, parent int64) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 24), uint64(tenant))
	b = binary.BigEndian.AppendUint64(b, uint64(id))
	return binary.BigEndian.AppendUint64(b, uint64(parent))
}

// roll re-wraps every row under a new parent. Reader, cryptography on all cores and
// writer overlap, as in the roll that it is compared with, and each new wrap is
// unwrapped again and compared.
func (r *rows) roll(ctx context.Context) (perSecond float64, err error) {
	next, nextGen := newAEAD(), r.gen+1
	size := rowBatch[r.db.Dialect().Name]
	read, sealed := make(chan []row, 1), make(chan [][]any, 1)
	begin := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(read)
		for after := int64(0); after < int64(r.n); after += int64(size) {
			batch, err := r.read(gctx, after, size)
			if err != nil {
				return err
			}
			select {
			case read <- batch:
			case <-gctx.Done():
				return gctx.Err()
			}
		}
		return nil
	})
	g.Go(func() error {
		defer close(sealed)
		for batch := range read {
			args, err := r.rewrap(batch, next, nextGen)
			if err != nil {
				return err
			}
			select {
			case sealed <- args:
			case <-gctx.Done():
				return gctx.Err()
			}
		}
		return nil
	})
	g.Go(func() error {
		for args := range sealed {
			err := r.db.InTx(gctx, func(tx *store.Tx) error {
				changed, err := tx.ExecMany(gctx, `UPDATE bench_row SET parent = ?2, version = version + 1, wrapped = ?3 WHERE id = ?1`, args)
				for _, n := range changed {
					if n != 1 {
						return fail.New(api.Damaged, "a row for comparison is missing")
					}
				}
				return err
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return 0, err
	}
	r.parent, r.gen = next, nextGen
	return float64(r.n) / time.Since(begin).Seconds(), nil
}

func (r *rows) read(ctx context.Context, after int64, size int) (batch []row, err error) {
	err = r.db.View(ctx, func(tx *store.Tx) error {
		batch = make([]row, 0, size)
		found, err := tx.Query(ctx, `SELECT id, wrapped FROM bench_row WHERE id > ?1 AND id <= ?2 AND parent = ?3`, after, after+int64(size), r.gen)
		if err != nil {
			return err
		}
		defer found.Close()
		for found.Next() {
			var one row
			if err := found.Scan(&one.id, &one.wrapped); err != nil {
				return err
			}
			batch = append(batch, one)
		}
		return found.Err()
	})
	return batch, err
}

func (r *rows) rewrap(batch []row, next cipher.AEAD, nextGen int64) ([][]any, error) {
	args := make([][]any, len(batch))
	var g errgroup.Group
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		g.Go(func() error {
			for i := w; i < len(batch); i += workers {
				one := batch[i]
				key, err := r.parent.Open(nil, nil, one.wrapped, rowAD(r.tenant, one.id, r.gen))
				if err != nil {
					return err
				}
				ad := rowAD(r.tenant, one.id, nextGen)
				wrapped := next.Seal(nil, nil, key, ad)
				again, err := next.Open(nil, nil, wrapped, ad)
				if err != nil || string(again) != string(key) {
					return fmt.Errorf("a new wrap cannot be unwrapped: %w", err)
				}
				args[i] = []any{one.id, nextGen, wrapped}
			}
			return nil
		})
	}
	return args, g.Wait()
}

// databases returns the URLs of n databases for a measurement: empty for files in the
// folder, or schemas of a PostgreSQL database. drop removes them, and stores its
// failure in *failure unless that is set.
func (o Options) databases(ctx context.Context, n int) (urls []string, drop func(failure *error), err error) {
	urls = make([]string, n)
	if o.Database == "" {
		return urls, func(*error) {}, nil
	}
	if !strings.HasPrefix(o.Database, "postgres://") && !strings.HasPrefix(o.Database, "postgresql://") {
		return urls, nil, fail.New(api.InvalidArgument, "the database's URL must begin with postgres://; without a URL, SQLite is measured")
	}
	var made []string
	remove := func() error {
		conn, err := pgx.Connect(ctx, o.Database)
		if err != nil {
			return err
		}
		defer conn.Close(ctx)
		for _, name := range made {
			if _, err := conn.Exec(ctx, `DROP SCHEMA `+name+` CASCADE`); err != nil {
				return err
			}
		}
		return nil
	}
	conn, err := pgx.Connect(ctx, o.Database)
	if err != nil {
		return urls, nil, fail.New(api.Unavailable, "the database cannot be reached").Because(err)
	}
	defer conn.Close(ctx)
	for i := range urls {
		name := fmt.Sprintf("keyroll_bench_%d", store.NewID())
		if _, err := conn.Exec(ctx, `CREATE SCHEMA `+name); err != nil {
			return urls, nil, errors.Join(err, remove())
		}
		made = append(made, name)
		sep := "?"
		if strings.Contains(o.Database, "?") {
			sep = "&"
		}
		urls[i] = o.Database + sep + "search_path=" + name
	}
	return urls, func(failure *error) {
		if err := remove(); *failure == nil {
			*failure = err
		}
	}, nil
}

// durability returns the database's version and the durability of its commits.
func durability(ctx context.Context, db *store.DB) (name, level string, err error) {
	queries := map[string][2]string{
		"sqlite":   {`SELECT 'SQLite ' || sqlite_version()`, `SELECT CASE synchronous WHEN 2 THEN 'synchronous=FULL' ELSE 'synchronous=' || synchronous END FROM pragma_synchronous`},
		"postgres": {`SELECT 'PostgreSQL ' || current_setting('server_version')`, `SELECT 'synchronous_commit=' || current_setting('synchronous_commit') || ', fsync=' || current_setting('fsync')`},
	}
	q := queries[db.Dialect().Name]
	err = db.InTx(ctx, func(tx *store.Tx) error {
		if err := tx.QueryRow(ctx, q[0]).Scan(&name); err != nil {
			return err
		}
		return tx.QueryRow(ctx, q[1]).Scan(&level)
	})
	return name, level, err
}
