package cmdlet

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"

	"keyroll/api"
	"keyroll/internal/fail"
)

func helpCmdlets() []*Cmdlet {
	return []*Cmdlet{
		{
			Name: "Get-Help", Aliases: []string{"help"}, Run: getHelp, Emits: []string{"Name", "Synopsis", "Syntax", "Parameters", "Example"},
			Synopsis: "Shows what a cmdlet does, its parameters and an example.",
			Example:  "Get-Help Set-DataEncryptionPolicy",
			Params: []Param{{Name: "Name", Type: String, Position: 1, PipedText: true, Piped: true, Help: "Name of a cmdlet."},
				{Name: "Examples", Type: Switch, Help: "Show only the synopsis and the example."},
				{Name: "Detailed", Type: Switch, Help: "Show everything, which is the default."},
				{Name: "Full", Type: Switch, Help: "Show everything, which is the default."}},
		},
		{
			Name: "Get-Command", Aliases: []string{"gcm"}, Run: getCommand, Emits: commandObject(&Cmdlet{}).names(),
			Synopsis: "Lists the cmdlets.",
			Example:  "Get-Command *Mailbox*",
			Params: []Param{{Name: "Name", Type: String, Position: 1, Help: "Name of a cmdlet, with the wildcards * and ?."},
				{Name: "Verb", Type: String, Help: "Part of the name before the hyphen, with the wildcards * and ?."},
				{Name: "Noun", Type: String, Help: "Part of the name after the hyphen, with the wildcards * and ?."}},
		},
	}
}

var commandView = &View{Columns: []Column{{"CommandType", "CommandType"}, {"Name", "Name"}, {"Synopsis", "Synopsis"}}}

func commandObject(c *Cmdlet) *Object {
	return &Object{View: commandView, Properties: []Property{
		{"CommandType", "Cmdlet"}, {"Name", c.Name}, {"Aliases", list(c.Aliases)}, {"Synopsis", c.Synopsis}}}
}

func getCommand(_ context.Context, c *Call) error {
	pattern := "*"
	if c.has("Name") {
		pattern = c.text("Name")
	}
	if c.has("Verb") || c.has("Noun") {
		if c.has("Name") {
			return invalid("-Name cannot be used with -Verb or -Noun")
		}
		part := func(name string) string {
			if c.has(name) {
				return c.text(name)
			}
			return "*"
		}
		pattern = part("Verb") + "-" + part("Noun")
	}
	re, err := wildcard(pattern)
	if err != nil {
		return err
	}
	var fit []*Cmdlet
	for _, known := range c.table {
		if slices.ContainsFunc(known.names(), re.MatchString) {
			fit = append(fit, known)
		}
	}
	sort.Slice(fit, func(i, j int) bool { return fit[i].Name < fit[j].Name })
	if len(fit) == 0 {
		return unknownCmdlet(c.table, pattern)
	}
	return emitAll(c, fit, commandObject)
}

func unknownCmdlet(table []*Cmdlet, name string) error {
	var names []string
	for _, known := range table {
		names = append(names, known.names()...)
	}
	return suggest(fail.New(api.NotFound, "%.100q is not a cmdlet", name), "", name, names)
}

func getHelp(ctx context.Context, c *Call) error {
	if !c.has("Name") {
		return getCommand(ctx, c)
	}
	about := find(c.table, c.text("Name"))
	if about == nil {
		return unknownCmdlet(c.table, c.text("Name"))
	}
	var parameters []any
	for i := range about.Params {
		p := &about.Params[i]
		parameters = append(parameters, &Object{Properties: []Property{
			{"Name", p.Name}, {"Type", string(p.Type)}, {"Mandatory", p.Mandatory}, {"Description", p.describe()}}})
	}
	text := about.help()
	if c.flag("Examples") {
		text = fmt.Sprintf("\nNAME\n    %s\n\nSYNOPSIS\n    %s\n\nEXAMPLE\n    %s\n\n", about.Name, about.Synopsis, about.Example)
	}
	return c.emit(&Object{Text: text, Properties: []Property{
		{"Name", about.Name}, {"Synopsis", about.Synopsis}, {"Syntax", list(about.syntax())}, {"Parameters", parameters}, {"Example", about.Example}}})
}

// help returns the text that Get-Help shows.
func (c *Cmdlet) help() string {
	var b strings.Builder
	section := func(title string, lines ...string) {
		fmt.Fprintf(&b, "%s\n", title)
		for _, l := range lines {
			fmt.Fprintf(&b, "    %s\n", l)
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
	section("NAME", c.Name)
	section("SYNOPSIS", c.Synopsis)
	section("SYNTAX", c.syntax()...)
	if len(c.Aliases) > 0 {
		section("ALIASES", strings.Join(c.Aliases, ", "))
	}
	var lines []string
	for i := range c.Params {
		lines = append(lines, "-"+c.Params[i].Name+" <"+string(c.Params[i].Type)+">", "    "+c.Params[i].describe())
	}
	if lines != nil {
		section("PARAMETERS", lines...)
	}
	if c.Emits != nil {
		section("OUTPUTS", strings.Join(c.Emits, ", "))
	}
	section("EXAMPLE", c.Example)
	return b.String()
}

// describe returns the help of a parameter with its accepted values.
func (p *Param) describe() string {
	text := p.Help
	if text == "" {
		text = p.Name + "."
	}
	if len(p.Values) > 0 {
		text += " One of " + strings.Join(p.Values, ", ") + "."
	}
	return text
}

// syntax writes one line for each parameter set, as PowerShell does, with brackets
// around optional parts.
func (c *Cmdlet) syntax() []string {
	var lines []string
	for _, set := range c.parameterSets() {
		words := []string{c.Name}
		for i := range c.Params {
			p := &c.Params[i]
			if !p.in(set) {
				continue
			}
			word := "-" + p.Name
			if p.Position > 0 {
				word = "[" + word + "]"
			}
			if p.Type != Switch {
				word += " <" + string(p.Type) + ">"
			}
			if !p.Mandatory {
				word = "[" + word + "]"
			}
			words = append(words, word)
		}
		lines = append(lines, strings.Join(words, " "))
	}
	return lines
}
