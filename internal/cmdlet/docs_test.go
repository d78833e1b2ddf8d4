package cmdlet

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"keyroll/internal/cmdlet/syntax"
)

func TestDocumentationPageMatchesTheTable(t *testing.T) {
	golden(t, "../../docs/cmdlets.md", page())
}

// page writes docs/cmdlets.md.
func page() string {
	var b strings.Builder
	b.WriteString("<!-- Written from the table of cmdlets by go test ./internal/cmdlet -update. -->\n\n# Cmdlets\n\n" +
		"`keyroll shell` runs the cmdlets below as PowerShell does. The language is a subset: cmdlet calls, pipelines, assignments,\n" +
		"strings, numbers, arrays, `( … )` with members, script blocks with `$_`, and the operators `-eq -ne -gt -ge -lt -le -like\n" +
		"-notlike -contains -in -and -or -not`. A script is checked completely before its first statement runs; a statement that fails ends it.\n" +
		"Times without a zone are UTC, dates with slashes are month/day/year. With `-o json` every object is one line of JSON. A line that\n" +
		"begins with a parameter continues the command before it, as in the examples of the documentation, and one that begins with `|` continues\n" +
		"the pipeline before it, as in PowerShell 7. In an interactive shell a complete statement runs at the end of its line, so there `|` has\n" +
		"to be at the end of the line. Script files are UTF-8, or UTF-16 with a byte order mark.\n\n" +
		"Cmdlets that change something have `-WhatIf`, which only shows what would be done, and `-Confirm`. `Get-Help NAME` shows the text below.\n" +
		"In an interactive shell Tab completes names, parameters and their values; a further Tab shows the next candidate.\n")
	for _, family := range families() {
		fmt.Fprintf(&b, "\n## %s\n", family.Title)
		for _, c := range family.Cmdlets {
			fmt.Fprintf(&b, "\n### %s\n\n%s\n\n```powershell\n%s\n```\n\n", c.Name, c.Synopsis, c.Example)
			if len(c.Aliases) > 0 {
				fmt.Fprintf(&b, "Also named `%s`.\n", strings.Join(c.Aliases, "`, `"))
			}
			if c.Confirms {
				b.WriteString("Asks for a confirmation first; not with `-Confirm:$false`.\n")
			}
			if c.Emits != nil {
				fmt.Fprintf(&b, "Returns objects with `%s`.\n", strings.Join(c.Emits, "`, `"))
			}
			if c.Params == nil {
				continue
			}
			b.WriteString("\n| parameter | type | position | needed | |\n|---|---|---|---|---|\n")
			for i := range c.Params {
				p := &c.Params[i]
				position, needed := "named", "no"
				if p.Position > 0 {
					position = fmt.Sprint(p.Position - 1)
				}
				if p.Mandatory {
					needed = "yes"
					if len(p.Sets) > 0 && len(c.Sets) > 1 {
						needed = "in " + strings.Join(p.Sets, ", ")
					}
				}
				name := "`-" + p.Name + "`"
				for _, a := range p.Aliases {
					name += " (`-" + a + "`)"
				}
				fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", name, p.Type, position, needed, strings.ReplaceAll(p.describe(), "|", `\|`))
			}
		}
	}
	return b.String()
}

// reads has the verbs of cmdlets that change nothing.
var reads = map[string]bool{"Get": true, "Test": true, "Format": true, "Select": true, "Where": true, "Sort": true, "Measure": true, "ConvertTo": true}

func TestTableIsConsistent(t *testing.T) {
	seen := map[string]bool{}
	name := regexp.MustCompile(`^([A-Z][A-Za-z]+-[A-Z][A-Za-z0-9]+|[a-z]+|[?%])$`)
	for _, c := range Table() {
		for _, n := range c.names() {
			if lower := strings.ToLower(n); seen[lower] || !name.MatchString(n) {
				t.Errorf("%s: name %s", c.Name, n)
			} else {
				seen[lower] = true
			}
		}
		if c.Synopsis == "" || c.Example == "" || (c.Run == nil) == (c.Pipe == nil) {
			t.Errorf("%s: synopsis %q, example %q", c.Name, c.Synopsis, c.Example)
		}
		script, err := syntax.Parse(c.Example)
		if err == nil {
			_, err = newSession(Options{}).check(script)
		}
		if err != nil || !strings.Contains(c.Example, c.Name) && len(c.Aliases) == 0 {
			t.Errorf("%s: example %q: %v", c.Name, c.Example, err)
		}
		params := map[string]bool{}
		for _, p := range c.Params {
			for _, n := range append([]string{p.Name}, p.Aliases...) {
				if lower := strings.ToLower(n); params[lower] {
					t.Errorf("%s: -%s twice", c.Name, n)
				} else {
					params[lower] = true
				}
			}
			for _, set := range p.Sets {
				if !strings.Contains(" "+strings.Join(c.Sets, " ")+" ", " "+set+" ") {
					t.Errorf("%s: -%s is in a set %s that is not there", c.Name, p.Name, set)
				}
			}
		}
		if c.Confirms != strings.HasPrefix(c.Name, "Remove-") {
			t.Errorf("%s: asks for a confirmation: %v", c.Name, c.Confirms)
		}
		if c.Changes && (!params["confirm"] || !params["whatif"]) {
			t.Errorf("%s has no -Confirm or no -WhatIf", c.Name)
		}
		if verb, _, _ := strings.Cut(c.Name, "-"); c.Confirms && !c.Changes || reads[verb] && c.Changes {
			t.Errorf("%s: changes something: %v", c.Name, c.Changes)
		}
	}
}

func TestSuggestionsAreSimilarNames(t *testing.T) {
	names := []string{"Get-Mailbox", "Get-MailboxStatistics", "Set-Mailbox"}
	for name, want := range map[string]string{
		"Get-Mailbx": "Get-Mailbox", "get-mailboxstatistic": "Get-MailboxStatistics", "Set-Mailboxes": "Set-Mailbox",
		"Get-MailboxStat": "Get-MailboxStatistics", "Remove-Everything": "", "x": "",
	} {
		if got := mostSimilar(name, names); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
