// Package clustertest provides tests with several real keyroll processes on one
// PostgreSQL database, which it can kill, pause, stop and start again, and with a
// client that tries the next node when one does not respond.
//
// Blobs, availability keys and the seal are in folders that all nodes can access; a
// test may name other stores. Start reading at Start.
package clustertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/fail"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
	"keyroll/internal/store/storetest"
)

// Options says what the nodes of a cluster share. The default of a URL is a new
// database or a folder of the test.
type Options struct {
	Nodes                               int
	Database, Blobs, Availability, Seal string
	PageSlots                           int
	Args                                []string // more flags of keyroll serve
	Env                                 []string // NAME=VALUE, in addition to the test's own environment
	// Reach returns the URLs by which one node accesses the database and the blobs, for
	// example through its own proxies; nil means the URLs above.
	Reach func(node int) (database, blobs string)
}

// Cluster is several nodes on one database.
type Cluster struct {
	Nodes []*Node
	Options

	t    testing.TB
	next int // the node that Do asks first
	mu   sync.Mutex
}

// Start starts all nodes concurrently and returns when all are ready. They are stopped
// when the test ends.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	folder := t.TempDir()
	for at, name := range map[*string]string{&o.Blobs: "blobs", &o.Availability: "availability", &o.Seal: "seal"} {
		if *at == "" {
			*at = (&url.URL{Scheme: "file", Path: filepath.Join(folder, "shared", name)}).String()
		}
	}
	if err := os.MkdirAll(filepath.Join(folder, "shared"), 0o700); err != nil {
		t.Fatal(err)
	}
	if o.Database == "" {
		o.Database = storetest.PostgresURL(t)
	}
	if o.PageSlots == 0 {
		o.PageSlots = node.DefaultPageSlots
	}
	c := &Cluster{Options: o, t: t}
	for i := range o.Nodes {
		n := &Node{cluster: c, Data: filepath.Join(folder, fmt.Sprintf("node%d", i)), database: c.Database, blobs: c.Blobs}
		if c.Reach != nil {
			n.database, n.blobs = c.Reach(i)
		}
		n.launch()
		c.Nodes = append(c.Nodes, n)
	}
	for _, n := range c.Nodes {
		n.await()
	}
	return c
}

// Inside starts one more node in this process, for tests that bypass the service.
func (c *Cluster) Inside() *nodetest.World {
	c.t.Helper()
	return nodetest.Start(c.t, node.Options{Database: c.Database, Blobs: c.Blobs, Availability: c.Availability, Seal: c.Seal, PageSlots: c.PageSlots})
}

// patience is how long Do waits for the response of one node.
const patience = 5 * time.Second

// Do calls ask with one node, and with the next if that node does not respond or fails
// for a reason that may be its own, until ctx is done. ask must be repeatable. Do may
// be called from many goroutines. It returns the number of failed attempts.
func (c *Cluster) Do(ctx context.Context, ask func(ctx context.Context, k *client.Client) error) (retries int, err error) {
	for ; ; retries++ {
		c.mu.Lock()
		n := c.Nodes[c.next%len(c.Nodes)]
		c.mu.Unlock()
		if err = n.do(ctx, ask); err == nil || ctx.Err() != nil || !mayBeTheNode(err) {
			return retries, err
		}
		c.mu.Lock()
		if c.Nodes[c.next%len(c.Nodes)] == n {
			c.next++
		}
		c.mu.Unlock()
		if retries%len(c.Nodes) == len(c.Nodes)-1 {
			pause(ctx, 50*time.Millisecond) // all of them failed
		}
	}
}

