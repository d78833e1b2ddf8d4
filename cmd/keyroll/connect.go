package main

import (
	"os"
	"path/filepath"

	"keyroll/client"
	"keyroll/internal/connect"
)

// connection finds a running server.
type connection struct {
	Data      string `name:"data" type:"path" default:"${data}" env:"KEYROLL_DATA" placeholder:"DIR" help:"Data folder of a server on this machine (default: ${default})."`
	Server    string `name:"server" env:"KEYROLL_SERVER" placeholder:"URL" help:"URL of a server on another machine, instead of --data."`
	TokenFile string `name:"token-file" type:"path" env:"KEYROLL_TOKEN_FILE" placeholder:"FILE" help:"File that holds the access token; required with --server (default with --data: the token of the tenant's admin in the data folder)."`
	Tenant    string `name:"tenant" env:"KEYROLL_TENANT" placeholder:"TENANT" help:"Name or GUID of the tenant to act in (default: the first tenant; with --server or --token-file, the tenant of the token)."`
	CAFile    string `name:"ca-file" type:"path" env:"KEYROLL_CA_FILE" placeholder:"FILE" help:"PEM file of the certificate authority that the certificate of --server must come from (default: the authorities that the system trusts)."`
}

// defaultData is the data folder that is used without --data.
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

// find returns the server that the flags select.
func (c connection) find() (connect.Target, error) { return connect.Selection(c).Find() }

// connect returns a client of the server.
func (c connection) connect() (*client.Client, error) {
	t, err := c.find()
	if err != nil {
		return nil, err
	}
	return client.New(t.Client)
}
