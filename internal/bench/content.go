package bench

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/fail"
	"keyroll/internal/items"
	"keyroll/internal/node"
)

// ContentResult is the result of a benchmark of one large file: medians, rates in bytes
// per second.
type ContentResult struct {
	RatioPutToCopy       float64 `json:"ratioPutToCopy"`
	RatioGetToCopy       float64 `json:"ratioGetToCopy"`
	RatioGetToDiskToCopy float64 `json:"ratioGetToDiskToCopy"`
	PutAboveIdleBytes    int64   `json:"putAboveIdleBytes"` // peak, over all rounds
	GetAboveIdleBytes    int64   `json:"getAboveIdleBytes"`
	IdleBytes            int64   `json:"idleBytes"`
	PutPerSecond         float64 `json:"putPerSecond"`
	GetPerSecond         float64 `json:"getPerSecond"`       // received by the client and discarded
	GetToDiskPerSecond   float64 `json:"getToDiskPerSecond"` // received, written to the same disk with fsync
	CopyPerSecond        float64 `json:"copyPerSecond"`
	SealPerSecond        float64 `json:"sealPerSecond"`
	OpenPerSecond        float64 `json:"openPerSecond"`
	Size                 int64   `json:"size"`
	Path                 string  `json:"path"` // the layers between the file and the disk
	BytesEqual           bool    `json:"bytesEqual"`
	Base
}

// contentSetUp makes a site under a policy of its own, with vaults of its own.
const contentSetUp = `
New-AzKeyVault -VaultName sites-a -ResourceGroupName bench -Location here -EnablePurgeProtection
New-AzKeyVault -VaultName sites-b -ResourceGroupName bench -Location there -EnablePurgeProtection
Set-AzKeyVaultAccessPolicy -VaultName sites-a -PermissionsToKeys wrapKey,unwrapKey,get -ServicePrincipalName 00000003-0000-0ff1-ce00-000000000000
Set-AzKeyVaultAccessPolicy -VaultName sites-b -PermissionsToKeys wrapKey,unwrapKey,get -ServicePrincipalName 00000003-0000-0ff1-ce00-000000000000
$a = Add-AzKeyVaultKey -VaultName sites-a -Name key -Destination HSM -KeyOps @('wrapKey','unwrapKey')
$b = Add-AzKeyVaultKey -VaultName sites-b -Name key -Destination HSM -KeyOps @('wrapKey','unwrapKey')
Register-SPODataEncryptionPolicy -PrimaryKeyVaultName sites-a -PrimaryKeyName key -PrimaryKeyVersion $a.Version -SecondaryKeyVaultName sites-b -SecondaryKeyName key -SecondaryKeyVersion $b.Version
New-SPOSite -Url ` + benchSite

const benchSite = "https://contoso.sharepoint.com/sites/bench"

// contentPath names the layers that the bytes pass in both directions; the measurements
// of the upper bounds have none of them.
const contentPath = "client, TLS 1.3, HTTP/2 to put and HTTP/1.1 to get, node; in one process on the same cores"

// Content stores a file of o.ItemSize bytes in a site of a new node and reads it back,
// in interleaved rounds with a plain copy of the same file and the cryptography only.
// It compares the file that was read with the one that was stored.
func Content(ctx context.Context, o Options) (r ContentResult, err error) {
	o.Containers, o.Items = 1, 1
	if err := o.checkItems(); err != nil {
		return r, err
	}
	databases, drop, err := o.databases(ctx, 1)
	if err != nil {
		return r, err
	}
	defer drop(&err)
	n, err := node.Start(ctx, node.Options{Data: filepath.Join(o.Data, "content"), Database: databases[0], PageSlots: o.PageSlots, Idle: true})
	if err != nil {
		return r, err
	}
	defer n.Close()
	if err := o.Script(ctx, n, contentSetUp); err != nil {
		return r, err
	}
	k, err := o.Client(n)
	if err != nil {
		return r, err
	}
	defer k.Close()
	t := transfers{client: k, size: o.ItemSize, source: filepath.Join(o.Data, "source"), target: filepath.Join(o.Data, "target"),
		in: api.FileInput{SiteInput: api.SiteInput{Site: benchSite}, Path: "file"}}
	o.Progress(fmt.Sprintf("make a file of %d bytes", t.size))
	if err := t.make(); err != nil {
		return r, err
	}
	if err := t.warm(ctx); err != nil {
		return r, err
	}
	if r.IdleBytes, err = idleRSS(); err != nil {
		return r, err
	}
	s := series{}
	for round := range o.Rounds {
		o.Progress(roundOf(round, o.Rounds))
		if err := t.round(ctx, s, &r); err != nil {
			return r, err
		}
	}
	if r.BytesEqual, err = t.equal(); err != nil {
		return r, err
	}
	if !r.BytesEqual {
		return r, fail.New(api.Damaged, "the file that was read differs from the file that was stored")
	}
	r.Size, r.Path = t.size, contentPath
	r.PutPerSecond, r.GetPerSecond, r.GetToDiskPerSecond, r.CopyPerSecond = s.median("putPerSecond"), s.median("getPerSecond"), s.median("getToDiskPerSecond"), s.median("copyPerSecond")
	r.SealPerSecond, r.OpenPerSecond = s.median("sealPerSecond"), s.median("openPerSecond")
	r.RatioPutToCopy, r.RatioGetToCopy, r.RatioGetToDiskToCopy = s.median("ratioPutToCopy"), s.median("ratioGetToCopy"), s.median("ratioGetToDiskToCopy")
	w := fixture{Node: n, options: o}
	r.Base, err = w.base(ctx, s)
	return r, err
}

