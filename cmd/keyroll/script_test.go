package main

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "github.com/ncruces/go-sqlite3/driver"
	"github.com/rogpeppe/go-internal/testscript"

	"keyroll/internal/blob/s3test"
	"keyroll/internal/connect"
	"keyroll/internal/store/storetest"
)

// raceOptions keep a child that was built with the race detector from sleeping
// for a second before it ends.
const raceOptions = "atexit_sleep_ms=0"

func TestMain(m *testing.M) {
	if err := os.Setenv("GORACE", raceOptions); err != nil {
		panic(err)
	}
	testscript.Main(m, map[string]func(){"keyroll": main})
}

// TestScripts runs the scripts of testdata/script; keyroll in them is a real
// child process. Commands in addition to those of testscript:
//
//	status N COMMAND…               run it; it exits with exactly N
//	ready DIR                       wait until the server of data folder DIR answers /readyz
//	server DIR                      set URL to that of the server of data folder DIR
//	sigterm                         send SIGTERM to the background command; wait then expects exit status 0
//	poll FIELD VALUE COMMAND…       run it again and again until FIELD of its one JSON object is VALUE
//	jsonlines [N]                   standard output is JSON objects, one a line, and nothing else; N of them
//	field VARIABLE FIELD [KEY=VAL]  set VARIABLE to FIELD of the JSON object on standard output, or of the one line where KEY is VAL
//	lines FILE FROM TO FORMAT       write FORMAT with each number of FROM to TO in place of %d
//	part FILE OFFSET LENGTH FILE    copy a part of a file
//	random FILE BYTES               write random bytes
//	replace FILE OLD NEW            put NEW in place of OLD
//	same FILE FILE                  the two have one SHA-256
//	equal TEXT TEXT                 the two are the same
//	flip GLOB                       invert one bit in the middle of the largest file that matches
//	keep DIR, restore DIR           copy a folder aside, and back
//	sql FILE STATEMENT              run a statement on an SQLite database
//	s3 VARIABLE VARIABLE            set one to the address of a new and empty S3 store, the other to the folder of its objects
//	orphan DIR                      put an old blob that nothing references among the objects in DIR
//	postgres VARIABLE               set VARIABLE to the address of a new and empty PostgreSQL database
func TestScripts(t *testing.T) {
	deadline, ok := t.Deadline()
	if !ok {
		deadline = time.Now().Add(5 * time.Minute)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		Deadline:            deadline,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("GORACE", raceOptions)
			env.Setenv("LF", "\n")
			env.Setenv("LATIN1", "r\xe9sum\xe9.txt")
			env.Setenv("REVERSED", "invoice\u202Efdp.exe")
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("KEYROLL_DATA", filepath.Join(env.WorkDir, "data"))
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"status": status, "ready": ready, "poll": poll, "jsonlines": jsonLines, "field": field,
			"lines": writeLines, "random": writeRandom, "same": sameFiles, "flip": flipBit, "sql": execSQL,
			"replace": replace, "equal": equal, "part": copyPart, "keep": saveFolder, "restore": restoreFolder, "server": server, "sigterm": sigterm,
			"orphan": putOrphanBlob,
			"s3": func(ts *testscript.TestScript, neg bool, args []string) {
				checkUsage(ts, neg, len(args) == 2, "s3 VARIABLE VARIABLE")
				server := s3test.Start(t)
				for _, v := range server.Env {
					name, value, _ := strings.Cut(v, "=")
					ts.Setenv(name, value)
				}
				ts.Setenv(args[0], server.URL(server.Addr, "a/prefix"))
				ts.Setenv(args[1], filepath.Join(server.Objects, "a/prefix"))
			},
			"postgres": func(ts *testscript.TestScript, neg bool, args []string) {
				checkUsage(ts, neg, len(args) == 1, "postgres VARIABLE")
				ts.Setenv(args[0], storetest.EmptyPostgresURL(t))
			},
		},
	})
}

// putOrphanBlob puts a blob of 2025 among those of the only tenant.
func putOrphanBlob(ts *testscript.TestScript, neg bool, args []string) {
	checkUsage(ts, neg, len(args) == 1, "orphan DIR")
	tenants, err := filepath.Glob(filepath.Join(args[0], "*", "*"))
	ts.Check(err)
	if len(tenants) == 0 {
		ts.Fatalf("%s holds no blobs", args[0])
	}
	folder := filepath.Join(filepath.Dir(tenants[0]), "0000", "001")
	ts.Check(os.MkdirAll(folder, 0o700))
	ts.Check(os.WriteFile(filepath.Join(folder, "0000001000000000"), []byte("orphan"), 0o600))
}

