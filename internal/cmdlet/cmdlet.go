// Package cmdlet is the shell: the cmdlets of the Customer Key and Key Vault
// documentation, and the interpreter that runs texts made of them.
//
// A cmdlet is a value (Cmdlet): names, parameters, help, and the function that
// runs it. Binding, help, the documentation page and suggestions all come from
// those values. A text is parsed whole and checked whole (names, parameters,
// literal values, variables) before its first statement runs; a statement that
// fails ends it. Cmdlets act through two interfaces, Service and Vaults, and
// reach nothing else but the files that -OutputFile and -InputFile name.
// Start reading at Run (shell.go), then Table (table.go).
package cmdlet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Cmdlet is one cmdlet. Exactly one of Run and Pipe is set.
type Cmdlet struct {
	Name     string
	Aliases  []string
	Synopsis string
	Example  string
	Params   []Param
	// Sets names the parameter sets, the default one first; empty for a single one.
	Sets []string
	// Emits names the properties of the objects that go down the pipeline.
	Emits []string
	// Changes says that it changes something: it takes -Confirm and -WhatIf, and
	// its Run calls confirm before the first change.
	Changes bool
	// Confirms says that it asks before it acts, unless -Confirm:$false.
	Confirms bool
	// Run acts once, or once for each object that comes down the pipeline.
	Run func(context.Context, *Call) error
	// Pipe handles what comes down the pipeline one by one, and its end.
	Pipe func(context.Context, *Call) (each func(any) error, end func() error, err error)
}

// Param is one parameter of a cmdlet.
type Param struct {
	Name      string
	Aliases   []string
	Type      Type
	Position  int // counted from 1; 0 is by name only
	Mandatory bool
	Sets      []string // the parameter sets it belongs to; empty for all
	Values    []string // what it may be, in this spelling; empty for anything of its type
	Null      bool     // $null is a value of its own
	// Piped takes the value from the pipeline: the property of that name of an
	// object. PipedText takes a text or a number itself.
	Piped, PipedText bool
	Help             string
}

// Type is what a parameter takes.
type Type string

const (
	String      Type = "String"
	Strings     Type = "String[]"
	Int         Type = "Int32"
	Boolean     Type = "Boolean"
	Switch      Type = "SwitchParameter"
	DateTime    Type = "DateTime"
	Version     Type = "Guid" // a key version: 32 hexadecimal digits, or those as a GUID
	ScriptBlock Type = "ScriptBlock"
	Any         Type = "Object" // whatever value the language has
)

// names returns the name and the aliases.
func (c *Cmdlet) names() []string { return append([]string{c.Name}, c.Aliases...) }

// parameterSets returns the names of the sets; a single one has an empty name.
func (c *Cmdlet) parameterSets() []string {
	if len(c.Sets) == 0 {
		return []string{""}
	}
	return c.Sets
}

// in reports whether a parameter belongs to a set.
func (p *Param) in(set string) bool { return len(p.Sets) == 0 || slices.Contains(p.Sets, set) }

// takesPipeline reports whether a value from the pipeline can bind to any parameter.
func (c *Cmdlet) takesPipeline() bool {
	return c.Pipe != nil || slices.ContainsFunc(c.Params, func(p Param) bool { return p.Piped || p.PipedText })
}

// Call is one cmdlet about to run, with its arguments converted.
type Call struct {
	*session
	cmdlet *Cmdlet
	scope  scope
	args   map[string]any // by the parameter's Name
	// emit sends a value down the pipeline. Its error is returned as it is.
	emit func(any) error
	// stop, returned from emit, ends the cmdlets before this one quietly.
	stop error
}

// act runs the cmdlet once. With -WhatIf it ends at the first change.
func (c *Call) act(ctx context.Context) error {
	err := c.cmdlet.Run(ctx, c)
	if errors.Is(err, errWhatIf) {
		return nil
	}
	return err
}

func (c *Call) has(name string) bool { _, ok := c.args[name]; return ok }

func (c *Call) text(name string) string {
	s, _ := c.args[name].(string)
	return s
}

func (c *Call) texts(name string) []string {
	s, _ := c.args[name].([]string)
	return s
}

// flag returns a switch or a boolean; one that is not given is false.
func (c *Call) flag(name string) bool {
	b, _ := c.args[name].(bool)
	return b
}

// setting returns a boolean that may be left out.
func (c *Call) setting(name string) *bool {
	if b, ok := c.args[name].(bool); ok {
		return &b
	}
	return nil
}

func (c *Call) number(name string) int64 {
	n, _ := c.args[name].(int64)
	return n
}

func (c *Call) time(name string) *time.Time {
	if t, ok := c.args[name].(time.Time); ok {
		return &t
	}
	return nil
}

// warn tells the user something that is no result.
func (c *Call) warn(format string, args ...any) {
	fmt.Fprintf(c.Err, "WARNING: %s\n", shown(fmt.Sprintf(format, args...)))
}

// emitAll sends several values down the pipeline.
func emitAll[T any](c *Call, values []T, object func(T) *Object) error {
	for _, v := range values {
		if err := c.emit(object(v)); err != nil {
			return err
		}
	}
	return nil
}

// find returns the cmdlet of that name or alias.
func find(table []*Cmdlet, name string) *Cmdlet {
	for _, c := range table {
		if slices.ContainsFunc(c.names(), func(n string) bool { return strings.EqualFold(n, name) }) {
			return c
		}
	}
	return nil
}
