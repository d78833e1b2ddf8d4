package cmdlet

import (
	"cmp"
	"regexp"
	"strconv"
	"strings"
	"time"

	"keyroll/api"
	"keyroll/internal/fail"
)

// truth converts a value to a boolean (about_Booleans).
func truth(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case string:
		return v != ""
	case int64:
		return v != 0
	case float64:
		return v != 0
	case ByteSize:
		return v != 0
	case []any:
		if len(v) == 1 {
			return truth(v[0])
		}
		return len(v) > 0
	}
	return true
}

// compare applies a comparison operator (about_Comparison_Operators). Text is
// compared without regard to case, and the right side is converted to the type of
// the left. With an array on the left the matching items are selected.
func compare(operator string, left, right any) (any, error) {
	switch operator {
	case "contains":
		return containsValue(right, left)
	case "in":
		return containsValue(left, right)
	}
	items, several := left.([]any)
	if !several {
		return matches(operator, left, right)
	}
	selected := []any{}
	for _, item := range items {
		ok, err := matches(operator, item, right)
		if err != nil {
			return nil, err
		}
		if ok {
			selected = append(selected, item)
		}
	}
	return selected, nil
}

func containsValue(v, values any) (bool, error) {
	found := false
	err := each(values, func(item any) error {
		ok, err := matches("eq", item, v)
		found = found || ok
		return err
	})
	return found, err
}

func matches(operator string, left, right any) (bool, error) {
	switch operator {
	case "like", "notlike":
		pattern, err := wildcard(display(right))
		return err == nil && pattern.MatchString(display(left)) == (operator == "like"), err
	}
	order, comparable := compareOrder(left, right)
	if !comparable && operator != "eq" && operator != "ne" {
		if left == nil || right == nil {
			return false, nil
		}
		return false, fail.New(api.InvalidArgument, "-%s cannot compare %.100q with %.100q", operator, display(left), display(right))
	}
	switch operator {
	case "eq":
		return comparable && order == 0, nil
	case "ne":
		return !comparable || order != 0, nil
	case "gt":
		return order > 0, nil
	case "ge":
		return order >= 0, nil
	case "lt":
		return order < 0, nil
	}
	return order <= 0, nil
}

// compareOrder compares left with right, converted to the type of left.
func compareOrder(left, right any) (order int, comparable bool) {
	switch l := left.(type) {
	case nil:
		return 0, right == nil
	case bool:
		a, b := strconv.FormatBool(l), strconv.FormatBool(truth(right))
		return strings.Compare(a, b), true
	case time.Time:
		r, ok := right.(time.Time)
		if s, isText := right.(string); isText {
			t, err := parseTime(s)
			r, ok = t, err == nil
		}
		return l.Compare(r), ok
	case *Object:
		return 0, left == right
	case string:
		if right == nil {
			return 0, false
		}
		return strings.Compare(strings.ToLower(l), strings.ToLower(display(right))), true
	}
	a, ok := number(left)
	b, ok2 := number(right)
	return cmp.Compare(a, b), ok && ok2
}

// number converts a value to a number.
func number(v any) (float64, bool) {
	switch v := v.(type) {
	case int64:
		return float64(v), true
	case float64:
		return v, true
	case ByteSize:
		return float64(v), true
	case string:
		f, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
		return f, err == nil
	}
	return 0, false
}

// wildcard compiles a pattern of PowerShell (about_Wildcards): * ? and [set].
func wildcard(pattern string) (*regexp.Regexp, error) {
	var b strings.Builder
	b.WriteString("(?is)^")
	for rest := pattern; rest != ""; {
		switch r := rest[0]; r {
		case '*':
			b.WriteString(".*")
		case '?':
			b.WriteString(".")
		case '[':
			set, after, closed := strings.Cut(rest[1:], "]")
			if closed && set != "" && !strings.ContainsAny(set, `\^[`) {
				if class, err := regexp.Compile("[" + set + "]"); err == nil {
					b.WriteString(class.String())
					rest = after
					continue
				}
			}
			b.WriteString(`\[`)
		default:
			end := strings.IndexAny(rest[1:], "*?[") + 1
			if end == 0 {
				end = len(rest)
			}
			b.WriteString(regexp.QuoteMeta(rest[:end]))
			rest = rest[end:]
			continue
		}
		rest = rest[1:]
	}
	b.WriteString("$")
	compiled, err := regexp.Compile(b.String())
	if err != nil {
		return nil, fail.New(api.InvalidArgument, "%.100q is not a valid pattern", pattern)
	}
	return compiled, nil
}