// round measures one round and adds it to s, and the peaks to r.
func (t transfers) round(ctx context.Context, s series, r *ContentResult) error {
	copied, err := t.perSecond(t.copy)
	if err != nil {
		return err
	}
	sealed, opened, err := aead(t.size, items.BlobSize)
	if err != nil {
		return err
	}
	s.add("copyPerSecond", copied)
	s.add("sealPerSecond", sealed)
	s.add("openPerSecond", opened)
	for _, way := range []struct {
		name, ratio string
		above       *int64
		move        func() error
	}{
		{"putPerSecond", "ratioPutToCopy", &r.PutAboveIdleBytes, func() error { return t.put(ctx) }},
		{"getPerSecond", "ratioGetToCopy", &r.GetAboveIdleBytes, func() error { return t.get(ctx, io.Discard) }},
		{"getToDiskPerSecond", "ratioGetToDiskToCopy", &r.GetAboveIdleBytes, func() error { return t.getToDisk(ctx) }},
	} {
		var moved float64
		peak, err := peakOf(func() (err error) { moved, err = t.perSecond(way.move); return err })
		if err != nil {
			return err
		}
		*way.above = max(*way.above, peak-r.IdleBytes)
		s.add(way.name, moved)
		s.add(way.ratio, moved/copied)
	}
	return nil
}

// transfers stores, reads and copies one file.
type transfers struct {
	client         *client.Client
	in             api.FileInput
	size           int64
	source, target string // files on the disk that is measured
}

// make writes the source file with random bytes, because a disk may not write zeros.
func (t transfers) make() error {
	return writeSynced(t.source, func(w *os.File) error {
		buf := make([]byte, 1<<20)
		for left := t.size; left > 0; {
			rand.Read(buf)
			n, err := w.Write(buf[:min(left, int64(len(buf)))])
			if err != nil {
				return err
			}
			left -= int64(n)
		}
		return nil
	})
}

// warm does a small transfer in each direction, so that one-time costs are not measured.
func (t transfers) warm(ctx context.Context) error {
	in := t.in
	in.Path = "warm"
	small := io.LimitReader(rand.Reader, 1<<20)
	if _, err := t.client.PutFile(ctx, in, 1<<20, small); err != nil {
		return err
	}
	r, err := t.client.GetFile(ctx, in, 0, -1)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(io.Discard, r)
	return err
}

// copy is the upper bound: io.Copy from file to file, with fsync.
func (t transfers) copy() error {
	from, err := os.Open(t.source)
	if err != nil {
		return err
	}
	defer from.Close()
	return writeSynced(t.target, func(w *os.File) error {
		_, err := io.Copy(w, from)
		return err
	})
}

func (t transfers) put(ctx context.Context) error {
	from, err := os.Open(t.source)
	if err != nil {
		return err
	}
	defer from.Close()
	_, err = t.client.PutFile(ctx, t.in, t.size, from)
	return err
}

func (t transfers) get(ctx context.Context, w io.Writer) error {
	r, err := t.client.GetFile(ctx, t.in, 0, -1)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(w, r)
	return err
}

// getToDisk writes to the disk, as copy does.
func (t transfers) getToDisk(ctx context.Context) error {
	return writeSynced(t.target, func(w *os.File) error { return t.get(ctx, w) })
}

func (t transfers) perSecond(move func() error) (float64, error) {
	begin := time.Now()
	err := move()
	return float64(t.size) / time.Since(begin).Seconds(), err
}

// equal compares the last file that was read with the source.
func (t transfers) equal() (bool, error) {
	var sums [2][sha256.Size]byte
	for i, name := range []string{t.source, t.target} {
		f, err := os.Open(name)
		if err != nil {
			return false, err
		}
		h := sha256.New()
		_, err = io.Copy(h, f)
		f.Close()
		if err != nil {
			return false, err
		}
		h.Sum(sums[i][:0])
	}
	return sums[0] == sums[1], nil
}

// writeSynced makes a new file with the content that write writes, and calls fsync.
func writeSynced(name string, write func(w *os.File) error) error {
	if err := os.RemoveAll(name); err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if err = write(f); err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}
