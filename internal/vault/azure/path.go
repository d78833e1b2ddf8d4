package azure

import "strings"

// Pattern is the path of an operation. {name} stands for one segment, {version?} for one
// that may be empty or, at the end, missing.
type Pattern struct {
	Text     string
	segments []segment
}

// segment of a Pattern is a word, of which the case is ignored, or a variable.
type segment struct {
	word, variable string
	optional       bool
}

// Path returns the pattern of a text.
func Path(text string) Pattern {
	p := Pattern{Text: text}
	for part := range strings.SplitSeq(text, "/") {
		name, variable := strings.CutPrefix(part, "{")
		if !variable {
			p.segments = append(p.segments, segment{word: part})
			continue
		}
		name, optional := strings.CutSuffix(strings.TrimSuffix(name, "}"), "?")
		p.segments = append(p.segments, segment{variable: name, optional: optional})
	}
	return p
}

// Match compares the segments of a path and returns the values of the variables.
func (p Pattern) Match(given []string) (values map[string]string, ok bool) {
	last := len(p.segments) - 1
	if len(given) != last+1 && (len(given) != last || !p.segments[last].optional) {
		return nil, false
	}
	for i, text := range given {
		if s := p.segments[i]; s.variable == "" && !strings.EqualFold(s.word, text) || s.variable != "" && text == "" && !s.optional {
			return nil, false
		}
	}
	values = map[string]string{}
	for i, s := range p.segments {
		switch {
		case s.variable == "":
		case i < len(given):
			values[s.variable] = given[i]
		default:
			values[s.variable] = ""
		}
	}
	return values, true
}
