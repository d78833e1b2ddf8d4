package cmdlet

import (
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"keyroll/api"
	"keyroll/internal/cmdlet/syntax"
	"keyroll/internal/fail"
)

// numeral is a number in the text of a script: a parameter of type String gets it as
// it was written.
type numeral struct {
	value   any
	written string
}

// plainValue replaces the numerals in v by their values.
func plainValue(v any) any {
	switch v := v.(type) {
	case numeral:
		return v.value
	case []any:
		all := make([]any, len(v))
		for i, item := range v {
			all[i] = plainValue(item)
		}
		return all
	}
	return v
}

// convert converts an argument to the type of its parameter.
func (p *Param) convert(v any) (any, error) {
	if p.Type == Any {
		return plainValue(v), nil
	}
	if v == nil {
		if p.Null {
			return nil, nil
		}
		return nil, fail.New(api.InvalidArgument, "-%s is $null", p.Name).WithHint("give it a value")
	}
	if p.Type == Strings {
		var all []string
		err := each(v, func(item any) error {
			s, err := p.string(item)
			all = append(all, s)
			return err
		})
		if err == nil && len(all) == 0 {
			err = fail.New(api.InvalidArgument, "-%s is an empty array", p.Name).WithHint("give it a value")
		}
		return all, err
	}
	if several, ok := v.([]any); ok {
		if len(several) != 1 {
			return nil, fail.New(api.InvalidArgument, "-%s needs one value, found %d", p.Name, len(several))
		}
		v = several[0]
	}
	switch p.Type {
	case String:
		return p.string(v)
	case Version:
		s, err := p.string(v)
		if err != nil {
			return nil, err
		}
		return normalVersion(s)
	case Int:
		return p.int(v)
	case Boolean, Switch:
		return p.bool(v)
	case DateTime:
		return p.date(v)
	case ScriptBlock:
		if block, ok := v.(*syntax.Block); ok {
			return block, nil
		}
		return nil, p.typeError("a script block in braces", v)
	}
	panic("cmdlet: no such type: " + string(p.Type))
}

func (p *Param) typeError(what string, v any) error {
	found := "an object"
	switch v := v.(type) {
	case *Object:
	case *syntax.Block:
		found = "a script block"
	default:
		found = strconv.Quote(display(plainValue(v)))
	}
	err := fail.New(api.InvalidArgument, "-%s needs %s, found %.200s", p.Name, what, found)
	if o, ok := v.(*Object); ok && len(o.Properties) > 0 {
		err = err.WithHint("use a property of it, such as .%s", o.Properties[0].Name)
	}
	return err
}

func (p *Param) string(v any) (string, error) {
	var s string
	switch v := v.(type) {
	case string:
		s = v
	case numeral:
		s = v.written
	case *Object, *syntax.Block, []any, nil:
		return "", p.typeError("a text", v)
	default:
		s = display(v)
	}
	if len(p.Values) == 0 {
		if strings.TrimSpace(s) == "" {
			return "", fail.New(api.InvalidArgument, "-%s is empty", p.Name)
		}
		return s, nil
	}
	for _, known := range p.Values {
		if strings.EqualFold(known, s) {
			return known, nil
		}
	}
	err := fail.New(api.InvalidArgument, "-%s must be one of %s, found %.100q", p.Name, strings.Join(p.Values, ", "), s)
	return "", suggest(err, "", s, p.Values)
}

func (p *Param) int(v any) (any, error) {
	switch v := plainValue(v).(type) {
	case int64:
		return v, nil
	case string:
		if n, err := strconv.ParseInt(v, 10, 64); err == nil {
			return n, nil
		}
	}
	return nil, p.typeError("a whole number", v)
}

func (p *Param) bool(v any) (any, error) {
	switch v := plainValue(v).(type) {
	case bool:
		return v, nil
	case int64:
		return v != 0, nil
	case string:
		// Exchange accepts the words too; a missing dollar sign must not invert a setting.
		switch strings.ToLower(v) {
		case "true", "$true":
			return true, nil
		case "false", "$false":
			return false, nil
		}
	}
	return nil, p.typeError("$true or $false", v)
}

func (p *Param) date(v any) (any, error) {
	switch v := v.(type) {
	case time.Time:
		return v, nil
	case string:
		return parseTime(v)
	}
	return nil, p.typeError("a date", v)
}

var versionForm = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^([0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})$`)
})

// normalVersion returns a key version as vaults write it, in lower case without hyphens.
func normalVersion(s string) (string, error) {
	lower := strings.ToLower(s)
	if !versionForm().MatchString(lower) {
		return "", fail.New(api.InvalidArgument, "%.100q is not a valid key version", s).
			WithHint("a key version is 32 hexadecimal digits: Get-AzKeyVaultKey -VaultName VAULT -Name KEY -IncludeVersions lists them")
	}
	return strings.ReplaceAll(lower, "-", ""), nil
}
