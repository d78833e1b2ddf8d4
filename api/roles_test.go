package api_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"keyroll/api"
)

var update = flag.Bool("update", false, "write the table of roles to docs/access.md")

const tableHead = "| operations (names of the HTTP API's OpenAPI document) | roles that permit them |\n|---|---|\n"

// TestDocumentedRolesAreThoseOfTheOperations compares the table in docs/access.md, in which
// each operation is once.
func TestDocumentedRolesAreThoseOfTheOperations(t *testing.T) {
	const file = "../docs/access.md"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), tableHead)
	table, after, end := strings.Cut(rest, "\n\n")
	if !ok || !end {
		t.Fatal("docs/access.md has no table of operations")
	}
	if *update {
		if err := os.WriteFile(file, []byte(before+tableHead+roleTable()+"\n\n"+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if table != roleTable() {
		t.Errorf("the table in docs/access.md differs: run go test ./api -update, and look at the change. It should be\n%s", roleTable())
	}
	for _, op := range api.Operations() {
		if n := strings.Count(table, "`"+op.Name+"`"); n != 1 {
			t.Errorf("%s is %d times in the table", op.Name, n)
		}
	}
}

// roleTable has a row for each set of roles.
func roleTable() string {
	byRoles := map[string][]string{}
	for _, op := range api.Operations() {
		if roles := api.JoinRoles(op.Roles, ", "); len(op.Roles) == len(api.Roles) {
			byRoles["all"] = append(byRoles["all"], op.Name)
		} else {
			byRoles[roles] = append(byRoles[roles], op.Name)
		}
	}
	var lines []string
	for roles, operations := range byRoles {
		slices.Sort(operations)
		lines = append(lines, fmt.Sprintf("| `%s` | %s |", strings.Join(operations, "`, `"), roles))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestNobodyGrantsTheRolesOfApproversAndApplications(t *testing.T) {
	for _, by := range api.Roles {
		for _, role := range by.Grantable() {
			if slices.Contains([]api.Role{api.Approver, api.Enrolling, api.Application}, role) || role == api.Operator && by != api.Operator {
				t.Errorf("%s grants %s", by, role)
			}
		}
	}
}
