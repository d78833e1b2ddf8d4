package envelope

import (
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
	"sync"

	"keyroll/api"
	"keyroll/internal/fail"
)

// NewWriter returns a writer that seals a blob into w, one segment at a time, in
// constant memory. Close seals the last segment and does not close w; a blob
// whose writer was not closed cannot be read. A blob's key must not seal another
// blob; a blob that is written again after a failure may keep its key.
func NewWriter(w io.Writer, key *Key, p BlobContext) io.WriteCloser {
	b := &blobWriter{w: w, ec: p}
	b.aead, b.err = p.aead(key)
	if b.err != nil {
		b.err = fmt.Errorf("write %v: %w", p, b.err)
	}
	return b
}

type blobWriter struct {
	w      io.Writer
	ec     BlobContext
	aead   cipher.AEAD
	next   int64  // number of the segment that is collected in plain
	plain  []byte // not yet sealed: up to SegmentSize, since the last segment may be full
	used   int    // bytes of plain that have held plaintext
	sealed []byte
	// buffers are those of plain and sealed, nil before the first byte.
	buffers *buffers
	ad      []byte
	closed  bool
	err     error
}

var errClosed = errors.New("the writer is closed")

// Write buffers p, and seals a segment whenever there is more plaintext than it holds.
func (b *blobWriter) Write(p []byte) (n int, err error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.closed {
		return 0, fmt.Errorf("write %v: %w", b.ec, errClosed)
	}
	if b.plain == nil {
		b.buffers = writerBuffers.Get().(*buffers)
		b.plain, b.sealed = b.buffers.plain[:0], b.buffers.sealed
	}
	for len(p) > 0 {
		if len(b.plain) == SegmentSize {
			if b.err = b.seal(false); b.err != nil {
				return n, b.err
			}
		}
		m := min(len(p), SegmentSize-len(b.plain))
		b.plain = append(b.plain, p[:m]...)
		b.used = max(b.used, len(b.plain))
		p, n = p[m:], n+m
	}
	return n, nil
}

// Close seals the last segment. Another call does nothing and returns the same error.
func (b *blobWriter) Close() error {
	if b.closed {
		return b.err
	}
	b.closed = true
	if b.err == nil {
		b.err = b.seal(true)
	}
	if b.buffers != nil {
		clear(b.buffers.plain[:b.used])
		b.buffers.sealed = b.sealed
		writerBuffers.Put(b.buffers)
		b.plain, b.sealed, b.buffers = nil, nil, nil
	}
	return b.err
}

// buffers are those of a writer: a small blob would else cost as much as a segment.
type buffers struct {
	plain  [SegmentSize]byte
	sealed []byte
}

var writerBuffers = sync.Pool{New: func() any { return &buffers{} }}

func (b *blobWriter) seal(last bool) error {
	if b.next == maxSegments {
		return fail.New(api.TooLarge, "write %v: a blob holds at most %d bytes", b.ec, int64(MaxBlob))
	}
	b.sealed = b.sealed[:0]
	if b.next == 0 {
		b.sealed = append(b.sealed, blobHeader...)
	}
	b.ad = b.ec.additionalData(b.ad[:0], b.next, last)
	b.sealed = b.aead.Seal(b.sealed, nil, b.plain, b.ad)
	if _, err := b.w.Write(b.sealed); err != nil {
		return fmt.Errorf("write %v: %w", b.ec, err)
	}
	b.next++
	b.plain = b.plain[:0]
	return nil
}

// NewReader returns a reader of the plaintext, plainSize bytes, of the sealed
// blob r, which must be complete. Reading a blob that was truncated, extended,
// assembled from others or altered fails Damaged, naming the blob and the segment;
// bytes returned before that have been verified. An error of r itself is wrapped.
func NewReader(r io.Reader, key *Key, p BlobContext, plainSize int64) io.Reader {
	b := &blobReader{r: r, ec: p, plainSize: plainSize, end: segments(plainSize), left: plainSize, header: true}
	if plainSize < 0 || plainSize > MaxBlob {
		b.err = fail.New(api.Damaged, "read %v: its stated size of %d bytes is not possible", p, plainSize)
		return b
	}
	b.init(key)
	return b
}

// Range is the N bytes of a plaintext from Off on.
type Range struct{ Off, N int64 }

