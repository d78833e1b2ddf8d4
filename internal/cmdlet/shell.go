package cmdlet

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"keyroll/api"
	"keyroll/internal/cmdlet/syntax"
	"keyroll/internal/fail"
)

// Options configures a shell. All but JSON, Width and Confirm must be set.
type Options struct {
	Service Service
	Vaults  Vaults
	Out     io.Writer // results only
	Err     io.Writer // warnings; in an interactive shell errors too
	JSON    bool      // one JSON value per line instead of PowerShell's views
	Width   int       // of the terminal, in characters; 0 cuts nothing
	Now     func() time.Time
	// Confirm asks the user for a confirmation; if it is nil, changes that need one
	// are refused.
	Confirm func(ctx context.Context, question string) (bool, error)
}

// Run parses and checks a text and runs it to its end or its first error. A text
// that does not parse or does not fit the cmdlets is a SyntaxError, and nothing of
// it has run. The text of an error names cmdlet, line and column; PrintError shows
// it with its hint.
func Run(ctx context.Context, text string, o Options) error {
	return newSession(o).run(ctx, text)
}

func newSession(o Options) *session {
	return &session{Options: o, table: Table(), variables: map[string]any{}}
}

func (s *session) run(ctx context.Context, text string) error {
	script, err := syntax.Parse(text)
	if err != nil {
		return public(err)
	}
	if s.bindings, err = s.check(script); err != nil {
		return public(err)
	}
	for _, st := range script.Statements {
		p := &printer{out: s.Out, json: s.JSON, width: s.Width}
		err := s.statements(ctx, scope{}, []syntax.Statement{st}, p.emit)
		// Results from before the error are shown before it.
		if flushed := p.flush(); err == nil {
			err = flushed
		}
		if err != nil {
			return public(err)
		}
	}
	return nil
}

// Interact reads statements from a terminal until it is closed or exit is
// typed. Errors are printed and do not end it. If in is not a terminal, it is read
// to its end and run as one text.
func Interact(ctx context.Context, in *os.File, o Options) error {
	if !term.IsTerminal(int(in.Fd())) {
		raw, err := io.ReadAll(io.LimitReader(bufio.NewReader(in), 2*syntax.MaxText+4)) // it may be UTF-16
		if err != nil {
			return err
		}
		text, err := DecodeText(raw)
		if err != nil {
			return err
		}
		return Run(ctx, text, o)
	}
	screen := struct {
		io.Reader
		io.Writer
	}{in, o.Err}
	t := term.NewTerminal(screen, "")
	t.AutoCompleteCallback = (&completer{table: Table()}).key
	if width, height, err := term.GetSize(int(in.Fd())); err == nil && width > 0 {
		if o.Width == 0 {
			o.Width = width
		}
		if err := t.SetSize(width, height); err != nil {
			return err
		}
	}
	return loop(ctx, o, func(prompt string) (string, error) {
		state, err := term.MakeRaw(int(in.Fd()))
		if err != nil {
			return "", err
		}
		defer func() { _ = term.Restore(int(in.Fd()), state) }()
		t.SetPrompt(prompt)
		line, err := t.ReadLine()
		if errors.Is(err, term.ErrPasteIndicator) {
			err = nil
		}
		return line, err
	})
}

// loop collects lines until they are complete statements, and runs them.
func loop(ctx context.Context, o Options, read func(prompt string) (string, error)) error {
	o.Confirm = func(_ context.Context, question string) (bool, error) {
		answer, err := read(question + " [y/N] ")
		answer = strings.ToLower(strings.TrimSpace(answer))
		return answer == "y" || answer == "yes", err
	}
	s := newSession(o)
	text, prompt := "", "PS keyroll> "
	for ctx.Err() == nil {
		line, err := read(prompt)
		if errors.Is(err, io.EOF) {
			fmt.Fprintln(o.Err)
			return nil
		}
		if err != nil {
			return err
		}
		if text == "" && strings.EqualFold(strings.TrimSpace(line), "exit") {
			return nil
		}
		text += line + "\n"
		// An empty line ends an incomplete statement.
		var open *syntax.Error
		if _, err := syntax.Parse(text); errors.As(err, &open) && open.Incomplete && strings.TrimSpace(line) != "" {
			prompt = ">> "
			continue
		}
		if err := s.run(ctx, text); err != nil {
			PrintError(o.Err, err)
		}
		text, prompt = "", "PS keyroll> "
	}
	return ctx.Err()
}

// errWhatIf ends a cmdlet that was called with -WhatIf.
var errWhatIf = errors.New("what if")

// change makes a change in the service and emits the object that act returns, if any.
// format describes the change in the imperative, without a full stop. With -WhatIf
// act is a dry run, which fails where the change would fail.
func (c *Call) change(ctx context.Context, act func() (*Object, error), format string, args ...any) error {
	return c.changeIf(ctx, c.cmdlet.Confirms, act, format, args...)
}

// changeIf is change; without -Confirm, ask decides whether to ask for a confirmation.
func (c *Call) changeIf(ctx context.Context, ask bool, act func() (*Object, error), format string, args ...any) error {
	if c.flag("WhatIf") {
		if _, err := act(); err != nil {
			return err
		}
	}
	if err := c.confirmIf(ctx, ask, format, args...); err != nil {
		return err
	}
	made, err := act()
	if err != nil || made == nil {
		return err
	}
	return c.emit(made)
}

// dryRun returns the option of a change that -WhatIf turns into a dry run.
func (c *Call) dryRun() api.DryRunOption { return api.DryRunOption{DryRun: c.flag("WhatIf")} }

// confirm is called before every change, with a description in the imperative, without
// a full stop. With -WhatIf it prints the description and returns errWhatIf; before a
// removal or with -Confirm it asks for a confirmation.
func (c *Call) confirm(ctx context.Context, format string, args ...any) error {
	return c.confirmIf(ctx, c.cmdlet.Confirms, format, args...)
}

// asks reports whether to ask for a confirmation; without -Confirm, ask decides.
func (c *Call) asks(ask bool) bool {
	if given := c.optionalBool("Confirm"); given != nil {
		return *given
	}
	return ask
}

// confirmIf is confirm; without -Confirm, ask decides whether to ask for a confirmation.
func (c *Call) confirmIf(ctx context.Context, ask bool, format string, args ...any) error {
	act := escaped(fmt.Sprintf(format, args...))
	if c.flag("WhatIf") {
		to := c.Out
		if c.JSON {
			to = c.Err
		}
		if _, err := fmt.Fprintf(to, "What if: %s.\n", act); err != nil {
			return err
		}
		return errWhatIf
	}
	if !c.asks(ask) {
		return nil
	}
	if c.Confirm == nil {
		return fail.New(api.InvalidArgument, "needs a confirmation, and standard input is not a terminal: %s?", act).
			WithHint("use -Confirm:$false to go on without asking; nothing was changed")
	}
	yes, err := c.Confirm(ctx, act+"?")
	if err == nil && !yes {
		err = fail.New(api.Conflict, "was not confirmed; nothing was changed")
	}
	return err
}
