package keypage_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"sync"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"

	"keyroll/internal/envelope"
	"keyroll/internal/keypage"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

const (
	benchSlots = 512
	benchPages = 4096
)

// eachDurable runs a benchmark on both databases with the settings of production:
// SQLite at synchronous FULL, PostgreSQL with fsync.
func eachDurable(b *testing.B, bench func(b *testing.B, db *store.DB)) {
	b.Run("sqlite", func(b *testing.B) { bench(b, storetest.SQLite(b)) })
	b.Run("postgres", func(b *testing.B) {
		address := storetest.PostgresURL(b)
		admin, err := sql.Open("pgx", address)
		if err != nil {
			b.Fatal(err)
		}
		defer admin.Close()
		for _, change := range []string{"fsync = on", "full_page_writes = on"} {
			if _, err := admin.Exec("ALTER SYSTEM SET " + change); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := admin.Exec("SELECT pg_reload_conf()"); err != nil {
			b.Fatal(err)
		}
		bench(b, storetest.Open(b, address))
	})
}

// benchBodies are the bodies of the benchmarks. A swap must write another body than
// the present one, as a new seal does: SQLite does not write database pages whose
// bytes are unchanged.
var benchBodies = sync.OnceValue(func() [][]byte {
	bodies := make([][]byte, 64)
	for i := range bodies {
		bodies[i] = make([]byte, 1+28+benchSlots*44)
		rand.Read(bodies[i])
	}
	return bodies
})

func benchBody(page int, version uint64) []byte {
	bodies := benchBodies()
	return bodies[(uint64(page)+version)%uint64(len(bodies))]
}

func benchmarkPages(b *testing.B, db *store.DB) []keypage.Row {
	rows := make([]keypage.Row, benchPages)
	for i := range rows {
		rows[i] = keypage.Row{ID: store.NewID(), Tenant: 1, Parent: 1, Generation: 1, Class: envelope.ClassActive, Version: 1, Count: benchSlots, Body: benchBody(i, 1)}
	}
	ctx := context.Background()
	if err := db.InTx(ctx, func(tx *store.Tx) error { return keypage.Put(ctx, tx, rows...) }); err != nil {
		b.Fatal(err)
	}
	return rows
}

// BenchmarkSwap moves pages from one parent to the next, batch pages a
// transaction.
func BenchmarkSwap(b *testing.B) {
	eachDurable(b, func(b *testing.B, db *store.DB) {
		rows := benchmarkPages(b, db)
		ctx := context.Background()
		for _, batch := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
				b.SetBytes(int64(batch * len(rows[0].Body)))
				next := 0
				for b.Loop() {
					olds := rows[next : next+batch]
					news := make([]keypage.Row, batch)
					for i, old := range olds {
						news[i] = old
						news[i].Parent++
						news[i].Version++
						news[i].Body = benchBody(next+i, news[i].Version)
					}
					err := db.InTx(ctx, func(tx *store.Tx) error {
						swapped, err := keypage.Swap(ctx, tx, olds, news)
						for _, ok := range swapped {
							if !ok {
								b.Fatal("lost a swap without a rival")
							}
						}
						return err
					})
					if err != nil {
						b.Fatal(err)
					}
					copy(olds, news)
					next = (next + batch) % benchPages
				}
				pages := float64(b.N*batch) / b.Elapsed().Seconds()
				b.ReportMetric(pages, "pages/s")
				b.ReportMetric(pages*benchSlots, "keys/s")
			})
		}
	})
}

// BenchmarkUnder reads pages of one parent as the roll does, 64 at a time.
func BenchmarkUnder(b *testing.B) {
	eachDurable(b, func(b *testing.B, db *store.DB) {
		rows := benchmarkPages(b, db)
		ctx := context.Background()
		const batch = 64
		b.SetBytes(int64(batch * len(rows[0].Body)))
		var after int64
		for b.Loop() {
			err := db.ViewOnce(ctx, func(tx *store.Tx) error {
				got, err := keypage.Under(ctx, tx, keypage.Set{Tenant: 1, Parents: []keypage.Parent{{ID: 1, Generation: 1}}, Classes: []envelope.Class{envelope.ClassActive}}, after, batch)
				if err != nil {
					return err
				}
				if len(got) != batch {
					b.Fatalf("%d pages", len(got))
				}
				after = got[batch-1].ID
				if after == rows[len(rows)-1].ID {
					after = 0
				}
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
		}
		pages := float64(b.N*batch) / b.Elapsed().Seconds()
		b.ReportMetric(pages, "pages/s")
		b.ReportMetric(pages*benchSlots, "keys/s")
	})
}