// NewRangeReader returns a reader of a range of a blob of plainSize bytes. r must
// deliver exactly SealedRange(plainSize, at.Off, at.N). It fails RangeNotSatisfiable if
// the range is not inside the blob; reading fails as for NewReader.
func NewRangeReader(r io.Reader, key *Key, p BlobContext, plainSize int64, at Range) (io.Reader, error) {
	off, n := at.Off, at.N
	if !inside(plainSize, off, n) {
		return nil, fail.New(api.RangeNotSatisfiable, "read %v: %[3]d bytes from offset %[2]d are not inside its %[4]d bytes", p, off, n, plainSize)
	}
	b := &blobReader{r: r, ec: p, plainSize: plainSize, left: n}
	if n > 0 {
		b.next, b.end = off/SegmentSize, (off+n-1)/SegmentSize+1
		b.skip = int(off % SegmentSize)
	}
	b.init(key)
	return b, b.err
}

type blobReader struct {
	r         io.Reader
	ec        BlobContext
	aead      cipher.AEAD
	plainSize int64
	header    bool   // whether the header comes next
	next, end int64  // segments still to read
	skip      int    // bytes of the next segment before the range
	left      int64  // bytes still to return
	sealed    []byte // buffer for one segment as stored
	opened    []byte // buffer for one segment as plaintext
	plain     []byte // the part of opened that has not been returned yet
	ad        []byte
	err       error
}

func (b *blobReader) init(key *Key) {
	b.aead, b.err = b.ec.aead(key)
	if b.err != nil {
		b.err = fmt.Errorf("read %v: %w", b.ec, b.err)
	}
}

// Read returns only bytes of segments that have been verified.
func (b *blobReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(b.plain) == 0 {
		if b.err == nil {
			b.err = b.open()
		}
		if b.err != nil {
			clear(b.opened)
			return 0, b.err
		}
	}
	n := copy(p, b.plain)
	b.plain = b.plain[n:]
	return n, nil
}

// open reads and decrypts the next segment. It returns io.EOF after the last.
func (b *blobReader) open() error {
	if b.header {
		if err := b.readHeader(); err != nil {
			return err
		}
	}
	if b.next == b.end {
		return io.EOF
	}
	last := b.next == segments(b.plainSize)-1
	size := int64(SegmentSize)
	if last {
		size = b.plainSize - b.next*SegmentSize
	}
	if b.sealed == nil {
		b.sealed = make([]byte, min(sealedSegment, b.plainSize+gcmOverhead))
		b.opened = make([]byte, min(SegmentSize, b.plainSize))
	}
	sealed := b.sealed[:size+gcmOverhead]
	if err := b.fill(sealed); err != nil {
		return err
	}
	b.ad = b.ec.additionalData(b.ad[:0], b.next, last)
	plain, err := b.aead.Open(b.opened[:0], nil, sealed, b.ad)
	if err != nil {
		return b.damaged("its seal does not match this key, blob and encryption context, or it was altered")
	}
	if b.next == b.end-1 {
		// Checked before the last bytes are returned: no bytes may follow the end of the blob.
		if err := b.expectEnd(); err != nil {
			return err
		}
	}
	b.next++
	plain = plain[b.skip:]
	b.skip = 0
	b.plain = plain[:min(int64(len(plain)), b.left)]
	b.left -= int64(len(b.plain))
	return nil
}

func (b *blobReader) readHeader() error {
	b.header = false
	header := make([]byte, len(blobHeader))
	if err := b.fill(header); err != nil {
		return err
	}
	if string(header) != blobHeader {
		return fail.New(api.Damaged, "read %v: it does not begin with the header of a sealed blob of format %d", b.ec, blobHeader[len(blobHeader)-1])
	}
	return nil
}

// fill reads len(p) bytes; if the input ends too early, the blob was truncated.
func (b *blobReader) fill(p []byte) error {
	_, err := io.ReadFull(b.r, p)
	switch {
	case err == io.EOF, err == io.ErrUnexpectedEOF:
		return b.damaged("it is truncated")
	case err != nil:
		return fmt.Errorf("read %v: %w", b.ec, err)
	}
	return nil
}

func (b *blobReader) expectEnd() error {
	var one [1]byte
	switch _, err := io.ReadFull(b.r, one[:]); {
	case err == nil:
		return b.damaged("more bytes follow than the blob has")
	case err != io.EOF:
		return fmt.Errorf("read %v: %w", b.ec, err)
	}
	return nil
}

func (b *blobReader) damaged(what string) error {
	return fail.New(api.Damaged, "read %v, segment %d of %d: %s", b.ec, b.next, segments(b.plainSize), what)
}
