package cmdlet

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"slices"
	"sort"
	"strings"

	"keyroll/api"
	"keyroll/internal/cmdlet/syntax"
	"keyroll/internal/fail"
)

// pipeCmdlets are the cmdlets that process input from the pipeline.
func pipeCmdlets() []*Cmdlet {
	properties := Param{Name: "Property", Type: Strings, Position: 1, Help: "Names of properties, with the wildcards * and ?."}
	block := func(name, help string) Param {
		return Param{Name: name, Type: ScriptBlock, Position: 1, Mandatory: true, Help: help}
	}
	return []*Cmdlet{
		{
			Name: "Format-List", Aliases: []string{"fl"}, Pipe: formatListPipe,
			Synopsis: "Shows objects as lists, one property per line. With JSON output it returns objects with the chosen properties.",
			Example:  "Get-MailboxStatistics -Identity alice@contoso.com | fl DataEncryptionPolicyID, IsEncrypted",
			Params:   []Param{properties},
		},
		{
			Name: "Format-Table", Aliases: []string{"ft"}, Pipe: formatTablePipe,
			Synopsis: "Shows objects as rows of a table. With JSON output it returns objects with the chosen properties.",
			Example:  "Get-Mailbox | ft Name, State",
			Params:   []Param{properties, {Name: "AutoSize", Type: Switch, Help: "Accepted; columns are always as wide as their content."}},
		},
		{
			Name: "Select-Object", Aliases: []string{"select"}, Pipe: selectPipe,
			Synopsis: "Selects some of the properties, or some of the objects.",
			Example:  "Get-AzKeyVaultKey -VaultName VaultA1 -Name Key001 -IncludeVersions | Select-Object -First 1",
			Params: []Param{properties,
				{Name: "ExpandProperty", Type: String, Help: "Return the value of this property instead of the object."},
				{Name: "First", Type: Int, Help: "Number of objects to return from the beginning."},
				{Name: "Last", Type: Int, Help: "Number of objects to return from the end."}},
		},
		{
			Name: "Where-Object", Aliases: []string{"where", "?"}, Pipe: wherePipe,
			Synopsis: "Returns the objects for which the script block is true.",
			Example:  "Get-Mailbox | Where-Object { $_.State -eq 'active' }",
			Params:   []Param{block("FilterScript", "A condition on $_.")},
		},
		{
			Name: "ForEach-Object", Aliases: []string{"foreach", "%"}, Pipe: forEachPipe,
			Synopsis: "Runs the script block for each object.",
			Example:  "Get-Mailbox | ForEach-Object { Get-MailboxStatistics -Identity $_.Identity }",
			Params:   []Param{block("Process", "Statements on $_.")},
		},
		{
			Name: "Sort-Object", Aliases: []string{"sort"}, Pipe: sortPipe,
			Synopsis: "Sorts objects by properties, or values by themselves.",
			Example:  "Get-AzKeyVaultKey -VaultName VaultA1 -Name Key001 -IncludeVersions | Sort-Object Created -Descending",
			Params:   []Param{properties, {Name: "Descending", Type: Switch, Help: "Sort the greatest first."}},
		},
		{
			Name: "Measure-Object", Aliases: []string{"measure"}, Pipe: measurePipe,
			Synopsis: "Counts objects and adds up a property.",
			Example:  "Get-Mailbox | Measure-Object",
			Params: []Param{{Name: "Property", Type: String, Position: 1, Help: "Property with numbers."},
				{Name: "Sum", Type: Switch}, {Name: "Average", Type: Switch}, {Name: "Maximum", Type: Switch}, {Name: "Minimum", Type: Switch}},
			Emits: []string{"Count", "Average", "Sum", "Maximum", "Minimum", "Property"},
		},
		{
			Name: "Add-Member", Pipe: addMemberPipe,
			Synopsis: "Sets a property of the objects from the pipeline; an existing property of that name is replaced.",
			Example:  "$r = Get-AzResource -ResourceId (Get-AzKeyVault -VaultName Contoso-A).ResourceId; $r.Properties | Add-Member -MemberType NoteProperty -Name enableSoftDelete -Value 'True'",
			Params: []Param{{Name: "MemberType", Type: String, Position: 1, Mandatory: true, Values: []string{"NoteProperty"}, Help: "Kind of member."},
				{Name: "Name", Type: String, Position: 2, Mandatory: true, Help: "Name of the property."},
				{Name: "Value", Type: Any, Position: 3, Help: "Its value."},
				{Name: "PassThru", Type: Switch, Help: "Return the objects."},
				{Name: "Force", Type: Switch, Help: "Accepted; an existing property is always replaced."}},
		},
		{
			Name: "ConvertTo-Json", Pipe: jsonPipe,
			Synopsis: "Converts all input from the pipeline to one JSON text.",
			Example:  "Get-DataEncryptionPolicy USA_mailboxes | ConvertTo-Json",
			Params:   []Param{{Name: "Compress", Type: Switch, Help: "Write the JSON on one line."}},
		},
	}
}