// checkUsage ends the script unless a command has its arguments and is not negated.
func checkUsage(ts *testscript.TestScript, neg bool, ok bool, usage string) {
	if neg || !ok {
		ts.Fatalf("usage: %s", usage)
	}
}

func status(ts *testscript.TestScript, neg bool, args []string) {
	checkUsage(ts, neg, len(args) > 1, "status N COMMAND…")
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

const (
	pollEvery = 20 * time.Millisecond
	pollFor   = 10 * time.Minute // what takes longer hangs
)

func ready(ts *testscript.TestScript, neg bool, args []string) {
	checkUsage(ts, neg, len(args) == 1, "ready DIR")
	if err := waitReady(ts.MkAbs(args[0])); err != nil {
		ts.Fatalf("%v", err)
	}
}

// waitReady waits until the server of a data folder answers that it is ready.
func waitReady(data string) (err error) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for end := time.Now().Add(pollFor); time.Now().Before(end); <-tick.C {
		if err = isReady(data); err == nil {
			return nil
		}
	}
	return fmt.Errorf("the server of %s is not ready: %w", data, err)
}

func isReady(data string) error {
	_, err := askReady(context.Background(), data)
	return err
}

func sigterm(ts *testscript.TestScript, neg bool, args []string) {
	checkUsage(ts, neg, len(args) == 0, "sigterm")
	for _, cmd := range ts.BackgroundCmds() {
		ts.Check(cmd.Process.Signal(syscall.SIGTERM))
	}
}

func server(ts *testscript.TestScript, neg bool, args []string) {
	checkUsage(ts, neg, len(args) == 1, "server DIR")
	info, _, err := connect.ServerOf(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Setenv("URL", info.URL)
}

func copyPart(ts *testscript.TestScript, neg bool, args []string) {
	checkUsage(ts, neg, len(args) == 4, "part FILE OFFSET LENGTH FILE")
	off, err := strconv.Atoi(args[1])
	ts.Check(err)
	n, err := strconv.Atoi(args[2])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[3]), []byte(ts.ReadFile(args[0])[off:off+n]), 0o600))
}

func poll(ts *testscript.TestScript, neg bool, args []string) {
	checkUsage(ts, neg, len(args) > 2, "poll FIELD VALUE COMMAND…")
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	var got any
	for end := time.Now().Add(pollFor); time.Now().Before(end); <-tick.C {
		if err := ts.Exec(args[2], args[3:]...); err != nil {
			ts.Fatalf("%v", err)
		}
		objects, err := parseLines(ts.ReadFile("stdout"))
		if err != nil || len(objects) != 1 {
			ts.Fatalf("standard output is not one JSON object: %v", err)
		}
		if got = jsonMember(objects[0], args[0]); fmt.Sprint(got) == args[1] {
			return
		}
	}
	ts.Fatalf("%s is %v, and has not become %s", args[0], got, args[1])
}

func jsonLines(ts *testscript.TestScript, neg bool, args []string) {
	checkUsage(ts, neg, len(args) < 2, "jsonlines [N]")
	objects, err := parseLines(ts.ReadFile("stdout"))
	if err != nil {
		ts.Fatalf("%v", err)
	}
	if len(args) == 1 && strconv.Itoa(len(objects)) != args[0] {
		ts.Fatalf("%d objects, want %s", len(objects), args[0])
	}
}

// parseLines reads JSON objects, one a line.
func parseLines(text string) (objects []map[string]any, err error) {
	for line := range strings.Lines(text) {
		var object map[string]any
		if err := json.Unmarshal([]byte(line), &object); err != nil {
			return nil, fmt.Errorf("%q is no JSON object: %w", line, err)
		}
		objects = append(objects, object)
	}
	return objects, nil
}

// jsonMember returns a member of an object, or of one within: a.b.
func jsonMember(v any, path string) any {
	for name := range strings.SplitSeq(path, ".") {
		object, _ := v.(map[string]any)
		v = object[name]
	}
	return v
}

