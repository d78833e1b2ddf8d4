package crashtest

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestFaultPointsFindsLiteralAndConcatenatedNames(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("a.go", `package a
func run(act string) { func() { fault.Point(act + ".before") }() }
func (s *S) change(n int, act string) { run(act) }
func (s *S) Set() { s.change(1, "set") }
func Move() { run("move"); fault.Point("plain") }
`)
	write("a_test.go", `package a
func T() { fault.Point("test") }
`)
	points, err := faultPoints(dir)
	if want := []string{"move.before", "plain", "set.before"}; err != nil || !slices.Equal(points, want) {
		t.Errorf("points %q, %v; want %q", points, err, want)
	}
	write("b.go", `package a
func other() { fault.Point(name()) }
`)
	if points, err := faultPoints(dir); err == nil {
		t.Errorf("a name that cannot be known gave %q", points)
	}
}
