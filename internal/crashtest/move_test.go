package crashtest

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"keyroll/api"
	"keyroll/internal/fault"
	"keyroll/internal/longtest"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
	"keyroll/internal/store/storetest"
)

// movePoints is the prefix of the fault points in a move of the database, at which
// TestMoveOfADatabaseKilledAtEveryFaultPoint crashes.
const movePoints = "database."

// moveDatabase is the work of a child that moves a database.
func moveDatabase(t *testing.T, o order) {
	if _, err := node.MoveDatabase(t.Context(), o.Data, o.MoveTo, func(string, int64, int64) {}); err != nil {
		t.Fatal(err)
	}
}

// Wherever a move of the database is killed, exactly one of the two databases is valid,
// or the same move can be finished; nothing is lost, and no start creates a second one.
func TestMoveOfADatabaseKilledAtEveryFaultPoint(t *testing.T) {
	base := runSteps(t, prepared{seen: newModel()}, append(slices.Clone(stage),
		create(alice, nodetest.MailboxPolicy), importMessages(alice, mbox(1, 5)), create(bob, ""), makeSite(site), put(site, "a.txt", []byte("content")), refresh(api.DepthPolicy)))
	var points []string
	fault.Set(func(name string) { points = append(points, name) })
	clean := order{Data: filepath.Join(t.TempDir(), "data"), MoveTo: storetest.EmptyPostgresURL(t)}
	nodetest.CopyFolder(t, base.data, clean.Data)
	moveDatabase(t, clean)
	fault.Set(nil)
	for i, point := range points {
		if 0 < i && i < len(points)-1 && points[i-1] == point && (points[i+1] == point || !longtest.On()) {
			continue // a table like the one before, and in make test-long the one after
		}
		t.Run(point, func(t *testing.T) {
			o := order{Data: filepath.Join(t.TempDir(), "data"), MoveTo: storetest.EmptyPostgresURL(t), DieAt: i + 1}
			nodetest.CopyFolder(t, base.data, o.Data)
			if d := run(t, o); d.point != point {
				t.Fatalf("it died at %q", d.point)
			}
			started := func(database string) bool {
				t.Helper()
				n, err := node.Start(t.Context(), node.Options{Data: o.Data, Database: database, PageSlots: options.PageSlots})
				if err != nil {
					return false
				}
				if err := n.Close(); err != nil {
					t.Error(err)
				}
				return true
			}
			if started("") != slices.Contains([]string{"database.noted", "database.begun", "database.schema", "database.table", "database.compared"}, point) {
				t.Error("the source is the one to use until it was left, and no longer")
			}
			if point != "database.done" {
				if point != "database.noted" && started(o.MoveTo) {
					t.Error("the target is used before the move has ended")
				}
				moveDatabase(t, o)
			}
			if started("") {
				t.Error("the source is used after the move")
			}
			w := nodetest.Start(t, node.Options{Data: o.Data, Database: o.MoveTo, PageSlots: options.PageSlots})
			if seen := view(t, w); !reflect.DeepEqual(seen, base.seen) {
				t.Errorf("a user sees\n%+v\nnot\n%+v", seen, base.seen)
			}
			w.VerifyClean()
			if _, err := os.Stat(filepath.Join(o.Data, node.DatabaseFile)); err != nil {
				t.Error(err)
			}
			w.Stop()
		})
	}
}
