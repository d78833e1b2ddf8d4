package bench

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/fail"
	"keyroll/internal/store"
)

// ContainerResult is the result of a benchmark of depth container: medians, rates in
// blob keys per second.
type ContainerResult struct {
	RatioToRowByRow    float64 `json:"ratioToRowByRow"`
	PerSecond          float64 `json:"perSecond"`
	RowByRowPerSecond  float64 `json:"rowByRowPerSecond"`
	CryptoPerSecond    float64 `json:"cryptoPerSecond"`
	Containers         int     `json:"containers"`
	Items              int     `json:"items"` // of each container
	PageSlots          int     `json:"pageSlots"`
	Seconds            float64 `json:"seconds"`      // of one roll
	PeakRSSBytes       int64   `json:"peakRSSBytes"` // of a roll, over all rounds
	KeysOpenedAndEqual int64   `json:"keysOpenedAndEqual"`
	Base
}

// Container rolls mailboxes at depth container, and for comparison the same keys with
// one key per row, and decrypts every blob key again at the end. No content is read at
// this depth, so there is none.
func Container(ctx context.Context, o Options) (r ContainerResult, err error) {
	o.ItemSize = 1
	if err := o.checkItems(); err != nil {
		return r, err
	}
	databases, drop, err := o.databases(ctx, 2)
	if err != nil {
		return r, err
	}
	defer drop(&err)
	keys := o.Containers * o.Items
	o.Progress(fmt.Sprintf("fill %d mailboxes with %d messages each", o.Containers, o.Items))
	w, err := start(ctx, o, "roll", databases[0])
	if err != nil {
		return r, err
	}
	defer w.Close()
	if err := w.fillItems(ctx, o.Items); err != nil {
		return r, err
	}
	o.Progress("fill the rows for comparison")
	rows, closeRows, err := o.openRows(ctx, databases[1], w.Tenant.ID, keys)
	if err != nil {
		return r, err
	}
	defer closeRows()
	before, err := w.blobKeys(ctx)
	if err != nil {
		return r, err
	}
	sample, err := newSample(ctx, w.blobPages)
	if err != nil {
		return r, err
	}
	s := series{}
	for round := range o.Rounds {
		o.Progress(roundOf(round, o.Rounds))
		s.add("cryptoPerSecond", cryptography(sample, keys))
		peak, err := w.containerRound(ctx, rows, keys, s)
		if err != nil {
			return r, err
		}
		r.PeakRSSBytes = max(r.PeakRSSBytes, peak)
	}
	o.Progress("decrypt every key again")
	after, err := w.blobKeys(ctx)
	if err != nil {
		return r, err
	}
	if err := checkSameKeys(before, after, int64(keys)); err != nil {
		return r, err
	}
	r.RatioToRowByRow, r.PerSecond, r.RowByRowPerSecond, r.CryptoPerSecond, r.Seconds = s.median("ratioToRowByRow"), s.median("perSecond"),
		s.median("rowByRowPerSecond"), s.median("cryptoPerSecond"), s.median("seconds")
	r.Containers, r.Items, r.PageSlots, r.KeysOpenedAndEqual = o.Containers, o.Items, o.PageSlots, after.keys
	r.Base, err = w.base(ctx, s)
	return r, err
}

// containerRound measures one roll at depth container beside the row-by-row comparison. It
// returns the peak of memory.
func (w *fixture) containerRound(ctx context.Context, rows *rows, keys int, s series) (peak int64, err error) {
	byRow, err := rows.roll(ctx)
	if err != nil {
		return 0, err
	}
	before, err := w.containerKeys(ctx)
	if err != nil {
		return 0, err
	}
	var took time.Duration
	peak, err = peakOf(func() (err error) { took, err = w.roll(ctx, api.DepthContainer, api.RollOptions{}); return err })
	if err != nil {
		return 0, err
	}
	if now, err := w.containerKeys(ctx); err != nil {
		return 0, err
	} else if now.keys != int64(w.options.Containers) || now.sum == before.sum {
		return 0, fail.New(api.Damaged, "after the roll the containers have the same keys as before, or keys are missing: %d decrypted", now.keys)
	}
	s.add("seconds", took.Seconds())
	s.add("perSecond", perSecond(keys, took))
	s.add("rowByRowPerSecond", byRow)
	s.add("ratioToRowByRow", perSecond(keys, took)/byRow)
	return peak, nil
}

// openRows fills the rows for comparison in a new database.
func (o Options) openRows(ctx context.Context, database string, tenant int64, n int) (*rows, func() error, error) {
	b := bulk{database: database}
	var err error
	if b.db, err = o.openEmpty(ctx, database); err != nil {
		return nil, nil, err
	}
	r, err := newRows(ctx, b, tenant, n)
	if err != nil {
		b.db.Close()
		return nil, nil, err
	}
	return r, b.db.Close, nil
}

// openEmpty opens a new database with the schema of a node, which has no node.
func (o Options) openEmpty(ctx context.Context, database string) (*store.DB, error) {
	if database == "" {
		database = "sqlite://" + filepath.Join(o.Data, "rows.db")
	}
	return store.Open(ctx, database)
}