func field(ts *testscript.TestScript, neg bool, args []string) {
	checkUsage(ts, neg, len(args) == 2 || len(args) == 3, "field VARIABLE FIELD [KEY=VALUE]")
	objects, err := parseLines(ts.ReadFile("stdout"))
	if err != nil {
		ts.Fatalf("%v", err)
	}
	var found []any
	for _, object := range objects {
		if len(args) == 3 {
			key, value, _ := strings.Cut(args[2], "=")
			if fmt.Sprint(jsonMember(object, key)) != value {
				continue
			}
		}
		found = append(found, jsonMember(object, args[1]))
	}
	if len(found) != 1 || found[0] == nil {
		ts.Fatalf("field %s is not there once: %v", args[1], found)
	}
	ts.Setenv(args[0], fmt.Sprint(found[0]))
}

func writeLines(ts *testscript.TestScript, neg bool, args []string) {
	checkUsage(ts, neg, len(args) == 4, "lines FILE FROM TO FORMAT")
	from, err := strconv.Atoi(args[1])
	ts.Check(err)
	to, err := strconv.Atoi(args[2])
	ts.Check(err)
	var b strings.Builder
	for i := from; i <= to; i++ {
		b.WriteString(strings.ReplaceAll(args[3], "%d", strconv.Itoa(i)) + "\n")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(b.String()), 0o600))
}

func writeRandom(ts *testscript.TestScript, neg bool, args []string) {
	checkUsage(ts, neg, len(args) == 2, "random FILE BYTES")
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	content := make([]byte, n)
	_, _ = rand.NewChaCha8(sha256.Sum256([]byte(args[0]))).Read(content)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), content, 0o600))
}

func sameFiles(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: [!] same FILE FILE")
	}
	a, b := sha256.Sum256([]byte(ts.ReadFile(args[0]))), sha256.Sum256([]byte(ts.ReadFile(args[1])))
	if (a == b) == neg {
		ts.Fatalf("%s: %x, %s: %x", args[0], a[:8], args[1], b[:8])
	}
}

func equal(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: [!] equal TEXT TEXT")
	}
	if (args[0] == args[1]) == neg {
		ts.Fatalf("%q and %q", args[0], args[1])
	}
}

func flipBit(ts *testscript.TestScript, neg bool, args []string) {
	checkUsage(ts, neg, len(args) == 1, "flip GLOB")
	names, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	var name string
	var content []byte
	for _, one := range names {
		b, err := os.ReadFile(one)
		ts.Check(err)
		if len(b) > len(content) {
			name, content = one, b
		}
	}
	if len(content) == 0 {
		ts.Fatalf("nothing to flip at %s", args[0])
	}
	content[len(content)/2] ^= 1
	ts.Check(os.WriteFile(name, content, 0o600))
}

func saveFolder(ts *testscript.TestScript, neg bool, args []string) {
	checkUsage(ts, neg, len(args) == 1, "keep DIR")
	ts.Check(os.CopyFS(ts.MkAbs(args[0])+".kept", os.DirFS(ts.MkAbs(args[0]))))
}

func restoreFolder(ts *testscript.TestScript, neg bool, args []string) {
	checkUsage(ts, neg, len(args) == 1, "restore DIR")
	dir := ts.MkAbs(args[0])
	ts.Check(os.RemoveAll(dir))
	ts.Check(os.CopyFS(dir, os.DirFS(dir+".kept")))
}

func execSQL(ts *testscript.TestScript, neg bool, args []string) {
	checkUsage(ts, neg, len(args) == 2, "sql FILE STATEMENT")
	if err := runSQL(ts.MkAbs(args[0]), args[1]); err != nil {
		ts.Fatalf("%v", err)
	}
}

func runSQL(file, statement string) error {
	db, err := sql.Open("sqlite3", "file:"+file)
	if err != nil {
		return err
	}
	_, err = db.Exec(statement)
	return errors.Join(err, db.Close())
}

func replace(ts *testscript.TestScript, neg bool, args []string) {
	checkUsage(ts, neg, len(args) == 3, "replace FILE OLD NEW")
	text := ts.ReadFile(args[0])
	if !strings.Contains(text, args[1]) {
		ts.Fatalf("%s does not hold %s", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.ReplaceAll(text, args[1], args[2])), 0o600))
}
