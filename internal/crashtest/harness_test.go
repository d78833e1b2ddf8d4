package crashtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"keyroll/api"
	"keyroll/internal/fault"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// order is the instruction for a child, in the environment variable orderVariable.
type order struct {
	Scenario string
	Seed     uint64 // of a mixed scenario
	Data     string
	Database string // default: in the data folder
	MoveTo   string // to move the folder's database to, instead of a scenario
	Journal  string
	DieAt    int    // the count of the point to die at
	Point    string // or its name: the first of that name
}

const orderVariable = "KEYROLL_CRASHTEST_CHILD"

// options are those of the node of a child, and of the node that is started after it.
func (o order) options() node.Options {
	settings := options
	settings.Data, settings.Database = o.Data, o.Database
	return settings
}

func (o order) scenario() scenario {
	if o.Seed != 0 {
		return randomScenario(o.Seed)
	}
	for _, s := range scenarios {
		if s.name == o.Scenario {
			return s
		}
	}
	panic("no scenario " + o.Scenario)
}

// TestChild is the process that crashes. It does nothing unless the harness started it.
func TestChild(t *testing.T) {
	text, ordered := os.LookupEnv(orderVariable)
	if !ordered {
		return
	}
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Fatal(err)
	}
	journal, err := os.OpenFile(o.Journal, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	note := func(format string, args ...any) { fmt.Fprintf(journal, format+"\n", args...) }
	var mu sync.Mutex
	met := 0
	fault.Set(func(name string) {
		mu.Lock()
		defer mu.Unlock()
		note("met %s", name)
		if met++; met == o.DieAt || name == o.Point {
			note("point %s", name)
			if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
				panic(err)
			}
			select {} // dead before the next instruction of any durable step
		}
	})
	if o.MoveTo != "" {
		moveDatabase(t, o)
		return
	}
	w := nodetest.Start(t, o.options())
	for _, s := range o.scenario().steps {
		s.do(w)
		note("done %s", s.name)
		if o.Seed == 0 { // so that the n-th point is the same one in every run
			waitForBackgroundWork(t, w)
		}
	}
	waitForBackgroundWork(t, w)
	w.Stop()
	if !t.Failed() {
		note("clean")
	}
}

// waitForBackgroundWork waits until every roll has ended and no upkeep is left.
func waitForBackgroundWork(t *testing.T, w *nodetest.World) {
	t.Helper()
	rolls, err := w.Client.ListRolls(t.Context(), api.ListInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rolls.Items {
		if w.WaitRoll(r.PolicyID).State == api.RollFailed {
			t.Errorf("a roll failed: %s", r.Message)
		}
	}
	w.WaitPurges()
	w.Node.Upkeep.Wait()
}

// death describes how a child ended.
type death struct {
	clean bool
	point string // where it died
	met   []string
	done  int // steps that were acknowledged
}

// run runs a child on a data folder.
func run(t *testing.T, o order) death {
	t.Helper()
	o.Journal = o.Data + ".journal"
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), self, "-test.run=^TestChild$")
	child.Env = append(os.Environ(), orderVariable+"="+string(text))
	out, err := child.CombinedOutput()
	var exit *exec.ExitError
	killed := errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
	if err != nil && !killed {
		t.Fatalf("the child that was to die at point %d: %v\n%s", o.DieAt, err, out)
	}
	var d death
	journal, err := os.ReadFile(o.Journal)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(journal)) {
		line = strings.TrimSuffix(line, "\n")
		switch kind, rest, _ := strings.Cut(line, " "); kind {
		case "met":
			d.met = append(d.met, rest)
		case "point":
			d.point = rest
		case "done":
			d.done++
		case "clean":
			d.clean = true
		}
	}
	if d.clean == killed || killed != (d.point != "") {
		t.Fatalf("the child that was to die at point %d: killed %v, journal:\n%s", o.DieAt, killed, journal)
	}
	return d
}

