package bench

import (
	"bytes"
	"crypto/rand"
	"io"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"keyroll/internal/envelope"
)

// aead encrypts and decrypts size bytes in memory, in blobs of the given size and in
// segments as content has them, on all cores, and returns both rates in bytes per
// second.
func aead(size, blob int64) (seal, open float64, err error) {
	plain := make([]byte, min(size, blob))
	rand.Read(plain)
	ec, key := envelope.BlobContext{Tenant: 1, Blob: 1}, envelope.NewKey()
	var sealed bytes.Buffer
	if err := sealInto(&sealed, key, ec, plain); err != nil {
		return 0, 0, err
	}
	if seal, err = overBlobs(size, blob, func(n int64) error { return sealInto(io.Discard, envelope.NewKey(), ec, plain[:n]) }); err != nil {
		return 0, 0, err
	}
	open, err = overBlobs(size, blob, func(int64) error {
		_, err := io.Copy(io.Discard, envelope.NewReader(bytes.NewReader(sealed.Bytes()), key, ec, int64(len(plain))))
		return err
	})
	return seal, open, err
}

func sealInto(w io.Writer, key *envelope.Key, ec envelope.BlobContext, plain []byte) error {
	b := envelope.NewWriter(w, key, ec)
	if _, err := b.Write(plain); err != nil {
		return err
	}
	return b.Close()
}

// overBlobs runs work for each blob of size bytes, on all cores.
func overBlobs(size, blob int64, work func(bytes int64) error) (perSecond float64, err error) {
	var begun atomic.Int64
	var g errgroup.Group
	begin := time.Now()
	for range runtime.GOMAXPROCS(0) {
		g.Go(func() error {
			for {
				off := begun.Add(blob) - blob
				if off >= size {
					return nil
				}
				if err := work(min(blob, size-off)); err != nil {
					return err
				}
			}
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	return float64(size) / time.Since(begin).Seconds(), nil
}
