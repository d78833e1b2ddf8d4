// Package bench measures keyroll beside its own limits, in the same run, on
// the same disk, with the same driver and durability.
//
// A figure of it is a rate and a ratio, never a verdict. What is measured is
// what serve runs: the same node, the same roller, the same schema. Start
// reading at Roll.
package bench

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/container"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/keypage"
	"keyroll/internal/node"
	"keyroll/internal/policy"
	"keyroll/internal/roll"
	"keyroll/internal/store"
)

// Rounds is how many interleaved rounds a benchmark takes.
const Rounds = 5

// RollOptions say what is rolled and where.
type RollOptions struct {
	Data       string // folder on the disk to measure
	Database   string // URL of a PostgreSQL database; SQLite under Data unless set
	Containers int
	PageSlots  int
	// Script runs cmdlet lines against a node.
	Script func(ctx context.Context, n *node.Node, text string) error
	// Client connects to a node.
	Client   func(n *node.Node) (*client.Client, error)
	Progress func(stage string)
}

// Figure is a rate over all rounds, in containers a second.
type Figure struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// RollResult is what a roll benchmark measured. The rates are medians in
// containers a second; the ratios are medians of the ratios within each round.
type RollResult struct {
	Containers         int     `json:"containers"`
	PerSecond          float64 `json:"perSecond"`
	CryptoPerSecond    float64 `json:"cryptoPerSecond"`
	PagesPerSecond     float64 `json:"pagesPerSecond"`
	RowByRowPerSecond  float64 `json:"rowByRowPerSecond"`
	RatioToPages       float64 `json:"ratioToPages"`
	RatioToRowByRow    float64 `json:"ratioToRowByRow"`
	PeakRSSBytes       int64   `json:"peakRSSBytes"`
	Seconds            float64 `json:"seconds"` // one roll, median
	RootSeconds        float64 `json:"rootSeconds"`
	Pages              int64   `json:"pages"`
	PageSlots          int     `json:"pageSlots"`
	Database           string  `json:"database"`
	Durability         string  `json:"durability"`
	Rounds             int     `json:"rounds"`
	Range              Ranges  `json:"range"`
	KeysOpenedAndEqual int64   `json:"keysOpenedAndEqual"`
}

// Ranges are the figures behind the medians.
type Ranges struct {
	PerSecond, CryptoPerSecond, PagesPerSecond, RowByRowPerSecond, RatioToPages, RatioToRowByRow Figure
}

const setUp = `
New-AzKeyVault -VaultName bench-a -ResourceGroupName bench -Location here -EnablePurgeProtection
New-AzKeyVault -VaultName bench-b -ResourceGroupName bench -Location there -EnablePurgeProtection
Set-AzKeyVaultAccessPolicy -VaultName bench-a -PermissionsToKeys wrapKey,unwrapKey,get -ServicePrincipalName 00000002-0000-0ff1-ce00-000000000000
Set-AzKeyVaultAccessPolicy -VaultName bench-b -PermissionsToKeys wrapKey,unwrapKey,get -ServicePrincipalName 00000002-0000-0ff1-ce00-000000000000
$a = Add-AzKeyVaultKey -VaultName bench-a -Name key -Destination HSM -KeyOps @('wrapKey','unwrapKey')
$b = Add-AzKeyVaultKey -VaultName bench-b -Name key -Destination HSM -KeyOps @('wrapKey','unwrapKey')
New-DataEncryptionPolicy -Name bench -AzureKeyIDs "https://bench-a.vault.localhost/keys/key", "https://bench-b.vault.localhost/keys/key"
`

const newVersion = `Add-AzKeyVaultKey -VaultName bench-a -Name key -Destination HSM -KeyOps @('wrapKey','unwrapKey')`

// world is one node with its containers under one policy.
type world struct {
	*node.Node
	options RollOptions
	client  *client.Client
	roller  *roll.Roller
}

