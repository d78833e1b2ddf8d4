// Package crashtest kills keyroll and checks the data that remains.
//
// A scenario runs in a child process that exits at the n-th fault point it reaches,
// n = 1, 2, 3, until a run ends normally. After each crash the parent opens the data
// folder, lets rolls finish, and checks by verify and by reading as a user that every
// acknowledged change is complete and no other is half done. A fault point in the
// source at which no scenario crashes fails the test. In addition a real keyroll is
// killed at random moments of rolls.
//
// A killed process loses its memory, not what it has written to the system. What a
// power cut would also lose is covered by the guarantees of the database and the blob
// store (synchronous=FULL, fsync before a row references a blob). Nothing here runs in
// production. Start reading at TestKilledAtEveryFaultPoint.
package crashtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// faultPoints returns the names of the fault points in the non-test Go files under root. A
// name may be built from a parameter of the enclosing function; then each literal that
// the package passes for it makes one name.
func faultPoints(root string) ([]string, error) {
	var points []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		found, err := pointsIn(path)
		points = append(points, found...)
		return err
	})
	slices.Sort(points)
	return slices.Compact(points), err
}

// function is a function of one package.
type function struct {
	name   string
	params []string
	body   *ast.BlockStmt
}

func pointsIn(dir string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	set := token.NewFileSet()
	var all []function
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(set, file, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		for _, d := range parsed.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Body != nil {
				all = append(all, function{f.Name.Name, paramNames(f.Type), f.Body})
			}
		}
	}
	var points []string
	for _, f := range all {
		for _, call := range callsIn(f.body) {
			if !isPoint(call) {
				continue
			}
			names, err := texts(all, f, call.Args[0], 0)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", set.Position(call.Pos()), err)
			}
			points = append(points, names...)
		}
	}
	return points, nil
}

// isPoint reports whether a call is fault.Point(…).
func isPoint(call *ast.CallExpr) bool {
	s, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || s.Sel.Name != "Point" {
		return false
	}
	x, ok := s.X.(*ast.Ident)
	return ok && x.Name == "fault"
}

func paramNames(t *ast.FuncType) (names []string) {
	for _, field := range t.Params.List {
		for _, name := range field.Names {
			names = append(names, name.Name)
		}
	}
	return names
}

func callsIn(body *ast.BlockStmt) (calls []*ast.CallExpr) {
	ast.Inspect(body, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			calls = append(calls, call)
		}
		return true
	})
	return calls
}

// texts returns every value that a string expression in f may have.
func texts(all []function, f function, e ast.Expr, depth int) ([]string, error) {
	if depth > 10 {
		return nil, fmt.Errorf("the name of a fault point is passed through too many functions")
	}
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return []string{text}, err
	case *ast.BinaryExpr:
		left, err := texts(all, f, e.X, depth+1)
		if err != nil {
			return nil, err
		}
		right, err := texts(all, f, e.Y, depth+1)
		var sums []string
		for _, l := range left {
			for _, r := range right {
				sums = append(sums, l+r)
			}
		}
		return sums, err
	case *ast.Ident:
		at := slices.Index(f.params, e.Name)
		if at < 0 {
			break
		}
		var passed []string
		for _, caller := range all {
			for _, call := range callsIn(caller.body) {
				if calledName(call) != f.name || len(call.Args) != len(f.params) {
					continue
				}
				values, err := texts(all, caller, call.Args[at], depth+1)
				if err != nil {
					return nil, err
				}
				passed = append(passed, values...)
			}
		}
		if len(passed) > 0 {
			return passed, nil
		}
	}
	return nil, fmt.Errorf("the name of a fault point is neither a literal nor built from a parameter that is always passed as a literal")
}

func calledName(call *ast.CallExpr) string {
	switch f := call.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		return f.Sel.Name
	}
	return ""
}
