// Package doctest runs the command blocks of README.md and docs/tutorial.md as a
// reader pastes them, and compares what they print with what the page shows.
package doctest

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyroll/api"
)

var update = flag.Bool("update", false, "write what the commands print into the pages")

// root is the root of the module, where a reader begins.
const root = "../.."

// pages are run each in a shell of its own, since a reader may skip the other one.
var pages = []string{"README.md", "docs/tutorial.md"}

// skipped are lines that are not run: the tests, which run this one.
var skipped = map[string]bool{"make test": true}

// hang ends what does not come to an end by itself.
const hang = 10 * time.Minute

func TestDocumentedCommandsPrintTheDocumentedOutput(t *testing.T) {
	for _, name := range pages {
		t.Run(filepath.Base(name), func(t *testing.T) {
			page := filepath.Join(root, name)
			text, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			blocks := commandsOf(string(text))
			if len(blocks) < 3 {
				t.Fatalf("the page has %d command blocks", len(blocks))
			}
			printed := runAll(t, blocks)
			updated, from := "", 0
			for i, b := range blocks {
				if b.shown == nil {
					continue
				}
				shown := string(text[b.shown[0]:b.shown[1]])
				switch {
				case matches(shown, printed[i]):
				case *update:
					updated += string(text[from:b.shown[0]]) + normalize(printed[i])
					from = b.shown[1]
				default:
					t.Errorf("%s:%d prints\n%s\nand the page shows\n%s\ngo test ./internal/doctest -update writes what is printed", name, b.line, printed[i], shown)
				}
			}
			if *update {
				if err := os.WriteFile(page, []byte(updated+string(text[from:])), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// block is a block of commands.
type block struct {
	commands string
	line     int
	shown    []int // where the page shows what it prints, if it does
}

var fence = regexp.MustCompile("(?m)^```(\\w*)\n((?s:.*?))^```\n")

// commandsOf returns the blocks of commands of a page, ```sh, each with the block
// of output, ```text, that follows it after at most an empty line.
func commandsOf(text string) (all []block) {
	end := -1 // of the last block of commands
	for _, at := range fence.FindAllStringSubmatchIndex(text, -1) {
		switch text[at[2]:at[3]] {
		case "sh":
			all = append(all, block{commands: text[at[4]:at[5]], line: 1 + strings.Count(text[:at[0]], "\n")})
			end = at[1]
		case "text":
			if end >= 0 && strings.TrimSpace(text[end:at[0]]) == "" {
				all[len(all)-1].shown = at[4:6]
			}
			end = -1
		}
	}
	return all
}

// runAll runs the blocks in one shell, which ends with the first command that
// fails, and returns what each printed.
func runAll(t *testing.T, blocks []block) []string {
	t.Helper()
	folder := t.TempDir()
	script := "set -e\n"
	for i, b := range blocks {
		var lines []string
		for line := range strings.Lines(b.commands) {
			if !skipped[strings.TrimSpace(line)] {
				lines = append(lines, line)
			}
		}
		file := filepath.Join(folder, fmt.Sprint(i))
		if err := os.WriteFile(file, []byte(strings.Join(lines, "")), 0o600); err != nil {
			t.Fatal(err)
		}
		script += fmt.Sprintf(". %s > %s.out 2>&1\n", file, file)
	}
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	shell := exec.CommandContext(ctx, "bash", "-c", script)
	shell.Dir = root
	// The server takes a free port, what a block leaves is removed, and make is not
	// a part of the make that runs the tests.
	shell.Env = append(os.Environ(), "KEYROLL_LISTEN=127.0.0.1:0", "TMPDIR="+folder, "MAKEFLAGS=", "MAKELEVEL=")
	// A server that a failed page leaves behind is in the shell's process group.
	shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	kill := func() error { return syscall.Kill(-shell.Process.Pid, syscall.SIGKILL) }
	shell.Cancel = kill
	var trouble bytes.Buffer
	shell.Stderr = &trouble
	err := shell.Run()
	_ = kill()
	var printed []string
	for i := range blocks {
		out, errRead := os.ReadFile(filepath.Join(folder, fmt.Sprintf("%d.out", i)))
		if errRead != nil {
			break
		}
		printed = append(printed, string(out))
	}
	if err != nil {
		last := max(len(printed), 1) - 1
		t.Fatalf("line %d: %v\n%s\nprinted\n%s%s", blocks[last].line, err, blocks[last].commands, strings.Join(printed[last:], ""), &trouble)
	}
	return printed
}

// varying is what differs from run to run, each with the name that stands for it.
var varying = []struct {
	pattern *regexp.Regexp
	name    string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "GUID"},
	{regexp.MustCompile(`\b[0-9a-f]{32}\b`), "VERSION"},
	{regexp.MustCompile(`\b\d{17,19}\b`), "ID"},
	{regexp.MustCompile(`\b\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?\b`), "TIME"},
	{regexp.MustCompile(`\b\d{1,2}/\d{1,2}/2\d{3} \d{1,2}:\d\d:\d\d [AP]M\b`), "TIME"},
	{regexp.MustCompile(`(vault\.azure\.net|127\.0\.0\.1):\d+`), "$1"},
	{regexp.MustCompile(`/\S*/data\b`), "DATA"},
	{regexp.MustCompile(`\b\d+(\.\d+)?(ms|s)\b`), "TIME"},
	{regexp.MustCompile(`[ \t]+`), " "}, // columns are as wide as what is in them
	{regexp.MustCompile(`(?m) $`), ""},
	{regexp.MustCompile(`-{3,}`), "---"},
	{regexp.MustCompile(`\n{2,}`), "\n"},
}

// normalize makes an output fit to be shown: as if by a server on the default port, in
// a short folder, without runs of empty lines.
func normalize(printed string) string {
	for _, v := range []struct{ pattern, by string }{
		{`(vault\.azure\.net|127\.0\.0\.1):\d+`, "$1:8443"},
		{`/\S*/(tmp\.\w+)`, "/tmp/$1"},
		{`\n{2,}`, "\n"},
		{`(?m)[ \t]+$`, ""},
	} {
		printed = regexp.MustCompile(v.pattern).ReplaceAllString(printed, v.by)
	}
	return strings.TrimSpace(printed) + "\n"
}

// matches reports whether two outputs are the same but for what differs from run to
// run. A line of the page that is … stands for any lines.
func matches(shown, printed string) bool {
	normal := func(s string) string {
		for _, v := range varying {
			s = v.pattern.ReplaceAllString(s, v.name)
		}
		return strings.TrimSpace(s)
	}
	want := strings.Split(normal(shown), "\n…\n")
	got := normal(printed)
	if len(want) == 1 {
		return got == want[0]
	}
	first, last := want[0], want[len(want)-1]
	return strings.HasPrefix(got, first) && strings.HasSuffix(got, strings.TrimSuffix(last, "…"))
}

func TestOutputComparisonIgnoresVaryingParts(t *testing.T) {
	for _, c := range []struct {
		shown, printed string
		want           bool
	}{
		{"id: 7b55cd50-21b2-4b53-a36f-3d69f701581a\n", "id:  84d87f5d-24c3-4936-b125-babf6ea93deb\n", true},
		{"state: active\n", "state: inactive\n", false},
		{"created: 2026-11-30 14:54:49\nkeys: 2\n", "created: 2027-01-02 03:04:05\nkeys: 2\n", true},
		{"keys: 2\n", "keys: 3\n", false},
		{"a\n…\nz\n", "a\nb\nc\nz\n", true},
		{"a\n…\nz\n", "a\nb\nc\n", false},
		{"", "error\n", false},
	} {
		if matches(c.shown, c.printed) != c.want {
			t.Errorf("%q and %q: want %t", c.shown, c.printed, c.want)
		}
	}
}

// Each relative link of a page leads to a file, and each test that a page names
// exists.
func TestLinkedPagesAndNamedTestsExist(t *testing.T) {
	declared := map[string]bool{}
	var all []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "node_modules" || d.Name() == ".git") {
			return filepath.SkipDir
		}
		switch {
		case strings.HasSuffix(path, ".md"):
			all = append(all, path)
		case strings.HasSuffix(path, "_test.go"):
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, m := range testName.FindAllStringSubmatch(string(text), -1) {
				declared[m[1]] = true
			}
		}
		return nil
	})
	if err != nil || len(all) < 10 || len(declared) < 300 {
		t.Fatalf("%v; %d pages, %d tests", err, len(all), len(declared))
	}
	for _, page := range all {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			target, _, _ := strings.Cut(m[1], "#")
			if target == "" || strings.Contains(target, "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), target)); err != nil {
				t.Errorf("%s: the link %s leads nowhere", page, m[1])
			}
		}
		for _, name := range named.FindAllString(string(text), -1) {
			known := declared[name] || operations[name]
			for d := range declared { // a page may name several tests by how they begin
				known = known || strings.HasSuffix(name, "…") && strings.HasPrefix(d, strings.TrimSuffix(name, "…"))
			}
			if !known {
				t.Errorf("%s: no test is named %s", page, name)
			}
		}
	}
}

// operations are the names of the operations of the API, one of which begins with Test.
var operations = func() map[string]bool {
	names := map[string]bool{}
	for _, op := range api.Operations() {
		names[op.Name] = true
	}
	return names
}()

var (
	testName = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark|Example)\w*)\(`)
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	named    = regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark)[A-Z]\w*…?`)
)
