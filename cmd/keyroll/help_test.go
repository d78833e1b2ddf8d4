package main

import (
	"bytes"
	"context"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// TestHelpOfEveryCommandHasAnExample asks each command for help: it exits 0, says how the
// command is used on standard output, and gives examples that parse.
func TestHelpOfEveryCommandHasAnExample(t *testing.T) {
	var c commands
	parser, err := newParser(&c, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var paths [][]string
	var walk func(node *kong.Node, path []string)
	walk = func(node *kong.Node, path []string) {
		if len(node.Children) == 0 {
			paths = append(paths, path)
		}
		for _, child := range node.Children {
			walk(child, append(slices.Clone(path), child.Name))
		}
	}
	walk(parser.Model.Node, nil)
	if len(paths) < 25 {
		t.Fatalf("only %d commands: %v", len(paths), paths)
	}
	example := regexp.MustCompile(`(?m)^    keyroll (.*)$`)
	for _, path := range paths {
		t.Run(strings.Join(path, " "), func(t *testing.T) {
			var out, errOut bytes.Buffer
			if status := run(context.Background(), append(path, "--help"), nil, &out, &errOut); status != 0 {
				t.Errorf("exit status %d: %s", status, &errOut)
			}
			if !strings.HasPrefix(out.String(), "Usage: keyroll "+strings.Join(path, " ")) {
				t.Errorf("help begins with %.80q", out.String())
			}
			examples := example.FindAllStringSubmatch(out.String(), -1)
			if len(examples) == 0 {
				t.Errorf("help has no example:\n%s", &out)
			}
			for _, one := range examples {
				args := words(one[1])
				var c commands
				parser, err := newParser(&c, io.Discard, io.Discard)
				if err != nil {
					t.Fatal(err)
				}
				parsed, err := parser.Parse(args)
				if err != nil {
					t.Errorf("%s: %v", one[0], err)
				} else if got := commandOf(parsed); !slices.Equal(got, path) {
					t.Errorf("%s is an example of %v", one[0], got)
				}
			}
		})
	}
}

func commandOf(c *kong.Context) []string {
	var names []string
	for _, p := range c.Path {
		if p.Command != nil {
			names = append(names, p.Command.Name)
		}
	}
	return names
}

// words splits a command line at spaces outside '…'.
func words(line string) []string {
	var all []string
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			all = append(all, part)
		} else {
			all = append(all, strings.Fields(part)...)
		}
	}
	return all
}
