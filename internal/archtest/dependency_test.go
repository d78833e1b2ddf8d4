package archtest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Each direct dependency is there for a reason, which go.mod states beside it. Those for
// tests are not part of any program.
func TestEachDirectDependencyHasAReason(t *testing.T) {
	ours, _ := modulePackages()
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
		dependency, reason, _ := strings.Cut(strings.TrimSpace(line), " // ")
		if reason == "" {
			t.Errorf("go.mod does not say what %s is for", dependency)
		}
		path, _, _ := strings.Cut(dependency, " ")
		used := false
		for _, p := range ours {
			used = used || !strings.HasSuffix(p.ImportPath, "test") && slices.ContainsFunc(p.Imports, func(imported string) bool {
				return imported == path || strings.HasPrefix(imported, path+"/")
			})
		}
		if strings.HasPrefix(reason, "tests: ") == used {
			t.Errorf("%s is there for %q, but that the programs import it is %t", path, reason, used)
		}
	}
}