// reopen starts a node on the data folder after a crash and checks that nothing is lost
// and nothing is half done.
func reopen(t *testing.T, o order, d death, before model) {
	t.Helper()
	w := nodetest.Start(t, o.options())
	waitForBackgroundWork(t, w)
	s := o.scenario()
	now := before.clone()
	for _, acknowledged := range s.steps[:d.done] {
		acknowledged.then(&now)
	}
	allowed := []model{now}
	if d.done < len(s.steps) {
		under := s.steps[d.done]
		next := now.clone()
		under.then(&next)
		allowed = append(allowed, next)
		if under.partly != nil {
			part := now.clone()
			under.partly(&part)
			allowed = append(allowed, part)
		}
	}
	seen := view(t, w)
	fits := false
	for _, m := range allowed {
		fits = fits || reflect.DeepEqual(seen, m)
	}
	if !fits {
		t.Errorf("after %d of %d steps a user sees\n%+v\nnot one of\n%+v", d.done, len(s.steps), seen, allowed)
	}
	if s.closes {
		if v := w.Verify(); len(v.Damaged) > 0 {
			t.Errorf("verify: %+v", v.Damaged)
		}
	} else {
		w.VerifyClean()
	}
	checkSettled(t, w)
	if d.done < len(s.steps) && s.steps[d.done].again != nil {
		s.steps[d.done].again(t, w, seen)
	}
	if s.atRest != nil {
		s.atRest(t, w)
	}
	w.Stop()
}

