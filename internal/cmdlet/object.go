package cmdlet

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A value of the language is nil, a bool, a string, an int64, a float64, a
// time.Time, a ByteSize, a rawJSON, an *Object, or a []any of values.

// Object is what cmdlets emit: properties, in the order in which they are shown.
type Object struct {
	Properties []Property
	// View is how the object is shown without a Format cmdlet; nil means PowerShell's
	// rule: a table for up to four properties, a list for more.
	View *View
	// Text, if not empty, is shown instead of the properties.
	Text string
}

// Property is one named value of an object.
type Property struct {
	Name  string
	Value any
}

// View is a way to show objects.
type View struct {
	List    bool
	Columns []Column
}

// Column shows one property under a label.
type Column struct{ Label, Property string }

// Get returns a property's value; the name is case-insensitive.
func (o *Object) Get(name string) (any, bool) {
	for _, p := range o.Properties {
		if strings.EqualFold(p.Name, name) {
			return p.Value, true
		}
	}
	return nil, false
}

// names returns the names of the properties.
func (o *Object) names() []string {
	var names []string
	for _, p := range o.Properties {
		names = append(names, p.Name)
	}
	return names
}

// MarshalJSON keeps the order of the properties.
func (o *Object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, p := range o.Properties {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(p.Name)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		value, err := marshal(p.Value)
		if err != nil {
			return nil, err
		}
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// marshal is json.Marshal without escapes for HTML.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// rawJSON is text that is JSON already.
type rawJSON string

// MarshalJSON returns the text itself, on one line.
func (r rawJSON) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	err := json.Compact(&b, []byte(r))
	return b.Bytes(), err
}

// ByteSize is a number of bytes, shown as Exchange shows sizes.
type ByteSize int64

func (n ByteSize) String() string {
	size, unit := float64(n), "B"
	for _, next := range []string{"KB", "MB", "GB", "TB"} {
		if size < 1024 {
			break
		}
		size, unit = size/1024, next
	}
	return strconv.FormatFloat(size, 'g', 4, 64) + " " + unit + " (" + grouped(int64(n)) + " bytes)"
}

// grouped writes a number with commas between thousands.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// display writes a value as a cell of a table or a list.
func display(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case bool:
		return map[bool]string{true: "True", false: "False"}[v]
	case string:
		return v
	case time.Time:
		return v.UTC().Format("1/2/2006 3:04:05 PM")
	case []any:
		return "{" + join(v, ", ") + "}"
	case *Object:
		var parts []string
		for _, p := range v.Properties {
			parts = append(parts, p.Name+"="+display(p.Value))
		}
		return "@{" + strings.Join(parts, "; ") + "}"
	}
	return fmt.Sprint(v)
}

// inText formats a value inside a text in double quotes (about_Quoting_Rules):
// arrays separated by spaces, times in the form of the invariant culture.
func inText(v any) string {
	switch v := v.(type) {
	case []any:
		var parts []string
		for _, item := range v {
			parts = append(parts, inText(item))
		}
		return strings.Join(parts, " ")
	case time.Time:
		return v.UTC().Format("01/02/2006 15:04:05")
	}
	return display(v)
}

func join(values []any, separator string) string {
	var parts []string
	for _, v := range values {
		parts = append(parts, display(v))
	}
	return strings.Join(parts, separator)
}

// each calls f for every value of v: the items of an array, nothing for nil.
func each(v any, f func(any) error) error {
	switch v := v.(type) {
	case nil:
		return nil
	case []any:
		for _, item := range v {
			if err := f(item); err != nil {
				return err
			}
		}
		return nil
	}
	return f(v)
}

// collected returns the value of a pipeline's output: $null for none, the value
// itself for one, an array for several.
func collected(values []any) any {
	switch len(values) {
	case 0:
		return nil
	case 1:
		return values[0]
	}
	return values
}

// list converts to an array of the language.
func list[T any](values []T) []any {
	all := make([]any, len(values))
	for i, v := range values {
		all[i] = v
	}
	return all
}

// optionalTime converts an optional time.
func optionalTime(t *time.Time) any {
	if t == nil || t.IsZero() {
		return nil
	}
	return t.UTC()
}
