package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"time"

	"keyroll/api"
	"keyroll/internal/connect"
	"keyroll/internal/fail"
)

type waitCommand struct {
	Data    string        `name:"data" type:"path" default:"${data}" env:"KEYROLL_DATA" placeholder:"DIR" help:"Data folder of the server (default: ${default})."`
	Timeout time.Duration `name:"timeout" default:"1m" placeholder:"DURATION" help:"How long to wait (default: ${default})."`
}

// pollInterval is how often wait asks.
const pollInterval = 100 * time.Millisecond

func (c *waitCommand) Run(e *env) error {
	ctx, cancel := context.WithTimeout(e, c.Timeout)
	defer cancel()
	for {
		url, err := askReady(ctx, c.Data)
		if err == nil {
			return e.Object(map[string]string{"url": url}, func(w io.Writer) { fmt.Fprintf(w, "keyroll is ready at %s\n", url) })
		}
		select {
		case <-time.After(pollInterval):
		case <-e.Done():
			return e.Err()
		case <-ctx.Done():
			return fail.New(api.Unavailable, "the server of data folder %s was not ready within %v: %w", c.Data, c.Timeout, err).
				WithHint("keyroll serve --data %s starts one; its standard error says what it waits for", c.Data)
		}
	}
}

// askReady asks the server of a data folder once whether it serves requests, and
// returns its URL.
func askReady(ctx context.Context, data string) (url string, err error) {
	info, k, err := connect.ServerOf(data)
	if errors.Is(err, fs.ErrNotExist) {
		return "", errors.New("no server has started")
	}
	if err != nil {
		return "", err
	}
	defer k.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, info.URL+"/readyz", nil)
	if err != nil {
		return "", err
	}
	answer, err := k.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return "", fmt.Errorf("it answers %s", answer.Status)
	}
	return info.URL, nil
}
