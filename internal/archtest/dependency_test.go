package archtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each direct dependency is there for a reason, which go.mod states beside it.
func TestEachDirectDependencyHasAReason(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	_, direct, found := strings.Cut(string(text), "require (\n")
	direct, _, ended := strings.Cut(direct, ")")
	if !found || !ended || strings.Contains(direct, "// indirect") {
		t.Fatal("go.mod does not begin with the direct dependencies")
	}
	for line := range strings.Lines(direct) {
		if _, reason, _ := strings.Cut(line, " // "); strings.TrimSpace(reason) == "" {
			t.Errorf("go.mod does not say what %s is for", strings.TrimSpace(line))
		}
	}
}