// Roll fills a database with containers, rolls them in interleaved rounds
// beside the limits, and opens every key once more.
func Roll(ctx context.Context, o RollOptions) (r RollResult, err error) {
	if o.Containers < 1 {
		return r, fail.New(api.InvalidArgument, "%d containers cannot be rolled; name at least 1", o.Containers)
	}
	databases, drop, err := o.databases(ctx)
	if err != nil {
		return r, err
	}
	defer func() {
		if dropped := drop(); err == nil {
			err = dropped
		}
	}()
	o.Progress(fmt.Sprintf("fill %d mailboxes", o.Containers))
	full, err := start(ctx, o, "roll", databases[0], nil)
	if err != nil {
		return r, err
	}
	defer full.Close()
	bare, err := start(ctx, o, "pages", databases[1], otherBytes)
	if err != nil {
		return r, err
	}
	defer bare.Close()
	o.Progress("fill the rows of the peer")
	rows, err := newRows(ctx, bare.DB, full.Tenant.ID, o.Containers)
	if err != nil {
		return r, err
	}
	before, _, err := full.digest(ctx)
	if err != nil {
		return r, err
	}
	sample, err := full.sample(ctx)
	if err != nil {
		return r, err
	}
	var per, crypto, pages, byRow, toPages, toRows, seconds, root []float64
	for round := range Rounds {
		o.Progress(fmt.Sprintf("round %d of %d", round+1, Rounds))
		c := cryptography(sample, o.Containers)
		p, _, err := bare.roll(ctx)
		if err != nil {
			return r, err
		}
		w, err := rows.roll(ctx)
		if err != nil {
			return r, err
		}
		d, took, err := full.roll(ctx)
		if err != nil {
			return r, err
		}
		rooted, err := full.root(ctx)
		if err != nil {
			return r, err
		}
		per, crypto, pages, byRow = append(per, d), append(crypto, c), append(pages, p), append(byRow, w)
		toPages, toRows = append(toPages, d/p), append(toRows, d/w)
		seconds, root = append(seconds, took.Seconds()), append(root, rooted.Seconds())
	}
	o.Progress("open every key once more")
	after, opened, err := full.digest(ctx)
	if err != nil {
		return r, err
	}
	if before != after || opened != int64(o.Containers) {
		return r, fail.New(api.Damaged, "the keys after the rolls are not the keys before: %d of %d opened", opened, o.Containers)
	}
	r = RollResult{Containers: o.Containers, PageSlots: o.PageSlots, Rounds: Rounds, KeysOpenedAndEqual: opened,
		Seconds: figure(seconds).Median, RootSeconds: figure(root).Median,
		Range: Ranges{figure(per), figure(crypto), figure(pages), figure(byRow), figure(toPages), figure(toRows)}}
	r.PerSecond, r.CryptoPerSecond, r.PagesPerSecond, r.RowByRowPerSecond = r.Range.PerSecond.Median, r.Range.CryptoPerSecond.Median, r.Range.PagesPerSecond.Median, r.Range.RowByRowPerSecond.Median
	r.RatioToPages, r.RatioToRowByRow = r.Range.RatioToPages.Median, r.Range.RatioToRowByRow.Median
	if r.Pages, err = full.pages(ctx); err != nil {
		return r, err
	}
	if r.Database, r.Durability, err = durability(ctx, full.DB); err != nil {
		return r, err
	}
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return r, err
	}
	r.PeakRSSBytes = usage.Maxrss << 10 // Linux counts in KiB
	return r, nil
}

func figure(values []float64) Figure {
	s := slices.Sorted(slices.Values(values))
	return Figure{Median: s[len(s)/2], Min: s[0], Max: s[len(s)-1]}
}

// start runs a node of its own with o.Containers mailboxes under one policy.
func start(ctx context.Context, o RollOptions, name, database string, reseal func(_, _ *envelope.Key, _, _ envelope.Place, _ []byte) ([]byte, error)) (*world, error) {
	n, err := node.Start(ctx, node.Options{Data: filepath.Join(o.Data, name), Database: database, PageSlots: o.PageSlots, Still: true})
	if err != nil {
		return nil, err
	}
	w := &world{Node: n, options: o}
	if err := w.fill(ctx); err != nil {
		n.Close()
		return nil, err
	}
	w.roller = roll.New(roll.Config{DB: n.DB, Policies: n.Policies, Reseal: reseal, Settled: func(int64, int64) {}, Now: time.Now})
	return w, nil
}

// otherBytes stands in for the cryptography: a body of the same size with
// another byte in each KiB, because a database need not write what is the same.
func otherBytes(_, _ *envelope.Key, _, _ envelope.Place, body []byte) ([]byte, error) {
	other := slices.Clone(body)
	for i := 0; i < len(other); i += 1 << 10 {
		other[i]++
	}
	return other, nil
}

// fillBatch is how many names are made at a time.
const fillBatch = 20_000

