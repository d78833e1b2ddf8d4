package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/fail"
	"keyroll/internal/node"
)

// connection finds a running server.
type connection struct {
	Data      string `name:"data" type:"path" default:"${data}" env:"KEYROLL_DATA" placeholder:"DIR" help:"Data folder of a server on this machine (${default})."`
	Server    string `name:"server" env:"KEYROLL_SERVER" placeholder:"URL" help:"URL of a server elsewhere, instead of --data."`
	TokenFile string `name:"token-file" type:"path" env:"KEYROLL_TOKEN_FILE" placeholder:"FILE" help:"File that holds the token; needed with --server, and with --data the admin's unless given."`
	CAFile    string `name:"ca-file" type:"path" env:"KEYROLL_CA_FILE" placeholder:"FILE" help:"Certificate authority that --server is trusted by; the system's unless given."`
}

// target is a server to talk to.
type target struct {
	client client.Options
	node.Info
}

// defaultData is the data folder of who names none.
func defaultData() string {
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "keyroll")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "keyroll-data"
	}
	return filepath.Join(home, ".local", "share", "keyroll")
}

// find resolves the flags to a server, its token and its authority.
func (c connection) find() (target, error) {
	t := target{Info: node.Info{URL: c.Server, CAFile: c.CAFile, AdminTokenFile: c.TokenFile}}
	if c.Server == "" {
		raw, err := os.ReadFile(filepath.Join(c.Data, node.InfoFile))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return t, fail.New(api.Unavailable, "no server runs with data folder %s", c.Data).
				WithHint("start one with keyroll serve --data DIR, or name another with --data or --server")
		case err != nil:
			return t, err
		}
		if err := json.Unmarshal(raw, &t.Info); err != nil {
			return t, fail.New(api.Damaged, "%s is no description of a server", filepath.Join(c.Data, node.InfoFile)).Because(err)
		}
		if c.TokenFile != "" {
			t.AdminTokenFile = c.TokenFile
		}
	}
	if t.AdminTokenFile == "" {
		return t, fail.New(api.InvalidArgument, "--server needs a token").WithHint("name the file that holds it with --token-file or KEYROLL_TOKEN_FILE")
	}
	return targetOf(t.Info)
}

// targetOf reads the files that a description of a server names.
func targetOf(info node.Info) (target, error) {
	t := target{Info: info}
	token, err := os.ReadFile(t.AdminTokenFile)
	if err != nil {
		return t, fail.New(api.InvalidArgument, "the token file cannot be read: %w", err)
	}
	t.client = client.Options{URL: t.URL, Token: strings.TrimSpace(string(token))}
	if t.CAFile != "" {
		if t.client.CA, err = os.ReadFile(t.CAFile); err != nil {
			return t, fail.New(api.InvalidArgument, "the certificate authority's file cannot be read: %w", err)
		}
	}
	return t, nil
}

// connect returns a client of the server.
func (c connection) connect() (*client.Client, error) {
	t, err := c.find()
	if err != nil {
		return nil, err
	}
	return client.New(t.client)
}