// RecryptResult is the result of a benchmark of depth content: medians, rates in bytes
// of content per second. LimitsPerSecond is the rate of decrypting, encrypting and
// copying in sequence.
type RecryptResult struct {
	RatioToLimits   float64 `json:"ratioToLimits"`
	PerSecond       float64 `json:"perSecond"`
	LimitsPerSecond float64 `json:"limitsPerSecond"`
	OpenPerSecond   float64 `json:"openPerSecond"`
	SealPerSecond   float64 `json:"sealPerSecond"`
	CopyPerSecond   float64 `json:"copyPerSecond"`
	Containers      int     `json:"containers"`
	Items           int     `json:"items"` // of each container
	ItemSize        int64   `json:"itemSize"`
	Bytes           int64   `json:"bytes"`
	Seconds         float64 `json:"seconds"`      // of one roll
	PeakRSSBytes    int64   `json:"peakRSSBytes"` // of a roll, over all rounds
	Path            string  `json:"path"`         // the layers between the node and the blobs
	BytesEqual      bool    `json:"bytesEqual"`
	Base
}

// Recrypt rolls mailboxes at depth content, and for comparison runs the cryptography
// only and a plain copy of as many bytes. It reads all content again at the end.
func Recrypt(ctx context.Context, o Options) (r RecryptResult, err error) {
	if err := o.checkItems(); err != nil {
		return r, err
	}
	databases, drop, err := o.databases(ctx, 1)
	if err != nil {
		return r, err
	}
	defer drop(&err)
	bytes := int64(o.Containers) * int64(o.Items) * o.ItemSize
	o.Progress(fmt.Sprintf("fill %d mailboxes with %d messages of %d bytes each", o.Containers, o.Items, o.ItemSize))
	w, err := start(ctx, o, "roll", databases[0])
	if err != nil {
		return r, err
	}
	defer w.Close()
	if err := w.importAll(ctx, o.Containers); err != nil {
		return r, err
	}
	t := transfers{size: bytes, source: filepath.Join(o.Data, "source"), target: filepath.Join(o.Data, "target")}
	if err := t.make(); err != nil {
		return r, err
	}
	before, err := w.contentDigest(ctx)
	if err != nil {
		return r, err
	}
	s := series{}
	for round := range o.Rounds {
		o.Progress(roundOf(round, o.Rounds))
		peak, err := w.contentRound(ctx, t, s)
		if err != nil {
			return r, err
		}
		r.PeakRSSBytes = max(r.PeakRSSBytes, peak)
	}
	o.Progress("read everything again")
	after, err := w.contentDigest(ctx)
	if err != nil {
		return r, err
	}
	if before != after {
		return r, fail.New(api.Damaged, "the content after the rolls differs from the content before")
	}
	r = RecryptResult{RatioToLimits: s.median("ratioToLimits"), PerSecond: s.median("perSecond"), LimitsPerSecond: s.median("limitsPerSecond"),
		OpenPerSecond: s.median("openPerSecond"), SealPerSecond: s.median("sealPerSecond"), CopyPerSecond: s.median("copyPerSecond"),
		Seconds: s.median("seconds"), Containers: o.Containers, Items: o.Items, ItemSize: o.ItemSize, Bytes: bytes, PeakRSSBytes: r.PeakRSSBytes,
		Path: "no TLS: the node reads and writes a folder of blobs on the same disk", BytesEqual: true}
	r.Base, err = w.base(ctx, s)
	return r, err
}

// contentRound measures one roll at depth content beside the limits of its speed. It
// returns the peak of memory.
func (w *fixture) contentRound(ctx context.Context, t transfers, s series) (peak int64, err error) {
	copied, err := t.perSecond(t.copy)
	if err != nil {
		return 0, err
	}
	if err := os.Remove(t.target); err != nil {
		return 0, err
	}
	sealed, opened, err := aead(t.size, w.options.ItemSize)
	if err != nil {
		return 0, err
	}
	keys, err := w.blobKeys(ctx)
	if err != nil {
		return 0, err
	}
	var took time.Duration
	peak, err = peakOf(func() (err error) { took, err = w.roll(ctx, api.DepthContent, api.RollOptions{}); return err })
	if err != nil {
		return 0, err
	}
	if now, err := w.blobKeys(ctx); err != nil {
		return 0, err
	} else if now.keys != keys.keys || now.sum == keys.sum {
		return 0, fail.New(api.Damaged, "after the roll the blobs have the same keys as before, or keys are missing: %d of %d", now.keys, keys.keys)
	}
	per, limits := float64(t.size)/took.Seconds(), 1/(1/sealed+1/opened+1/copied)
	for name, value := range map[string]float64{"ratioToLimits": per / limits, "perSecond": per, "limitsPerSecond": limits,
		"openPerSecond": opened, "sealPerSecond": sealed, "copyPerSecond": copied, "seconds": took.Seconds()} {
		s.add(name, value)
	}
	return peak, nil
}

// contentDigest reads all mail and returns its digest.
func (w *fixture) contentDigest(ctx context.Context) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	for i := range w.options.Containers {
		c, err := w.Containers.Find(ctx, w.Tenant.ID, container.Mailbox, mailboxName(i))
		if err != nil {
			return sum, err
		}
		if err := w.Contents.Export(ctx, c, h); err != nil {
			return sum, err
		}
	}
	h.Sum(sum[:0])
	return sum, nil
}
