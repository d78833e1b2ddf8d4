package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"keyroll/api"
	"keyroll/client"
)

type rollCommand struct {
	List   rollList   `cmd:"" help:"List rolls, the newest first."`
	Show   rollShow   `cmd:"" help:"Show a roll and its progress."`
	Watch  rollWatch  `cmd:"" help:"Follow a roll to its end; exit 1 if it does not finish."`
	Pause  rollPause  `cmd:"" help:"Pause a running roll."`
	Resume rollResume `cmd:"" help:"Resume a paused or failed roll."`
}

type rollList struct{ connection }

func (c *rollList) Run(e *env) error {
	return c.with(func(k *client.Client) error {
		l, err := k.ListRolls(e, api.None{})
		if err != nil {
			return err
		}
		return list(e, l.Items, "id policy state done total complete started finished", func(r api.Roll) []any {
			finished := "-"
			if r.Finished != nil {
				finished = when(*r.Finished)
			}
			return []any{r.ID, r.Policy, r.State, r.Done, r.Total, fmt.Sprintf("%.1f %%", r.PercentComplete), when(r.Started), finished}
		})
	})
}

// oneRoll names one roll.
type oneRoll struct {
	connection
	Roll string `arg:"" help:"Id of the roll."`
}

func (c oneRoll) run(e *env, act func(*client.Client, context.Context, api.RollInput) (api.Roll, error)) error {
	return c.with(func(k *client.Client) error {
		r, err := act(k, e, api.RollInput{Roll: c.Roll})
		if err != nil {
			return err
		}
		return e.object(r, func(w io.Writer) { showRoll(w, r) })
	})
}

type (
	rollShow   struct{ oneRoll }
	rollPause  struct{ oneRoll }
	rollResume struct{ oneRoll }
	rollWatch  struct{ oneRoll }
)

func (c *rollShow) Run(e *env) error   { return c.run(e, (*client.Client).ShowRoll) }
func (c *rollPause) Run(e *env) error  { return c.run(e, (*client.Client).PauseRoll) }
func (c *rollResume) Run(e *env) error { return c.run(e, (*client.Client).ResumeRoll) }

func (c *rollWatch) Run(e *env) error {
	return c.with(func(k *client.Client) error {
		r, err := watch(e, k, c.Roll)
		if err != nil {
			return err
		}
		if err := e.object(r, func(w io.Writer) { showRoll(w, r) }); err != nil {
			return err
		}
		if r.State != api.RollFinished {
			return statusError(1)
		}
		return nil
	})
}

// watchEvery is how often a watched roll is asked for.
const watchEvery = 250 * time.Millisecond

// watch follows a roll with a progress bar until it no longer runs.
func watch(e *env, k *client.Client, id string) (api.Roll, error) {
	r, err := k.ShowRoll(e, api.RollInput{Roll: id})
	if err != nil {
		return r, err
	}
	bar := e.progress("roll of "+r.Policy, r.Total)
	defer bar.End()
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		bar.Set(r.Done)
		bar.note(rollNote(r))
		if r.State != api.RollRunning {
			return r, nil
		}
		select {
		case <-e.Done():
			return r, e.Err()
		case <-tick.C:
		}
		if r, err = k.ShowRoll(e, api.RollInput{Roll: id}); err != nil {
			return r, err
		}
	}
}

func rollNote(r api.Roll) string {
	if r.Message != "" {
		return r.Message
	}
	if r.PerSecond == 0 {
		return ""
	}
	return fmt.Sprintf("%.0f containers/s, %s left", r.PerSecond, time.Duration(r.ETASeconds*float64(time.Second)).Round(time.Second))
}

func showRoll(w io.Writer, r api.Roll) {
	pairs := []any{"roll", r.ID, "policy", r.Policy, "depth", r.Depth, "state", r.State,
		"done", fmt.Sprintf("%d of %d (%.1f %%)", r.Done, r.Total, r.PercentComplete), "started", when(r.Started)}
	if r.Source != "" {
		pairs = append(pairs, "from policy", r.Source)
	}
	if r.Finished != nil {
		pairs = append(pairs, "finished", when(*r.Finished))
	} else {
		pairs = append(pairs, "deadline", when(r.Deadline))
	}
	if r.PerSecond > 0 {
		pairs = append(pairs, "rate", fmt.Sprintf("%.0f containers/s", r.PerSecond),
			"remaining time", time.Duration(r.ETASeconds*float64(time.Second)).Round(time.Second))
	}
	if r.Message != "" {
		pairs = append(pairs, "message", r.Message)
	}
	for _, s := range r.Skipped {
		pairs = append(pairs, "skipped", s)
	}
	if more := r.SkippedCount - int64(len(r.Skipped)); more > 0 {
		pairs = append(pairs, "skipped", fmt.Sprintf("and %d more: keyroll verify names all that is damaged", more))
	}
	fields(w, pairs...)
}