func noEnd() error { return nil }

// pick returns an object with the properties that the patterns name.
func pick(o *Object, patterns []string) *Object {
	if patterns == nil {
		return o
	}
	picked := &Object{}
	for _, c := range o.columns(patterns) {
		v, _ := o.Get(c.Property)
		picked.Properties = append(picked.Properties, Property{c.Label, v})
	}
	return picked
}

func formatListPipe(_ context.Context, c *Call) (func(any) error, func() error, error) {
	patterns, first := c.texts("Property"), true
	return func(v any) error {
		o, ok := v.(*Object)
		if !ok || c.JSON {
			if ok {
				v = pick(o, patterns)
			}
			return c.emit(v)
		}
		columns := o.columns(patterns)
		if patterns == nil && (o.View == nil || !o.View.List) {
			columns = o.columns([]string{"*"})
		}
		text := formatList(o, columns)
		if first {
			text, first = "\n"+text, false
		}
		return c.emit(formatted(text))
	}, noEnd, nil
}

func formatTablePipe(_ context.Context, c *Call) (func(any) error, func() error, error) {
	patterns := c.texts("Property")
	var t *table
	var rows []*Object
	write := func() error {
		text := ""
		if t == nil {
			columns := rows[0].columns(patterns)
			if patterns == nil && rows[0].isList() {
				columns = rows[0].columns([]string{"*"})
			}
			t = newTable(rows, columns, c.Width)
			text = "\n" + t.header()
		}
		text += t.body(rows)
		rows = rows[:0]
		return c.emit(formatted(text))
	}
	return func(v any) error {
			o, ok := v.(*Object)
			if !ok || c.JSON {
				if ok {
					v = pick(o, patterns)
				}
				return c.emit(v)
			}
			if rows = append(rows, o); len(rows) < tableBlock {
				return nil
			}
			return write()
		}, func() error {
			if len(rows) > 0 {
				if err := write(); err != nil {
					return err
				}
			}
			if t == nil {
				return nil
			}
			return c.emit(formatted("\n"))
		}, nil
}

func addMemberPipe(_ context.Context, c *Call) (func(any) error, func() error, error) {
	added := Property{c.text("Name"), c.args["Value"]}
	return func(v any) error {
		o, ok := v.(*Object)
		if !ok {
			return fail.New(api.InvalidArgument, "needs objects, found %.100q", display(v))
		}
		i := slices.IndexFunc(o.Properties, func(p Property) bool { return strings.EqualFold(p.Name, added.Name) })
		if i < 0 {
			o.Properties = append(o.Properties, added)
		} else {
			o.Properties[i].Value = added.Value
		}
		if c.flag("PassThru") {
			return c.emit(o)
		}
		return nil
	}, noEnd, nil
}

func selectPipe(_ context.Context, c *Call) (func(any) error, func() error, error) {
	patterns, seen := c.texts("Property"), int64(0)
	var last []any
	send := func(v any) error {
		o, ok := v.(*Object)
		switch {
		case c.has("ExpandProperty"):
			name := c.text("ExpandProperty")
			value := member(v, name)
			if ok && value == nil {
				if _, exists := o.Get(name); !exists {
					return suggest(fail.New(api.InvalidArgument, "the object has no property %s", name), "", name, o.names())
				}
			}
			return each(value, c.emit)
		case ok:
			return c.emit(pick(o, patterns))
		}
		return c.emit(v)
	}
	for _, name := range []string{"First", "Last"} {
		if c.number(name) < 0 {
			return nil, nil, fail.New(api.InvalidArgument, "-%s is negative", name)
		}
	}
	return func(v any) error {
			if c.has("First") && seen >= c.number("First") {
				return c.stop
			}
			if c.has("Last") {
				if last = append(last, v); int64(len(last)) > c.number("Last") {
					last = last[1:]
				}
				return nil
			}
			seen++
			if err := send(v); err != nil {
				return err
			}
			if c.has("First") && seen >= c.number("First") {
				return c.stop
			}
			return nil
		}, func() error {
			for _, v := range last {
				if err := send(v); err != nil {
					return err
				}
			}
			return nil
		}, nil
}

