package cmdlet

import (
	"slices"
	"sort"
	"strings"
)

// completer completes the word that is being typed, from the table of cmdlets. As
// in PowerShell, a further Tab shows the next of several candidates.
type completer struct {
	table []*Cmdlet

	// State of the current completion:
	shown      string // the line that it produced, with the cursor at the offset at
	at         int
	head, tail string // the line around the word
	candidates []string
	next       int
}

// key completes at a Tab and ignores every other key. pos is an offset in line, in
// bytes.
func (c *completer) key(line string, pos int, key rune) (string, int, bool) {
	if key != '\t' {
		return "", 0, false
	}
	if c.candidates == nil || line != c.shown || pos != c.at {
		from, candidates := complete(c.table, line[:pos])
		c.head, c.tail, c.candidates, c.next = line[:from], line[pos:], candidates, 0
	}
	if len(c.candidates) == 0 {
		c.candidates = nil
		return line, pos, true // a Tab is never part of the line
	}
	chosen := c.head + c.candidates[c.next]
	c.next = (c.next + 1) % len(c.candidates)
	c.shown, c.at = chosen+c.tail, len(chosen)
	return c.shown, c.at, true
}

// complete returns where the last word of text begins, and its possible completions:
// names of cmdlets, parameters of the cmdlet that the statement calls, or values of
// the preceding parameter.
func complete(table []*Cmdlet, text string) (from int, candidates []string) {
	words, starts := lastCommand(text)
	last := words[len(words)-1]
	from = starts[len(words)-1]
	if len(words) == 1 {
		return from, cmdletNames(table, last)
	}
	c := find(table, words[0])
	if c == nil {
		return from, nil
	}
	if strings.HasPrefix(last, "-") {
		for i := range c.Params {
			candidates = begins(candidates, last, "-"+c.Params[i].Name)
		}
		return from, candidates
	}
	before := words[len(words)-2]
	if !strings.HasPrefix(before, "-") {
		return from, nil
	}
	p, err := c.parameter(before[1:])
	if err != nil || p.Type == Switch {
		return from, nil
	}
	values := p.Values
	if p.Type == Boolean {
		values = []string{"$true", "$false"}
	}
	if comma := strings.LastIndex(last, ","); comma >= 0 && p.Type == Strings {
		from, last = from+comma+1, last[comma+1:]
	}
	for _, v := range values {
		candidates = begins(candidates, last, v)
	}
	return from, candidates
}

func begins(all []string, typed, candidate string) []string {
	if len(candidate) >= len(typed) && strings.EqualFold(candidate[:len(typed)], typed) {
		return append(all, candidate)
	}
	return all
}

// cmdletNames returns the names that begin with typed: older spellings only if no
// current name begins so.
func cmdletNames(table []*Cmdlet, typed string) []string {
	if typed == "" {
		return nil
	}
	var names, older []string
	for _, c := range table {
		names = begins(names, typed, c.Name)
		for _, a := range c.Aliases {
			older = begins(older, typed, a)
		}
	}
	if names == nil {
		names = older
	}
	sort.Strings(names)
	return slices.Compact(names)
}

// lastCommand returns the words of the command at the end of text, of which the last
// may be empty, and where each begins. Quotes keep a word together.
func lastCommand(text string) (words []string, starts []int) {
	var quote byte
	start := -1
	end := func(i int) {
		if start >= 0 {
			words, starts = append(words, text[start:i]), append(starts, start)
		}
		start = -1
	}
	for i := range len(text) {
		b := text[i]
		switch {
		case quote != 0:
			if b == quote {
				quote = 0
			}
		case b == ' ' || b == '\t':
			end(i)
		case strings.IndexByte("|;({=\n", b) >= 0:
			words, starts, start = nil, nil, -1
		default:
			if b == '\'' || b == '"' {
				quote = b
			}
			if start < 0 {
				start = i
			}
		}
	}
	if start < 0 {
		return append(words, ""), append(starts, len(text))
	}
	end(len(text))
	return words, starts
}
