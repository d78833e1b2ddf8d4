package cmdlet

import (
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"keyroll/internal/name"
)

// formatted is the output of a Format cmdlet.
type formatted string

// escaped escapes control characters, so that text from elsewhere can go to a terminal.
func escaped(s string) string { return name.Escape(s, "\n\r\t") }

// tableBlock is how many rows of a table are held to find the widths of its
// columns; later rows use the same widths.
const tableBlock = 1000

// printer writes the output of a pipeline: as JSON, one value per line, or as
// PowerShell shows it.
type printer struct {
	out   io.Writer
	json  bool
	width int       // of the terminal; 0 for no limit
	rows  []*Object // rows of the open table that are not yet written
	last  *Object   // the last row of the open table
	table *table    // the open table, once its widths are known
	list  bool      // the last thing written was an object of a list
}

// emit writes one value.
func (p *printer) emit(v any) error {
	if p.json {
		if v == nil {
			return nil
		}
		line, err := marshal(v)
		if err != nil {
			return err
		}
		_, err = io.WriteString(p.out, name.EscapeJSON(string(line))+"\n")
		return err
	}
	o, isObject := v.(*Object)
	isList := isObject && o.Text == "" && o.isList()
	isRow := isObject && o.Text == "" && !isList
	if p.list && !isList || p.last != nil && !(isRow && sameTable(o, p.last)) {
		if err := p.flush(); err != nil {
			return err
		}
	}
	switch v := v.(type) {
	case nil:
		return nil
	case formatted:
		return p.write(string(v))
	case time.Time:
		return p.write("\n" + v.UTC().Format("Monday, January 2, 2006 3:04:05 PM") + "\n\n")
	case []any:
		return each(v, p.emit)
	case *Object:
		switch {
		case isList:
			return p.writeList(v)
		case !isRow:
			return p.write(v.Text)
		}
		p.rows, p.last = append(p.rows, v), v
		if len(p.rows) >= tableBlock {
			return p.writeRows()
		}
		return nil
	}
	return p.write(display(v) + "\n")
}

func (p *printer) write(s string) error {
	_, err := io.WriteString(p.out, escaped(s))
	return err
}

func (p *printer) writeList(o *Object) error {
	text := formatList(o, o.columns(nil))
	if !p.list {
		text = "\n" + text
	}
	p.list = true
	return p.write(text)
}

func (p *printer) writeRows() error {
	if p.table == nil {
		p.table = newTable(p.rows, p.rows[0].columns(nil), p.width)
		if err := p.write("\n" + p.table.header()); err != nil {
			return err
		}
	}
	err := p.write(p.table.body(p.rows))
	p.rows = p.rows[:0]
	return err
}

// flush ends a table or a list.
func (p *printer) flush() error {
	p.list = false
	if p.last == nil {
		return nil
	}
	if len(p.rows) > 0 {
		if err := p.writeRows(); err != nil {
			return err
		}
	}
	p.table, p.last = nil, nil
	return p.write("\n")
}

// isList says whether an object is shown as a list.
func (o *Object) isList() bool {
	if o.View != nil {
		return o.View.List
	}
	return len(o.Properties) > 4
}

// sameTable reports whether two objects can be rows of one table.
func sameTable(a, b *Object) bool { return a.View == b.View && slices.Equal(a.names(), b.names()) }

// columns returns the columns to show of an object: those that the patterns name, or
// those of its view, or all.
func (o *Object) columns(patterns []string) []Column {
	var columns []Column
	if patterns == nil {
		if o.View != nil {
			return o.View.Columns
		}
		patterns = []string{"*"}
	}
	for _, p := range patterns {
		found := false
		re, err := wildcard(p)
		for _, name := range o.names() {
			if err == nil && re.MatchString(name) {
				columns, found = append(columns, Column{name, name}), true
			}
		}
		if !found && !strings.ContainsAny(p, "*?[") {
			columns = append(columns, Column{p, p})
		}
	}
	return columns
}

// formatList writes one object as lines of name and value, followed by an empty
// line.
func formatList(o *Object, columns []Column) string {
	width := 0
	for _, c := range columns {
		width = max(width, utf8.RuneCountInString(c.Label))
	}
	var b strings.Builder
	for _, c := range columns {
		value, _ := o.Get(c.Property)
		for i, l := range strings.Split(display(value), "\n") {
			if i == 0 {
				l = pad(c.Label, width, false) + " : " + l
			} else if l != "" {
				l = strings.Repeat(" ", width+3) + l
			}
			b.WriteString(strings.TrimRight(l, " ") + "\n")
		}
	}
	return b.String() + "\n"
}

// table is the columns of a table and how wide they are.
type table struct {
	columns []Column
	widths  []int
	right   []bool // numbers are aligned on the right
}

func newTable(rows []*Object, columns []Column, width int) *table {
	t := &table{columns: columns, widths: make([]int, len(columns)), right: make([]bool, len(columns))}
	total := len(columns) - 1
	for i, c := range columns {
		t.widths[i] = utf8.RuneCountInString(c.Label)
		t.right[i] = true
		for _, o := range rows {
			v, _ := o.Get(c.Property)
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(cell(v)))
			t.right[i] = t.right[i] && isNumber(v)
		}
		total += t.widths[i]
	}
	for width > 0 && total > width {
		widest := slices.Index(t.widths, slices.Max(t.widths))
		if t.widths[widest] <= 8 {
			break
		}
		t.widths[widest]--
		total--
	}
	return t
}

func isNumber(v any) bool {
	switch v.(type) {
	case int64, float64:
		return true
	}
	return false
}

func cell(v any) string { return strings.ReplaceAll(display(v), "\n", " ") }

func (t *table) header() string {
	var labels, rules []string
	for i, c := range t.columns {
		label := cut(c.Label, t.widths[i])
		labels = append(labels, pad(label, t.widths[i], t.right[i]))
		rules = append(rules, pad(strings.Repeat("-", utf8.RuneCountInString(label)), t.widths[i], t.right[i]))
	}
	return line(labels) + line(rules)
}

func (t *table) body(rows []*Object) string {
	var b strings.Builder
	for _, o := range rows {
		var cells []string
		for i, c := range t.columns {
			v, _ := o.Get(c.Property)
			cells = append(cells, pad(cut(cell(v), t.widths[i]), t.widths[i], t.right[i]))
		}
		b.WriteString(line(cells))
	}
	return b.String()
}

func line(cells []string) string { return strings.TrimRight(strings.Join(cells, " "), " ") + "\n" }

func pad(s string, width int, right bool) string {
	space := strings.Repeat(" ", max(0, width-utf8.RuneCountInString(s)))
	if right {
		return space + s
	}
	return s + space
}

// cut shortens a text that is too long for its column.
func cut(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:width-1]) + "…"
}