func (w *world) fill(ctx context.Context) (err error) {
	if w.client, err = w.options.Client(w.Node); err != nil {
		return err
	}
	if err := w.options.Script(ctx, w.Node, setUp); err != nil {
		return err
	}
	pol, err := w.policy(ctx)
	if err != nil {
		return err
	}
	for made := 0; made < w.options.Containers; {
		names := make([]string, 0, fillBatch)
		for len(names) < fillBatch && made < w.options.Containers {
			names = append(names, fmt.Sprintf("user%d@contoso.com", made))
			made++
		}
		if err := w.Containers.CreateMany(ctx, w.Tenant.ID, container.Mailbox, names, pol.ID); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) policy(ctx context.Context) (pol policy.Policy, err error) {
	err = w.DB.View(ctx, func(tx *store.Tx) (err error) {
		pol, err = w.Policies.Find(ctx, tx, w.Tenant.ID, "bench")
		return err
	})
	return pol, err
}

// roll refreshes the policy and times the roll that follows, from its first
// page to the commit of its end.
func (w *world) roll(ctx context.Context) (perSecond float64, took time.Duration, err error) {
	if err := w.refresh(ctx, api.DepthPolicy); err != nil {
		return 0, 0, err
	}
	pol, err := w.policy(ctx)
	if err != nil {
		return 0, 0, err
	}
	var ro roll.Roll
	err = w.DB.View(ctx, func(tx *store.Tx) (err error) {
		ro, _, err = roll.Latest(ctx, tx, w.Tenant.ID, pol.ID)
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	begin := time.Now()
	if waits, err := w.roller.Work(ctx, ro); err != nil || waits {
		return 0, 0, fmt.Errorf("the roll did not finish (waits: %v): %w", waits, err)
	}
	took = time.Since(begin)
	return float64(w.options.Containers) / took.Seconds(), took, nil
}

// root adds a key version and times a refresh at depth root, vault included.
func (w *world) root(ctx context.Context) (time.Duration, error) {
	if err := w.options.Script(ctx, w.Node, newVersion); err != nil {
		return 0, err
	}
	begin := time.Now()
	err := w.ask(ctx, api.DepthRoot)
	return time.Since(begin), err
}

func (w *world) refresh(ctx context.Context, depth api.Depth) error {
	if err := w.options.Script(ctx, w.Node, newVersion); err != nil {
		return err
	}
	return w.ask(ctx, depth)
}

func (w *world) ask(ctx context.Context, depth api.Depth) error {
	in := api.RefreshPolicyInput{PolicyInput: api.PolicyInput{Policy: "bench"}}
	in.Body.Depth = depth
	_, err := w.client.RefreshPolicy(ctx, in)
	return err
}

// walk hands every key page of the mailboxes to f, with its opened parent key.
func (w *world) walk(ctx context.Context, f func(row keypage.Row, key *envelope.Key) (more bool, err error)) error {
	pol, err := w.policy(ctx)
	if err != nil {
		return err
	}
	key, err := w.Policies.Open(ctx, w.Tenant.ID, pol.Current.ID)
	if err != nil {
		return err
	}
	defer key.Zero()
	parents := []keypage.Parent{{ID: pol.Current.ID, Generation: pol.Current.Generation}}
	for after := int64(0); ; {
		var rows []keypage.Row
		err := w.DB.View(ctx, func(tx *store.Tx) (err error) {
			rows, err = keypage.Under(ctx, tx, w.Tenant.ID, parents, []envelope.Class{envelope.ClassActive}, after, 32)
			return err
		})
		if err != nil || len(rows) == 0 {
			return err
		}
		after = rows[len(rows)-1].ID
		for _, row := range rows {
			if more, err := f(row, key); err != nil || !more {
				return err
			}
		}
	}
}

// digest opens every key and returns an order-free digest of who has which.
func (w *world) digest(ctx context.Context) (sum [sha256.Size]byte, keys int64, err error) {
	err = w.walk(ctx, func(row keypage.Row, key *envelope.Key) (bool, error) {
		page, err := envelope.OpenPage(key, row.Place(), row.Body)
		if err != nil {
			return false, err
		}
		defer page.Zero()
		for _, slot := range page.Slots() {
			one := sha256.Sum256(binary.BigEndian.AppendUint64(slot.Key.Bytes(), uint64(slot.Child)))
			for i := range sum {
				sum[i] ^= one[i]
			}
			keys++
		}
		return true, nil
	})
	return sum, keys, err
}

func (w *world) pages(ctx context.Context) (n int64, err error) {
	err = w.walk(ctx, func(keypage.Row, *envelope.Key) (bool, error) { n++; return true, nil })
	return n, err
}

// folder makes a folder of a benchmark's own on the disk of parent.
func Folder(parent string) (dir string, remove func() error, err error) {
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return "", nil, err
	}
	if dir, err = os.MkdirTemp(parent, "bench-*"); err != nil {
		return "", nil, err
	}
	return dir, func() error { return os.RemoveAll(dir) }, nil
}
