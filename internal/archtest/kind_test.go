package archtest

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// comparing lists where a kind of policy is compared outside the table of profiles, and
// why that is not a rule of a kind.
var comparing = map[string]string{
	"internal/service/mailbox.go": "by the contract only a mailbox policy can be assigned to a mailbox",
	"internal/policy/policy.go":   "counts the policies of any one kind",
	"internal/service/geo.go":     "the caller may state which kind it expects",
	"internal/cmdlet/policy.go":   "a cmdlet shows the policies of its own kind",
	"internal/demo/demo.go":       "finds the policy that it registered",
}

// Kinds of policies differ by the values in the table of profiles. A switch on the kind
// or a comparison with one anywhere else is a rule that is missing in the table.
func TestOnlyTheProfileTableDistinguishesKindsOfPolicies(t *testing.T) {
	ours, all := modulePackages()
	files := token.NewFileSet()
	exported := importer.ForCompiler(files, "gc", func(path string) (io.ReadCloser, error) { return os.Open(all[path].Export) })
	compared := map[string]bool{}
	for _, p := range ours {
		var sources []*ast.File
		for _, file := range p.GoFiles {
			source, err := parser.ParseFile(files, filepath.Join(p.Dir, file), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			sources = append(sources, source)
		}
		info := types.Info{Types: map[ast.Expr]types.TypeAndValue{}}
		if _, err := (&types.Config{Importer: exported}).Check(p.ImportPath, files, sources, &info); err != nil {
			t.Fatal(err)
		}
		isKind := func(e ast.Expr) bool {
			return e != nil && info.Types[e].Type != nil && info.Types[e].Type.String() == module+"api.PolicyKind"
		}
		for _, source := range sources {
			ast.Inspect(source, func(n ast.Node) bool {
				if n == nil {
					return true
				}
				at := files.Position(n.Pos())
				where := name(p.ImportPath) + "/" + filepath.Base(at.Filename)
				switch n := n.(type) {
				case *ast.SwitchStmt:
					if isKind(n.Tag) && where != "internal/profiles/profiles.go" {
						t.Errorf("%s:%d switches on the kind of a policy; give the profiles a field", where, at.Line)
					}
				case *ast.BinaryExpr:
					if (n.Op == token.EQL || n.Op == token.NEQ) && (isKind(n.X) || isKind(n.Y)) && where != "internal/profiles/profiles.go" {
						compared[where] = true
						if comparing[where] == "" {
							t.Errorf("%s:%d compares the kind of a policy; give the profiles a field", where, at.Line)
						}
					}
				}
				return true
			})
		}
	}
	for where := range comparing {
		if !compared[where] {
			t.Errorf("%s no longer compares kinds: remove it from the table", where)
		}
	}
}

// All packages are checked: none is hidden from these tests by a build tag or a name.
func TestEveryFolderWithGoFilesIsInTheTable(t *testing.T) {
	ours, _ := modulePackages()
	known := map[string]bool{}
	for _, p := range ours {
		known[p.Dir] = true
	}
	root := strings.TrimSuffix(filepath.Dir(moduleFile(t)), "/")
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") && path != root {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, ".go") && !known[filepath.Dir(path)] {
			return fmt.Errorf("%s is in no package of the module", path)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func moduleFile(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	return path
}
