package archtest

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	// mostParameters a function may take. A context counts, a receiver does not.
	mostParameters = 5
	// mostLines a function may have, from its signature to its last brace.
	mostLines = 60
)

const flatTable = "a flat table, one row for each operation or cmdlet: parts of it would have no names"

// large lists the functions that exceed a limit, by package, and why.
var large = map[string]map[string]string{
	"internal/server": {"operations": flatTable},
	"internal/cmdlet": {"keyCmdlets": flatTable, "pipeCmdlets": flatTable, "recipientCmdlets": flatTable, "subscriptionCmdlets": flatTable, "vaultCmdlets": flatTable},
}

// source is a parsed file.
type source struct {
	*ast.File
	files *token.FileSet
}

func (s source) line(at token.Pos) int { return s.files.Position(at).Line }

// sourcesOf returns the parsed files of a package, without its tests, by their names.
func sourcesOf(t *testing.T, p goPackage) iter.Seq2[string, source] {
	t.Helper()
	return func(yield func(string, source) bool) {
		for _, file := range p.GoFiles {
			files := token.NewFileSet()
			parsed, err := parser.ParseFile(files, filepath.Join(p.Dir, file), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			if !yield(file, source{parsed, files}) {
				return
			}
		}
	}
}

// A long list of parameters is a type that has no name yet, and a long function several
// steps.
func TestFunctionsAreSmall(t *testing.T) {
	ours, _ := modulePackages()
	exceeds := map[string]bool{}
	for _, p := range ours {
		if strings.HasSuffix(p.ImportPath, "test") {
			continue
		}
		for file, source := range sourcesOf(t, p) {
			for _, d := range source.Decls {
				f, ok := d.(*ast.FuncDecl)
				if !ok {
					continue
				}
				line := source.line(f.Pos())
				parameters, lines := f.Type.Params.NumFields(), source.line(f.End())-line+1
				if parameters <= mostParameters && lines <= mostLines {
					continue
				}
				where := name(p.ImportPath)
				exceeds[where+"."+f.Name.Name] = true
				if large[where][f.Name.Name] == "" {
					t.Errorf("%s/%s:%d: %s has %d parameters and %d lines, more than %d or %d",
						where, file, line, f.Name.Name, parameters, lines, mostParameters, mostLines)
				}
			}
		}
	}
	for where, functions := range large {
		for f := range functions {
			if !exceeds[where+"."+f] {
				t.Errorf("%s.%s is within the limits: remove it from the table", where, f)
			}
		}
	}
}

// mostPackageLines a package may have without its tests.
const mostPackageLines = 3500

// largePackages lists the packages that exceed the limit, and why.
var largePackages = map[string]string{
	"internal/cmdlet": "flat tables of cmdlets with their help, which have no parts",
}

// A package that cannot be read in an hour has parts that should be packages.
func TestPackagesAreSmall(t *testing.T) {
	ours, _ := modulePackages()
	exceeds := map[string]bool{}
	for _, p := range ours {
		lines := 0
		for _, file := range p.GoFiles {
			source, err := os.ReadFile(filepath.Join(p.Dir, file))
			if err != nil {
				t.Fatal(err)
			}
			lines += bytes.Count(source, []byte("\n"))
		}
		if lines <= mostPackageLines {
			continue
		}
		exceeds[name(p.ImportPath)] = true
		if largePackages[name(p.ImportPath)] == "" {
			t.Errorf("%s has %d lines, more than %d", name(p.ImportPath), lines, mostPackageLines)
		}
	}
	for large := range largePackages {
		if !exceeds[large] {
			t.Errorf("%s is within the limit: remove it from the table", large)
		}
	}
}

// An embedded Config would promote its fields, so that every user of a struct could use,
// and replace, what the struct was made with.
func TestNoExportedStructEmbedsItsConfig(t *testing.T) {
	ours, _ := modulePackages()
	for _, p := range ours {
		for file, source := range sourcesOf(t, p) {
			ast.Inspect(source.File, func(n ast.Node) bool {
				spec, ok := n.(*ast.TypeSpec)
				if !ok || !spec.Name.IsExported() {
					return true
				}
				s, ok := spec.Type.(*ast.StructType)
				if !ok {
					return true
				}
				for _, f := range s.Fields.List {
					if named, ok := f.Type.(*ast.Ident); ok && len(f.Names) == 0 && named.Name == "Config" {
						t.Errorf("%s/%s:%d: %s embeds its Config", name(p.ImportPath), file, source.line(f.Pos()), spec.Name)
					}
				}
				return true
			})
		}
	}
}
