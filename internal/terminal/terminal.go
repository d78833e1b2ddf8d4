// Package terminal prints for people and for programs: tables, fields, progress, and
// everything as JSON if that is requested. Control characters in what it prints are
// escaped, because names come from elsewhere and could otherwise change a terminal.
// Start reading at Terminal.
package terminal

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"keyroll/api"
	"keyroll/internal/fail"
)

// Terminal is where a command reads and prints. Each of its streams may be a terminal, a
// file or a pipe.
type Terminal struct {
	In     *os.File
	Out    io.Writer
	ErrOut io.Writer // for progress, questions and errors
	JSON   bool      // results are printed as JSON
}

// Object prints one object: as JSON, or by text.
func (t Terminal) Object(v any, text func(w io.Writer)) error {
	if t.JSON {
		return NewEncoder(t.Out).Encode(v)
	}
	text(t.Out)
	return nil
}

// Confirm asks for a confirmation, and refuses where there is no terminal.
func (t Terminal) Confirm(question string) error {
	if !term.IsTerminal(int(t.In.Fd())) {
		return fail.New(api.Conflict, "this needs a confirmation, and standard input is not a terminal").
			WithHint("use --yes to go on without asking; nothing was changed")
	}
	fmt.Fprintf(t.ErrOut, "%s [y/N] ", Escape(question))
	answer, err := bufio.NewReader(t.In).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
		return fail.New(api.Conflict, "not confirmed; nothing was changed")
	}
	return nil
}

// Width returns the columns of the terminal that Out is, 0 if it is none.
func (t Terminal) Width() int {
	f, ok := t.Out.(*os.File)
	if !ok {
		return 0
	}
	columns, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return columns
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
