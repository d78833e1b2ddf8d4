package filestest

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"keyroll/internal/files"
)

// Scenario writes files, and records in a state S which writes were acknowledged.
type Scenario[S any] struct {
	// Begin makes the initial files; nil: none. It is never stopped.
	Begin func(t testing.TB, f files.FS, s *S)
	// Act writes until an operation fails. It records in s what was acknowledged.
	Act func(f files.FS, s *S)
	// Check opens the remaining files and compares them with s: acknowledged writes
	// must be complete, others complete or absent. Files that it makes and files that
	// it finds must stay, too; it records them in s.
	// It is called three times. The first time it may do next to nothing, so that
	// another process relies only on the files that it found.
	Check func(t testing.TB, f files.FS, s *S, nth int)
}

// loss is one way in which a process may end.
type loss struct {
	name string
	end  func(m *FS)
}

var losses = []loss{
	{"the process is killed", func(m *FS) { m.restart() }},
	{"power is lost, and all that was not synced", func(m *FS) { m.powerCut(noName, onlySynced) }},
	{"power is lost, and contents that were not synced", func(m *FS) { m.powerCut(anyName, onlySynced) }},
	{"power is lost, and names that were not synced", func(m *FS) { m.powerCut(noName, everything) }},
	{"power is lost, and what was not synced but removals", func(m *FS) { m.powerCut(removedName, onlySynced) }},
	{"power is lost, and what was not synced in part (1)", func(m *FS) { m.powerCutBySeed(1) }},
	{"power is lost, and what was not synced in part (2)", func(m *FS) { m.powerCutBySeed(2) }},
	{"power is lost, and what was not synced in part (3)", func(m *FS) { m.powerCutBySeed(3) }},
}

// Run runs a scenario to the end, and once for each of its operations and each way
// of losing unsynced changes: with a stop before the operation, and with a failure
// of only this operation. Each time it checks the remaining files, and checks them
// again after each of two power cuts.
func Run[S any](t *testing.T, c Scenario[S]) {
	t.Helper()
	for _, oneByOne := range []bool{false, true} { // Linux can sync a volume, others cannot
		name := "a volume is synced as a whole"
		if oneByOne {
			name = "files are synced one by one"
		}
		t.Run(name, func(t *testing.T) {
			stops := 0
			for n := 1; ; n++ {
				reached := false
				for _, l := range losses {
					reached = c.once(t, oneByOne, n, true, l) || reached
				}
				c.once(t, oneByOne, n, false, loss{"it goes on", func(*FS) {}})
				if !reached {
					break
				}
				stops++
			}
			if stops == 0 {
				t.Error("the scenario has no operation")
			}
		})
	}
}

// once runs the scenario once, and reports whether it reached its n-th operation.
func (c Scenario[S]) once(t *testing.T, oneByOne bool, n int, dies bool, l loss) (reached bool) {
	t.Helper()
	m, s := &FS{root: newFolder(), locks: map[*node]bool{}, noSync: oneByOne}, new(S)
	if c.Begin != nil {
		c.Begin(t, m, s)
	}
	m.ops, m.at, m.dies = 0, n, dies
	c.Act(m, s)
	at := m.reached
	m.at, m.dies, m.reached = 0, false, ""
	l.end(m)
	name := fmt.Sprintf("operation %d, %s: %s", n, at, l.name)
	if at == "" {
		name = "acted to the end: " + l.name
	}
	t.Run(name, func(t *testing.T) {
		for nth := range 3 {
			c.Check(t, m, s, nth)
			m.powerCut(noName, onlySynced)
		}
	})
	return at != ""
}

// restart ends the process: its handles and locks are invalid, and everything else is
// unchanged.
func (m *FS) restart() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.life++
	clear(m.locks)
}

// What a power cut leaves of changes of names that were not synced.
func noName(bool) bool              { return false }
func anyName(bool) bool             { return true }
func removedName(removed bool) bool { return removed }

// What a power cut leaves of a file.
func everything(data, _ []byte) []byte    { return data }
func onlySynced(_, durable []byte) []byte { return durable }

// powerCut ends the process and loses unsynced changes: keepName decides for each
// name that was made, replaced or removed, content for each file. The remaining state
// is durable.
func (m *FS) powerCut(keepName func(removed bool) bool, content func(data, durable []byte) []byte) {
	m.restart()
	m.mu.Lock()
	defer m.mu.Unlock()
	settled := map[*node]bool{}
	var settle func(n *node)
	settle = func(n *node) {
		if settled[n] {
			return
		}
		settled[n] = true
		if n.entries == nil {
			if !bytes.Equal(n.data, n.durable) {
				n.data = bytes.Clone(content(n.data, n.durable))
			}
			n.durable = n.data
			return
		}
		names := maps.Clone(n.onDisk)
		maps.Copy(names, n.entries)
		left := map[string]*node{}
		for _, base := range slices.Sorted(maps.Keys(names)) {
			child := n.onDisk[base]
			if now := n.entries[base]; now != child && keepName(now == nil) {
				child = now
			}
			if child != nil {
				left[base] = child
				settle(child)
			}
		}
		n.entries, n.onDisk = left, maps.Clone(left)
	}
	settle(m.root)
}

// powerCutBySeed randomly keeps each name or not, and of each file everything,
// nothing, a part or only its length.
func (m *FS) powerCutBySeed(seed uint64) {
	random := rand.New(rand.NewPCG(seed, uint64(m.ops)))
	m.powerCut(func(bool) bool { return random.IntN(2) == 0 }, func(data, durable []byte) []byte {
		switch random.IntN(4) {
		case 0:
			return data
		case 1:
			return durable
		case 2:
			return data[:random.IntN(len(data)+1)]
		}
		return make([]byte, len(data))
	})
}