// mayBeTheNode reports whether another node may succeed where one failed.
func mayBeTheNode(err error) bool {
	var p *api.Problem
	return !errors.As(err, &p) || p.Code == api.Truncated || fail.Lookup(p.Code).Retry
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// Node is one process.
type Node struct {
	Data string // its data folder

	cluster         *Cluster
	database, blobs string
	process         *exec.Cmd
	log             *bytes.Buffer // to be read when it has ended
	ended           chan struct{}
	status          error // once ended
	mu              sync.Mutex
	world           *nodetest.World
}

// World returns the node's clients, connected as to any server on this machine.
func (n *Node) World() *nodetest.World {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.world
}

func (n *Node) do(ctx context.Context, ask func(ctx context.Context, k *client.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return ask(ctx, n.World().Client)
}

// Start starts the node again on its data folder and returns when it is ready.
func (n *Node) Start() {
	n.cluster.t.Helper()
	n.launch()
	n.await()
}

func (n *Node) launch() {
	t := n.cluster.t
	t.Helper()
	if err := os.Remove(n.ready()); err != nil && !errors.Is(err, fs.ErrNotExist) { // a killed one leaves it
		t.Fatal(err)
	}
	p, log, err := n.command()
	if err == nil {
		err = p.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	n.process, n.log, n.ended = p, log, ended
	go func() {
		n.status = p.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = p.Process.Kill() // if it still runs
		<-ended
	})
}

func (n *Node) ready() string { return filepath.Join(n.Data, node.InfoFile) }

// command returns the command that runs the node, and the buffer with its output.
func (n *Node) command() (*exec.Cmd, *bytes.Buffer, error) {
	program, err := built()
	if err != nil {
		return nil, nil, err
	}
	c := n.cluster
	p := exec.Command(program, append([]string{"serve", "--data", n.Data, "--listen", "127.0.0.1:0",
		"--page-slots", fmt.Sprint(c.PageSlots), "--blobs", n.blobs, "--availability", c.Availability, "--seal", c.Seal}, c.Args...)...)
	p.Env = append(append(os.Environ(), "KEYROLL_DATABASE="+n.database), c.Env...)
	log := new(bytes.Buffer)
	p.Stdout, p.Stderr = log, log
	return p, log, nil
}

// Refused starts the node, which must refuse to run, and returns its output.
func (n *Node) Refused() string {
	n.cluster.t.Helper()
	p, log, err := n.command()
	if err == nil {
		err = p.Run()
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		n.cluster.t.Fatalf("a node that must not run: %v\n%s", err, log)
	}
	return log.String()
}

// longestStart is longer than any start takes; a node that is not ready by then is
// stuck.
const longestStart = time.Minute

func (n *Node) await() {
	t := n.cluster.t
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for begin := time.Now(); ; {
		if _, err := os.Stat(n.ready()); err == nil {
			break
		}
		select {
		case <-n.ended:
			t.Fatalf("the node ended before it was ready: %v\n%s", n.status, n.log)
		case <-tick.C:
		}
		if time.Since(begin) > longestStart {
			n.Kill()
			t.Fatalf("the node was not ready in %v\n%s", longestStart, n.log)
		}
	}
	w := nodetest.Connect(t, n.Data)
	n.mu.Lock()
	n.world = w
	n.mu.Unlock()
}

// Kill ends the process by SIGKILL.
func (n *Node) Kill() {
	n.cluster.t.Helper()
	n.signal(syscall.SIGKILL)
	<-n.ended
}

// Pause suspends the process with SIGSTOP; Resume continues it.
func (n *Node) Pause() {
	n.cluster.t.Helper()
	n.signal(syscall.SIGSTOP)
}

// Resume continues a paused process.
func (n *Node) Resume() {
	n.cluster.t.Helper()
	n.signal(syscall.SIGCONT)
}

// Stop sends SIGTERM to the process and fails the test if it does not exit with status 0.
func (n *Node) Stop() {
	n.cluster.t.Helper()
	n.signal(syscall.SIGTERM)
	<-n.ended
	if n.status != nil {
		n.cluster.t.Errorf("the node ended: %v\n%s", n.status, n.log)
	}
}

func (n *Node) signal(s syscall.Signal) {
	n.cluster.t.Helper()
	if err := n.process.Process.Signal(s); err != nil {
		n.cluster.t.Fatalf("%v: %v\n", s, err)
	}
}

// Ended reports whether the process has ended, by itself or not.
func (n *Node) Ended() bool {
	select {
	case <-n.ended:
		return true
	default:
		return false
	}
}

// Log returns the output of an ended process.
func (n *Node) Log() string {
	<-n.ended
	return n.log.String()
}

// built builds keyroll once in a test process, and returns a path to start it from. The
// file is unlinked, so that nothing remains of it.
var built = sync.OnceValues(func() (string, error) {
	folder, err := os.MkdirTemp("", "keyroll-cluster-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(folder)
	program := filepath.Join(folder, "keyroll")
	if out, err := exec.Command("go", "build", "-o", program, "keyroll/cmd/keyroll").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build keyroll: %w\n%s", err, out)
	}
	file, err := os.Open(program)
	if err != nil {
		return "", err
	}
	kept = file
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), file.Fd()), nil
})

// kept holds the unlinked program of built open.
//
//lint:ignore U1000 written so that it stays open, never read
var kept *os.File
