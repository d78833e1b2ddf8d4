package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// dialect is what earlier texts of the project said, and what to write instead. It
// is a private way of speaking that a stranger has to decipher.
var dialect = []struct{ pattern, write string }{
	{`\brooms?\b`, "package"},
	{`\b(stands?|stood) (under|on|in|beneath|behind)\b`, "is under, uses, is stored in"},
	{`\b(comes?|came|coming) over\b`, "is re-wrapped, moves"},
	{`\b(brings?|brought|bringing) (\w+ ){0,4}over\b`, "re-wraps, moves"},
	{`\banew\b`, "again, re-encrypt"},
	{`\b(do|does|did) not open\b`, "cannot be decrypted"},
	{`\bonly door\b|\bthe same doors?\b`, "entry point, interface"},
	{`\bwho(ever)? (asks|asked|requested)\b`, "the caller, the requester"},
	{`\b(?-i:[Ww]hoever|[Ss]omebody|[Nn]obody)\b`, "the caller, another process, no user"},
	{`\bunless given\b`, "default: …"},
	{`\bis none of\b`, "must be one of"},
	{`\btakes? (in nothing|nothing in)\b`, "no longer accepts"},
	{`\bthe word of\b`, "approvals"},
	{`\b(let|lets|letting) (\w+ )?go\b`, "release, delete, expire"},
	{`\b(keeps?|kept) shut\b`, "inaccessible by policy"},
	{`\bof no kind\b`, "has an unknown kind"},
	{`\bin earnest\b`, "the change itself"},
	{`\bthe way back\b`, "return to service-managed keys"},
	{`\bhas no say\b|\bmakes? up its mind\b|\bsees to it\b`, "say what the program does"},
}

// quoted are files that quote the words, or name the system's user nobody.
var quoted = []string{"internal/archtest/words_test.go", "internal/store/storetest/postgres.go"}

// TestTextsAreInPlainWords reads the comments, messages and help of the program and of
// its tests, and the pages.
func TestTextsAreInPlainWords(t *testing.T) {
	var patterns []*regexp.Regexp
	for _, d := range dialect {
		patterns = append(patterns, regexp.MustCompile(`(?i)`+d.pattern))
	}
	texts := 0
	walk(t, func(path string) {
		extension := filepath.Ext(path)
		if !slices.Contains([]string{".go", ".md"}, extension) && filepath.Base(path) != "Makefile" || slices.Contains(quoted, path) {
			return
		}
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		texts++
		for i, line := range strings.Split(string(text), "\n") {
			for j, pattern := range patterns {
				if found := pattern.FindString(line); found != "" {
					t.Errorf("%s:%d says %q: write %s", path, i+1, found, dialect[j].write)
				}
			}
		}
	})
	if texts < 500 {
		t.Errorf("only %d texts were read", texts)
	}
}

// riddles are names of functions that say nothing of what they do.
var riddles = strings.Fields("did held tend bury stay tie again one same lost gone said behind late term")

// unhelpful are names of files that do not say what is inside.
var unhelpful = strings.Fields("late ahead alone held lost sparse storing tidy standing most util misc common")

func TestNamesSayWhatTheyMean(t *testing.T) {
	walk(t, func(path string) {
		name, isGo := strings.CutSuffix(filepath.Base(path), ".go")
		if !isGo || slices.Contains(quoted, path) {
			return
		}
		if name = strings.TrimSuffix(name, "_test"); slices.Contains(unhelpful, name) {
			t.Errorf("%s: the name of the file does not say what is inside", path)
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, path), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && slices.Contains(riddles, f.Name.Name) {
				t.Errorf("%s: function %s: name what it does", path, f.Name.Name)
			}
		}
	})
}

// root is the root of the module.
const root = "../.."

// walk calls f with the path of each file of the module, from its root.
func walk(t *testing.T, f func(path string)) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(root), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && slices.Contains([]string{".git", "node_modules", "bin", "rapid"}, d.Name()) {
			return fs.SkipDir
		}
		if !d.IsDir() {
			f(path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
