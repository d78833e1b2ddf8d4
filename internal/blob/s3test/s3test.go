// Package s3test runs a real S3 server, versitygw, for tests; the module in the
// folder versitygw determines its version.
//
// The server and its objects are removed at the end of the test. Start reading at Start.
package s3test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"keyroll/internal/servertest"
)

// bucket is where all objects are.
const bucket = "keyroll"

// Server is a running S3 server.
type Server struct {
	// Addr is where it listens: 127.0.0.1 and a port.
	Addr string
	// Env are the credentials, NAME=value, for a process that uses the server.
	Env []string
	// Objects is the folder in which the server keeps the objects by their names.
	Objects string
}

// URL is the address of a blob store on the server, of objects whose names begin
// with prefix; addr is Server.Addr, or that of a proxy before it.
func (s *Server) URL(addr, prefix string) string {
	query := url.Values{"region": {"us-east-1"}, "endpoint": {"http://" + addr}}
	return (&url.URL{Scheme: "s3", Host: bucket, Path: "/" + prefix, RawQuery: query.Encode()}).String()
}

// Setenv gives the credentials to this process until t ends.
func (s *Server) Setenv(t testing.TB) {
	t.Helper()
	servertest.Setenv(t, s.Env)
}

// Start starts a server with an empty bucket and returns when it answers.
func Start(t testing.TB) *Server {
	t.Helper()
	program, err := built()
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	s := &Server{Objects: filepath.Join(folder, bucket)}
	if err := os.Mkdir(s.Objects, 0o700); err != nil {
		t.Fatal(err)
	}
	secret := rand.Text()
	s.Env = []string{"AWS_ACCESS_KEY_ID=keyroll", "AWS_SECRET_ACCESS_KEY=" + secret, "AWS_SESSION_TOKEN="}
	s.Addr = servertest.Start(t, func(addr string) *exec.Cmd {
		p := exec.Command(program, "--quiet", "--keep-alive", "--port", addr, "posix", folder)
		p.Env = []string{"ROOT_ACCESS_KEY=keyroll", "ROOT_SECRET_KEY=" + secret}
		return p
	})
	return s
}

// built builds the server, unless it has been built before, and returns its path.
var built = sync.OnceValues(func() (string, error) {
	folder, err := run("go", "list", "-f", "{{.Dir}}", "keyroll/internal/blob/s3test")
	if err != nil {
		return "", err
	}
	return run("go", "-C", filepath.Join(folder, "versitygw"), "tool", "-n", "versitygw")
})

func run(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w\n%s", err, exit.Stderr)
	}
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
