// Package azuretest runs Azurite, Microsoft's own server of the Azure Blob protocol,
// for tests; `make azurite` installs the version in the lock file in testdata.
//
// The server and its blobs are removed at the end of the test. Start reading at Start.
package azuretest

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"keyroll/internal/servertest"
)

// Names of the one account and the one container.
const (
	account = "keyroll"
	store   = "blobs"
)

// Server is a running Azure Blob server.
type Server struct {
	// Addr is where it listens: 127.0.0.1 and a port.
	Addr string
	// Env are the credentials, NAME=value, for a process that uses the server.
	Env []string
}

// URL is the address of a blob store on the server, of blobs whose names begin
// with prefix; addr is Server.Addr, or that of a proxy before it.
func (s *Server) URL(addr, prefix string) string {
	query := url.Values{"endpoint": {endpoint(addr)}}
	return (&url.URL{Scheme: "azblob", Host: account, Path: "/" + store + "/" + prefix, RawQuery: query.Encode()}).String()
}

func endpoint(addr string) string { return "http://" + addr + "/" + account }

// Setenv gives the credentials to this process until t ends.
func (s *Server) Setenv(t testing.TB) {
	t.Helper()
	servertest.Setenv(t, s.Env)
}

// Start starts a server with an empty container and returns when it answers.
func Start(t testing.TB) *Server {
	t.Helper()
	program, err := installed()
	if err != nil {
		t.Fatal(err)
	}
	secret := make([]byte, 32)
	_, _ = rand.Read(secret)
	key := base64.StdEncoding.EncodeToString(secret)
	s := &Server{Env: []string{"AZURE_STORAGE_KEY=" + key}}
	folder := t.TempDir()
	s.Addr = servertest.Start(t, func(addr string) *exec.Cmd {
		_, port, _ := net.SplitHostPort(addr)
		// Loose: Azurite does not support CRC-64 and ignores it.
		p := exec.Command("node", program, "--loose", "--silent", "--disableTelemetry", "--skipApiVersionCheck", "--inMemoryPersistence", "--blobPort", port)
		p.Dir, p.Env = folder, []string{"PATH=" + os.Getenv("PATH"), "HOME=" + folder, "AZURITE_ACCOUNTS=" + account + ":" + key}
		return p
	})
	shared, err := container.NewSharedKeyCredential(account, key)
	if err == nil {
		var c *container.Client
		if c, err = container.NewClientWithSharedKeyCredential(endpoint(s.Addr)+"/"+store, shared, nil); err == nil {
			_, err = c.Create(t.Context(), nil)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// installed returns the path of the server's program.
var installed = sync.OnceValues(func() (string, error) {
	folder, err := exec.Command("go", "list", "-f", "{{.Dir}}", "keyroll/internal/blob/azuretest").Output()
	if err != nil {
		return "", err
	}
	program := filepath.Join(strings.TrimSpace(string(folder)), "testdata/node_modules/azurite/dist/src/blob/main.js")
	if _, err := os.Stat(program); err != nil {
		return "", fmt.Errorf("the tests need Azurite, which `make azurite` installs: %w", err)
	}
	return program, nil
})
