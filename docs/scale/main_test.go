package main

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the tables into docs/scale.md")

const (
	document = "../scale.md"
	begin    = "<!-- written by go test ./docs/scale -update -->\n"
	end      = "<!-- end -->\n"
)

func TestDocumentedTablesAreWhatTheProgramPrints(t *testing.T) {
	var out strings.Builder
	newPlan(flag.NewFlagSet("scale", flag.ContinueOnError)).write(&out)
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), begin)
	tables, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no place for the tables", document)
	}
	if tables == out.String() {
		return
	}
	if !*update {
		t.Fatalf("%s has other tables than the program prints; go test ./docs/scale -update writes them:\n%s", document, out.String())
	}
	if err := os.WriteFile(document, []byte(before+begin+out.String()+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestCellsAreSizedByTheDatabaseLimit(t *testing.T) {
	flags := flag.NewFlagSet("scale", flag.ContinueOnError)
	p := newPlan(flags)
	if err := flags.Parse(strings.Fields("-mailboxes 1000 -regions 2 -messages 9 -mailbox-row 100 -message-row 100 -database-bytes 250000")); err != nil {
		t.Fatal(err)
	}
	// A mailbox takes 1,000 bytes: 250 fit into a database, so 500 take two.
	if cells, mailboxes := p.cells(); cells != 2 || mailboxes != 250 {
		t.Errorf("%v cells of %v mailboxes", cells, mailboxes)
	}
}
