package lease_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"keyroll/internal/lease"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

const long = time.Hour // a term that does not end during a test

func inTx(t testing.TB, db *store.DB, fn func(ctx context.Context, tx *store.Tx) error) {
	t.Helper()
	ctx := context.Background()
	if err := db.InTx(ctx, func(tx *store.Tx) error { return fn(ctx, tx) }); err != nil {
		t.Fatal(err)
	}
}

// advance lets a time pass for one lease.
func advance(t testing.TB, db *store.DB, name string, d time.Duration) {
	inTx(t, db, func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE lease SET until = until - ?2 WHERE name = ?1`, name, d.Milliseconds())
		return err
	})
}

// waitUntilPast waits until the database's clock is past a fence, as it is when a lease
// is forgotten that had fewer holders than milliseconds.
func waitUntilPast(t testing.TB, db *store.DB, fence int64) {
	for now := int64(0); now <= fence; {
		inTx(t, db, func(ctx context.Context, tx *store.Tx) error {
			return tx.QueryRow(ctx, `SELECT `+tx.Clock()).Scan(&now)
		})
	}
}

// Any sequence of takes, releases, passing time and forgetting agrees with a
// simple model: a lease has at most one holder, and the fence grows
// whenever the holder changes.
func TestAnySequenceGivesALeaseToOneHolderAtATime(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		round := 0
		rapid.Check(t, func(rt *rapid.T) {
			round++
			name := fmt.Sprintf("work/%d", round)
			holder, live := "", false
			fences := map[string]int64{} // the last one of each holder
			var highest int64
			who := rapid.SampledFrom([]string{"a", "b", "c"})
			rt.Repeat(map[string]func(*rapid.T){
				"take": func(rt *rapid.T) {
					h := who.Draw(rt, "holder")
					var fence int64
					var ok bool
					inTx(t, db, func(ctx context.Context, tx *store.Tx) (err error) {
						fence, ok, err = lease.Take(ctx, tx, name, h, long)
						return err
					})
					if may := !live || h == holder; ok != may {
						rt.Fatalf("%s takes what %q has (live %v): %v", h, holder, live, ok)
					}
					if !ok {
						return
					}
					if h != holder && fence <= highest || h == holder && fence < highest {
						rt.Fatalf("fence %d of %s after %d of %q", fence, h, highest, holder)
					}
					holder, live, highest, fences[h] = h, true, fence, fence
				},
				"release": func(rt *rapid.T) {
					h := who.Draw(rt, "holder")
					inTx(t, db, func(ctx context.Context, tx *store.Tx) error { return lease.Release(ctx, tx, name, h, fences[h]) })
					live = live && h != holder
				},
				"die": func(rt *rapid.T) {
					h := who.Draw(rt, "holder")
					inTx(t, db, func(ctx context.Context, tx *store.Tx) error { return lease.End(ctx, tx, h) })
					live = live && h != holder
				},
				"time passes": func(*rapid.T) {
					advance(t, db, name, long+time.Second)
					live = false
				},
				"forget": func(*rapid.T) {
					if err := lease.New(db, "", long).Forget(t.Context(), 0); err != nil {
						rt.Fatal(err)
					}
					if !live {
						holder = "" // even a former holder may get a new fence
						waitUntilPast(t, db, highest)
					}
				},
				"": func(rt *rapid.T) {
					inTx(t, db, func(ctx context.Context, tx *store.Tx) error {
						all, err := lease.Live(ctx, tx, "work/")
						if err == nil && (all[fmt.Sprint(round)] == holder && holder != "") != live {
							rt.Fatalf("live %v, listed %v", live, all)
						}
						return err
					})
				},
			})
			advance(t, db, name, long+time.Second)
		})
	})
}

func TestOneOfManyConcurrentCallersGetsTheLease(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		const nodes = 8
		var all, entered sync.WaitGroup
		entered.Add(nodes)
		var mu sync.Mutex
		holders := 0
		for i := range nodes {
			all.Go(func() {
				held, err := lease.New(db, fmt.Sprint(i), long).Hold(context.Background(), "work", func(context.Context) error {
					mu.Lock()
					holders++
					mu.Unlock()
					entered.Done()
					entered.Wait()
					return nil
				})
				if err != nil {
					t.Error(err)
				}
				if !held {
					entered.Done()
				}
			})
		}
		all.Wait()
		if holders != 1 {
			t.Errorf("%d of %d hold", holders, nodes)
		}
	})
}

func TestALeaseIsReleasedAtOnce(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		a, b := lease.New(db, "a", long), lease.New(db, "b", long)
		ctx, stop := context.WithCancel(t.Context())
		held, err := a.Hold(ctx, "work", func(ctx context.Context) error {
			for _, l := range []*lease.Leases{a, b} {
				if held, err := l.Hold(ctx, "work", func(context.Context) error { t.Error("two at once"); return nil }); held || err != nil {
					t.Errorf("a second holder: %v, %v", held, err)
				}
			}
			stop() // as a node that is told to stop
			<-ctx.Done()
			return ctx.Err()
		})
		if !held || !errors.Is(err, context.Canceled) {
			t.Errorf("%v, %v", held, err)
		}
		if held, err := b.Hold(t.Context(), "work", func(context.Context) error { return nil }); !held || err != nil {
			t.Errorf("after it was given back: %v, %v", held, err)
		}
	})
}

func TestALeaseIsRenewedAndItsLossEndsTheWork(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		const short = 9 * time.Second // far longer than a busy machine takes for a renewal
		until := func() (ms int64) {
			inTx(t, db, func(ctx context.Context, tx *store.Tx) error {
				return tx.QueryRow(ctx, `SELECT until FROM lease WHERE name = 'work'`).Scan(&ms)
			})
			return ms
		}
		held, err := lease.New(db, "a", short).Hold(t.Context(), "work", func(ctx context.Context) error {
			for first := until(); until() == first && ctx.Err() == nil; { // until it has been renewed
				<-time.After(20 * time.Millisecond)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			advance(t, db, "work", long)
			inTx(t, db, func(ctx context.Context, tx *store.Tx) error {
				_, err := tx.Exec(ctx, `UPDATE lease SET holder = 'b', fence = fence + 1, until = until + ?1 WHERE name = 'work'`, 2*long.Milliseconds())
				return err
			})
			<-ctx.Done()
			return context.Cause(ctx)
		})
		if !held || !errors.Is(err, lease.ErrLost) {
			t.Errorf("%v, %v", held, err)
		}
		// The former holder must not release the lease of the new one.
		if held, err := lease.New(db, "c", short).Hold(t.Context(), "work", func(context.Context) error { return nil }); held || err != nil {
			t.Errorf("the new holder lost it: %v, %v", held, err)
		}
	})
}

// A node that cannot reach the database cannot know whether it still has its lease.
func TestALeaseThatCannotBeRenewedEndsTheWork(t *testing.T) {
	db := storetest.Postgres(t)
	held, err := lease.New(db, "a", 300*time.Millisecond).Hold(t.Context(), "work", func(ctx context.Context) error {
		block := make(chan struct{})
		go func() { // locks the row, so that no renewal succeeds
			_ = db.InTx(context.Background(), func(tx *store.Tx) error {
				_, err := tx.Exec(context.Background(), `UPDATE lease SET fence = fence WHERE name = 'work'`)
				<-block
				return err
			})
		}()
		<-ctx.Done()
		close(block)
		return context.Cause(ctx)
	})
	if !held || !errors.Is(err, lease.ErrLost) {
		t.Errorf("%v, %v", held, err)
	}
}

func TestASingleNodeGetsEveryLease(t *testing.T) {
	var alone *lease.Leases
	held, err := alone.Hold(t.Context(), "work", func(context.Context) error { return errors.New("of the work") })
	if !held || err == nil {
		t.Errorf("%v, %v", held, err)
	}
}

// A node that slept past its lease changes nothing when it wakes up, whether another node
// has the lease by then or not.
func TestNothingIsCommittedUnderAnExpiredLease(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		writes := func(ctx context.Context) error {
			return lease.InTx(ctx, db, func(tx *store.Tx) error {
				_, err := tx.Exec(ctx, `INSERT INTO lease (name, holder, fence, until) VALUES ('written', '', 0, 0) ON CONFLICT (name) DO UPDATE SET fence = lease.fence + 1`)
				return err
			})
		}
		written := func() (n int64) {
			inTx(t, db, func(ctx context.Context, tx *store.Tx) error {
				return tx.QueryRow(ctx, `SELECT COALESCE(MAX(fence), -1) FROM lease WHERE name = 'written'`).Scan(&n)
			})
			return n
		}
		for name, end := range map[string]func(){
			"it ended":    func() { advance(t, db, "it ended", 2*long) },
			"it was dead": func() { inTx(t, db, func(ctx context.Context, tx *store.Tx) error { return lease.End(ctx, tx, "a") }) },
			"another's": func() {
				advance(t, db, "another's", 2*long)
				inTx(t, db, func(ctx context.Context, tx *store.Tx) error {
					_, ok, err := lease.Take(ctx, tx, "another's", "b", long)
					if !ok {
						t.Error("it was not to be had")
					}
					return err
				})
			},
		} {
			before := written()
			held, err := lease.New(db, "a", long).Hold(t.Context(), name, func(ctx context.Context) error {
				if err := writes(ctx); err != nil {
					t.Errorf("%s: before its end: %v", name, err)
				}
				end()
				return writes(ctx)
			})
			if !held || !errors.Is(err, lease.ErrLost) || written() != before+1 {
				t.Errorf("%s: %v, %v; %d written after %d", name, held, err, written(), before)
			}
		}
		if err := writes(t.Context()); err != nil { // under no lease
			t.Error(err)
		}
	})
}

// A lease whose taking was not answered, because the caller ended meanwhile or the
// connection was lost, is released: another node need not wait for its end.
func TestLeaseWhoseAnswerWasLostIsReleased(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx, stop := context.WithCancel(t.Context())
		lost := false
		mode := storetest.Mode(t)
		mode.LoseAnswer = func(context.Context) bool {
			first := !lost
			if first {
				lost = true
				stop()
			}
			return first
		}
		db.SetForTests(mode)
		held, err := lease.New(db, "a", long).Hold(ctx, "work", func(context.Context) error { t.Error("works without a lease"); return nil })
		if held || err == nil || !lost {
			t.Fatalf("held %t, %v, lost %t", held, err, lost)
		}
		if held, err := lease.New(db, "b", long).Hold(t.Context(), "work", func(context.Context) error { return nil }); !held || err != nil {
			t.Errorf("another node: held %t, %v", held, err)
		}
	})
}
