// Package cmdlet is the shell: the cmdlets of the Customer Key and Key Vault
// documentation, and the interpreter that runs texts made of them.
//
// A cmdlet is a value (Cmdlet): names, parameters, help, and the function that
// runs it. Binding, help, the documentation page and suggestions all come from
// those values. The whole text is parsed and checked (names, parameters, literal
// values, variables) before its first statement runs; a statement that fails ends
// it. Cmdlets act through two interfaces, Service and Vaults; they access nothing
// else except the files that -OutputFile, -InputFile and -KeyFilePath name.
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
	// Emits names the properties of the objects that the cmdlet emits.
	Emits []string
	// Changes says that it changes something: it has -Confirm and -WhatIf, and its
	// Run calls confirm before the first change.
	Changes bool
	// Confirms says that it asks for a confirmation first, except with -Confirm:$false.
	Confirms bool
	// Run acts once, or once for each object from the pipeline.
	Run func(context.Context, *Call) error
	// Pipe returns functions for each value from the pipeline and for its end.
	Pipe func(context.Context, *Call) (each func(any) error, end func() error, err error)
}

// Param is one parameter of a cmdlet.
type Param struct {
	Name      string
	Aliases   []string
	Type      Type
	Position  int // counted from 1; 0 means by name only
	Mandatory bool
	Sets      []string // the parameter sets it belongs to; empty for all
	Values    []string // the accepted values, in their spelling; empty for any of its type
	Null      bool     // $null is accepted
	// Piped takes the value from the property of that name of an object from the
	// pipeline. PipedText takes a text or a number from the pipeline.
	Piped, PipedText bool
	Help             string
}

// Type is the type of a parameter.
type Type string

// The types that a parameter may have, as PowerShell names them.
const (
	String      Type = "String"
	Strings     Type = "String[]"
	Int         Type = "Int32"
	Boolean     Type = "Boolean"
	Switch      Type = "SwitchParameter"
	DateTime    Type = "DateTime"
	Version     Type = "Guid" // a key version: 32 hexadecimal digits, or those as a GUID
	ScriptBlock Type = "ScriptBlock"
	Any         Type = "Object" // any value of the language
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
	// stop, returned from emit, ends the preceding cmdlets of the pipeline without an error.
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

// flag returns a switch or a boolean; the default is false.
func (c *Call) flag(name string) bool {
	b, _ := c.args[name].(bool)
	return b
}

// optionalBool returns an optional boolean, nil if it is not given.
func (c *Call) optionalBool(name string) *bool {
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

// warn prints a warning, which is not part of the results.
func (c *Call) warn(format string, args ...any) {
	fmt.Fprintf(c.Err, "WARNING: %s\n", escaped(fmt.Sprintf(format, args...)))
}

// emitAll emits several values.
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