// run runs a script block on one object.
func (c *Call) run(ctx context.Context, parameter string, item any, emit func(any) error) error {
	block := c.args[parameter].(*syntax.Block)
	return c.statements(ctx, scope{item}, block.Statements, emit)
}

func wherePipe(ctx context.Context, c *Call) (func(any) error, func() error, error) {
	return func(v any) error {
		var result []any
		err := c.run(ctx, "FilterScript", v, func(r any) error { result = append(result, r); return nil })
		if err != nil || !truth(collected(result)) {
			return err
		}
		return c.emit(v)
	}, noEnd, nil
}

func forEachPipe(ctx context.Context, c *Call) (func(any) error, func() error, error) {
	return func(v any) error { return c.run(ctx, "Process", v, c.emit) }, noEnd, nil
}

func sortPipe(_ context.Context, c *Call) (func(any) error, func() error, error) {
	var all []any
	properties := c.texts("Property")
	return func(v any) error { all = append(all, v); return nil }, func() error {
		sort.SliceStable(all, func(i, j int) bool {
			order := sortOrder(all[i], all[j], properties)
			if c.flag("Descending") {
				return order > 0
			}
			return order < 0
		})
		for _, v := range all {
			if err := c.emit(v); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

// sortOrder compares two values by properties; a value without the property comes first.
func sortOrder(a, b any, properties []string) int {
	if properties == nil {
		return valueOrder(a, b)
	}
	for _, p := range properties {
		if order := valueOrder(member(a, p), member(b, p)); order != 0 {
			return order
		}
	}
	return 0
}

func valueOrder(a, b any) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return -1
	case b == nil:
		return 1
	}
	if order, ok := compareOrder(a, b); ok {
		return order
	}
	order, _ := compareOrder(display(a), display(b))
	return order
}

func measurePipe(_ context.Context, c *Call) (func(any) error, func() error, error) {
	count, measured := int64(0), int64(0)
	sum, least, greatest := 0.0, math.Inf(1), math.Inf(-1)
	return func(v any) error {
			count++
			if !c.has("Property") {
				return nil
			}
			value := member(v, c.text("Property"))
			if value == nil {
				return nil
			}
			n, ok := number(value)
			if !ok {
				return fail.New(api.InvalidArgument, "%.100q is not a number", display(value))
			}
			measured++
			sum, least, greatest = sum+n, min(least, n), max(greatest, n)
			return nil
		}, func() error {
			if c.has("Property") {
				count = measured
			}
			o := &Object{Properties: []Property{{"Count", count}}, View: measureView}
			add := func(name string, value float64) {
				var shown any
				if c.flag(name) && measured > 0 {
					shown = asInteger(value)
				}
				o.Properties = append(o.Properties, Property{name, shown})
			}
			add("Average", sum/float64(max(measured, 1)))
			add("Sum", sum)
			add("Maximum", greatest)
			add("Minimum", least)
			var property any
			if c.has("Property") {
				property = c.text("Property")
			}
			o.Properties = append(o.Properties, Property{"Property", property})
			return c.emit(o)
		}, nil
}

var measureView = &View{List: true, Columns: []Column{
	{"Count", "Count"}, {"Average", "Average"}, {"Sum", "Sum"}, {"Maximum", "Maximum"}, {"Minimum", "Minimum"}, {"Property", "Property"}}}

// asInteger converts a number without a fraction to an int64.
func asInteger(f float64) any {
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return int64(f)
	}
	return f
}

func jsonPipe(_ context.Context, c *Call) (func(any) error, func() error, error) {
	var all []any
	return func(v any) error { all = append(all, v); return nil }, func() error {
		raw, err := marshal(collected(all))
		if err != nil {
			return err
		}
		if !c.flag("Compress") {
			var indented bytes.Buffer
			if err := json.Indent(&indented, raw, "", "  "); err != nil {
				return err
			}
			raw = indented.Bytes()
		}
		return c.emit(rawJSON(raw))
	}, nil
}