// checkSettled checks what must hold once everything has been read and no roll and no
// upkeep is left.
func checkSettled(t *testing.T, w *nodetest.World) {
	t.Helper()
	w.Node.Upkeep.Wait()
	if _, err := w.Client.CollectBlobs(t.Context(), api.CollectBlobsInput{}, nil); err != nil { // what was dropped
		t.Fatal(err)
	}
	mailboxes, err := w.Client.ListMailboxes(t.Context(), api.ListInput{PageInput: api.PageInput{Limit: 1000}})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mailboxes.Items {
		checkUnderNewestKey(t, w, m.Name, m.Protection)
	}
	sites, err := w.Client.ListSites(t.Context(), api.ListInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sites.Items {
		checkUnderNewestKey(t, w, s.URL, s.Protection)
	}
	stores, err := w.Client.ListWorkloads(t.Context(), api.ListInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range stores.Items {
		checkUnderNewestKey(t, w, s.Name, s.Protection)
	}
	// Each of these counts rows that must not exist.
	for what, query := range map[string]string{
		"container key pages beside those that containers point to": `SELECT count(*) FROM key_page k WHERE class <> 8
			AND count <> (SELECT count(*) FROM container c WHERE c.page = k.id AND c.class = k.class)`,
		"containers that point to no key page": `SELECT count(*) FROM container WHERE page NOT IN (SELECT id FROM key_page)`,
		"blob key pages beside those that blobs point to": `SELECT count(*) FROM key_page k WHERE class = 8
			AND count <> (SELECT count(*) FROM blob b JOIN item i ON i.id = b.item WHERE b.page = k.id AND i.container = k.parent)`,
		"blobs that point to no key page":   `SELECT count(*) FROM blob WHERE page NOT IN (SELECT id FROM key_page)`,
		"items of no container":             `SELECT count(*) FROM item WHERE container NOT IN (SELECT id FROM container)`,
		"copies half way":                   `SELECT count(*) FROM unfinished`,
		"blobs that wait to go":             `SELECT count(*) FROM dropped`,
		"backups that are none":             `SELECT count(*) FROM backup WHERE id NOT IN (SELECT id FROM container WHERE kind = 'backup')`,
		"items without a blob":              `SELECT count(*) FROM item WHERE id NOT IN (SELECT item FROM blob)`,
		"policy keys without one kept wrap": `SELECT count(*) FROM policy p WHERE left_at = 0 AND p.purge < 2 AND (SELECT count(*) FROM revision r WHERE r.policy_key = p.current AND r.erased = 0) <> 1`,
		"wraps of policies that were left":  `SELECT count(*) FROM revision r JOIN policy p ON p.id = r.policy WHERE p.left_at <> 0 AND r.erased = 0`,
		"wraps of a purged policy":          `SELECT count(*) FROM revision r JOIN policy p ON p.id = r.policy WHERE p.purge = 2 AND r.erased = 0`,
		"rolls that have not ended":         `SELECT count(*) FROM roll WHERE state NOT IN ('finished', 'superseded')`,
	} {
		var n int
		err := w.Node.DB.ViewOnce(t.Context(), func(tx *store.Tx) error { return tx.QueryRow(t.Context(), query).Scan(&n) })
		if err != nil || n != 0 {
			t.Errorf("%s: %d (%v)", what, n, err)
		}
	}
	left, err := filepath.Glob(filepath.Join(w.Data, "blobs", "tmp", "*", "*"))
	left = slices.DeleteFunc(left, func(path string) bool { return filepath.Base(path) == "lock" })
	if err != nil || len(left) > 0 {
		t.Errorf("unfinished blobs are left: %q %v", left, err)
	}
}

// checkUnderNewestKey checks that the containers that were read are under the newest policy key, and
// that their DataEncryptionPolicyID belongs to their policy.
func checkUnderNewestKey(t *testing.T, w *nodetest.World, name string, p api.Protection) {
	t.Helper()
	if !p.Current {
		t.Errorf("%s was read and is not under the current policy key of %q", name, p.Policy)
	}
	policy, err := w.Client.ShowPolicy(t.Context(), api.PolicyInput{Policy: p.DataEncryptionPolicyID})
	if err != nil || policy.Name != p.Policy || policy.Revision != p.DataEncryptionPolicyID {
		t.Errorf("%s: DataEncryptionPolicyID %s names %q, not %q (%v)", name, p.DataEncryptionPolicyID, policy.Name, p.Policy, err)
	}
}

// prepared is a data folder that scenarios are tried on copies of.
type prepared struct {
	data     string
	database string // PostgreSQL that is copied too; default: in the data folder
	seen     model
}

// empty is what the first start of a node finds, on the database that tests run on.
func empty(t *testing.T) prepared {
	t.Helper()
	p := prepared{seen: newModel()}
	if storetest.OnPostgres() {
		p.database = storetest.EmptyPostgresURL(t)
	}
	return p
}

// copyDatabase returns a copy of its database.
func (p prepared) copyDatabase(t *testing.T) string {
	t.Helper()
	if p.database == "" {
		return ""
	}
	return storetest.CopyPostgres(t, p.database)
}

// expireLeases ends the leases of a node that was killed, for which the next one would wait.
func expireLeases(t *testing.T, database string) {
	t.Helper()
	if database == "" {
		return
	}
	if err := storetest.Open(t, database).InTx(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(t.Context(), `UPDATE lease SET until = 0`)
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// runSteps does steps on a copy of from.
func runSteps(t *testing.T, from prepared, steps []step) prepared {
	t.Helper()
	p := prepared{filepath.Join(t.TempDir(), "prepared"), from.copyDatabase(t), from.seen.clone()}
	if from.data != "" {
		nodetest.CopyFolder(t, from.data, p.data)
	}
	w := nodetest.Start(t, node.Options{Data: p.data, Database: p.database, PageSlots: options.PageSlots})
	for _, s := range steps {
		s.do(w)
		s.then(&p.seen)
		waitForBackgroundWork(t, w)
	}
	w.Stop()
	return p
}

// crashOnce crashes one child on a copy of a prepared folder and checks the result.
func crashOnce(t *testing.T, p prepared, o order) death {
	t.Helper()
	dir, err := os.MkdirTemp("", "keyroll-crashtest-")
	if err != nil {
		t.Fatal(err)
	}
	o.Data = filepath.Join(dir, "data")
	if !o.scenario().fresh {
		nodetest.CopyFolder(t, p.data, o.Data)
	}
	var d death
	ok := t.Run(fmt.Sprintf("%d %s", o.DieAt, o.Point), func(t *testing.T) {
		o.Database = p.copyDatabase(t)
		d = run(t, o)
		t.Logf("it died at %q", d.point)
		expireLeases(t, o.Database)
		reopen(t, o, d, p.seen)
	})
	if !ok {
		t.Logf("the data folder that was left is kept in %s", dir)
		return d
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
	return d
}
