package main

import (
	"context"
	"fmt"
	"io"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/terminal"
)

type rollCommand struct {
	List   rollList   `cmd:"" help:"List rolls, the newest first."`
	Show   rollShow   `cmd:"" help:"Show a roll and its progress."`
	Watch  rollWatch  `cmd:"" help:"Follow a roll to its end; exit 1 if it does not finish."`
	Pause  rollPause  `cmd:"" help:"Pause a running roll."`
	Resume rollResume `cmd:"" help:"Resume a paused or failed roll."`
	Cancel rollCancel `cmd:"" help:"Cancel a roll that has moved nothing yet."`
}

type rollList struct{ connection }

func (c *rollList) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		return listPages(e, "id policy state done total complete started finished", func(r api.Roll) []any {
			finished := "-"
			if r.Finished != nil {
				finished = terminal.Time(*r.Finished)
			}
			return []any{r.ID, r.Policy, r.State, r.Done, r.Total, fmt.Sprintf("%.1f %%", r.PercentComplete), terminal.Time(r.Started), finished}
		}, func(page api.PageInput) (api.List[api.Roll], error) {
			return k.ListRolls(e, api.ListInput{PageInput: page})
		})
	})
}

// oneRoll is the command line of a command for one roll.
type oneRoll struct {
	connection
	Roll string `arg:"" help:"Id of the roll."`
}

func (c oneRoll) run(e *env, act func(*client.Client, context.Context, api.RollInput) (api.Roll, error)) error {
	return c.withClient(func(k *client.Client) error {
		r, err := act(k, e, api.RollInput{Roll: c.Roll})
		if err != nil {
			return err
		}
		needed, err := stillNeeded(e, k, r)
		if err != nil {
			return err
		}
		return e.Object(r, func(w io.Writer) { showRoll(w, r, needed) })
	})
}

type (
	rollShow   struct{ oneRoll }
	rollPause  struct{ oneRoll }
	rollResume struct{ oneRoll }
	rollCancel struct{ oneRoll }
	rollWatch  struct{ oneRoll }
)

func (c *rollShow) Run(e *env) error   { return c.run(e, (*client.Client).ShowRoll) }
func (c *rollPause) Run(e *env) error  { return c.run(e, (*client.Client).PauseRoll) }
func (c *rollResume) Run(e *env) error { return c.run(e, (*client.Client).ResumeRoll) }
func (c *rollCancel) Run(e *env) error { return c.run(e, (*client.Client).CancelRoll) }
