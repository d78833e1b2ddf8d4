package syntax

import (
	"fmt"
	"strings"
)

// print writes a tree as text that parses to the same tree.
func print(s *Script) string { return printStatements(s.Statements) }

func printStatements(statements []Statement) string {
	var lines []string
	for _, s := range statements {
		switch s := s.(type) {
		case *Assignment:
			lines = append(lines, "${"+s.Name+"} = "+printPipeline(s.Value))
		case *Pipeline:
			lines = append(lines, printPipeline(s))
		}
	}
	return strings.Join(lines, "\n")
}

func printPipeline(pl *Pipeline) string {
	var elements []string
	for _, e := range pl.Elements {
		switch e := e.(type) {
		case *Evaluation:
			elements = append(elements, printExpression(e.Expression))
		case *Command:
			words := []string{e.Name}
			for _, a := range e.Arguments {
				switch {
				case a.Parameter == "":
					words = append(words, printExpression(a.Value))
				case a.Value == nil:
					words = append(words, "-"+a.Parameter)
				default:
					words = append(words, "-"+a.Parameter+":"+printExpression(a.Value))
				}
			}
			elements = append(elements, strings.Join(words, " "))
		}
	}
	return strings.Join(elements, " | ")
}

func printExpression(e Expression) string {
	switch e := e.(type) {
	case *Text:
		var b strings.Builder
		for _, p := range e.Parts {
			if p.Variable != "" {
				b.WriteString("${" + p.Variable + "}")
				continue
			}
			for _, r := range p.Literal {
				if r == '$' || r == '`' || isDoubleQuote(r) {
					b.WriteByte('`')
				}
				if r == '\r' {
					b.WriteString("`r")
					continue
				}
				b.WriteRune(r)
			}
		}
		return `"` + b.String() + `"`
	case *Number:
		return e.Written
	case *Variable:
		return "${" + e.Name + "}"
	case *Member:
		return printExpression(e.Of) + "." + e.Name
	case *List:
		var items []string
		for _, i := range e.Items {
			items = append(items, printExpression(i))
		}
		return strings.Join(items, ",")
	case *Array:
		return "@(" + printStatements(e.Statements) + ")"
	case *Group:
		return "(" + printPipeline(e.Pipeline) + ")"
	case *Block:
		return "{ " + printStatements(e.Statements) + " }"
	case *Binary:
		return printExpression(e.Left) + " -" + e.Operator + " " + printExpression(e.Right)
	case *Not:
		return "! " + printExpression(e.Operand)
	}
	panic(fmt.Sprintf("no expression: %T", e))
}
