package archtest

import (
	"go/ast"
	"strings"
	"testing"
)

// Each command starts the whole binary. A pattern that is compiled when the process
// starts delays all commands, including those that never use it.
func TestPatternsAreCompiledWhenTheyAreUsed(t *testing.T) {
	ours, _ := modulePackages()
	for _, p := range ours {
		if strings.HasSuffix(p.ImportPath, "test") {
			continue
		}
		for file, source := range sourcesOf(t, p) {
			for _, d := range source.Decls {
				if variables, ok := d.(*ast.GenDecl); ok {
					ast.Inspect(variables, func(n ast.Node) bool {
						call, isCall := n.(*ast.SelectorExpr)
						if isCall && call.Sel.Name == "MustCompile" {
							t.Errorf("%s/%s:%d compiles a pattern at the start of the process: use sync.OnceValue", name(p.ImportPath), file, source.line(n.Pos()))
						}
						_, later := n.(*ast.FuncLit)
						return !later
					})
				}
			}
		}
	}
}
