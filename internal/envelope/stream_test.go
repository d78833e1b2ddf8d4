package envelope

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"keyroll/api"
	"keyroll/internal/fail"
)

var testBlob = BlobContext{Tenant: 11, Blob: 66}

// edges are sizes at which a blob gains a segment.
var edges = []int{0, 1, SegmentSize - 1, SegmentSize, SegmentSize + 1, 2*SegmentSize - 1, 2 * SegmentSize, 3*SegmentSize + 17}

// pattern is plaintext of which no two segments are alike.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i % 251)
	}
	return b
}

func sealBlob(t testing.TB, key *Key, p BlobContext, plain []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := NewWriter(&out, key, p)
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestABlobReadsBackAtEverySize(t *testing.T) {
	key := testKey("blob")
	for _, size := range edges {
		plain := pattern(size)
		sealed := sealBlob(t, key, testBlob, plain)
		if got := SealedSize(int64(size)); got != int64(len(sealed)) {
			t.Errorf("%d bytes: SealedSize says %d, sealed are %d", size, got, len(sealed))
		}
		got, err := io.ReadAll(NewReader(bytes.NewReader(sealed), key, testBlob, int64(size)))
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes: read %d, %v", size, len(got), err)
		}
	}
}

// However the writes and reads are split, the sealed form has the same shape and can
// be opened.
func TestWritesAndReadsOfAnySizeGiveTheSameBlob(t *testing.T) {
	key := testKey("blob")
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.SampledFrom(edges).Draw(t, "size")
		plain := pattern(size)
		var sealed bytes.Buffer
		w := NewWriter(&sealed, key, testBlob)
		for rest := plain; len(rest) > 0; {
			n := min(len(rest), rapid.SampledFrom([]int{0, 1, 1000, SegmentSize - 1, SegmentSize, SegmentSize + 1, 1 << 20}).Draw(t, "write"))
			if n == 1 {
				n = min(len(rest), 7777)
			}
			if m, err := w.Write(rest[:n]); m != n || err != nil {
				t.Fatalf("wrote %d of %d, %v", m, n, err)
			}
			rest = rest[n:]
		}
		if err := errors.Join(w.Close(), w.Close()); err != nil {
			t.Fatal(err)
		}
		if int64(sealed.Len()) != SealedSize(int64(size)) {
			t.Fatalf("%d bytes sealed to %d", size, sealed.Len())
		}
		var src io.Reader = &sealed
		switch rapid.IntRange(0, 2).Draw(t, "source") {
		case 1:
			src = iotest.HalfReader(src)
		case 2:
			src = iotest.DataErrReader(src)
		}
		r := NewReader(src, key, testBlob, int64(size))
		var got []byte
		buf := make([]byte, rapid.SampledFrom([]int{1000, SegmentSize, 1 << 20}).Draw(t, "read"))
		for {
			n, err := r.Read(buf)
			got = append(got, buf[:n]...)
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(got, plain) {
			t.Fatalf("read %d other bytes", len(got))
		}
	})
}

func TestTheReaderPassesTheReaderTests(t *testing.T) {
	key, plain := testKey("blob"), pattern(SegmentSize+100)
	sealed := sealBlob(t, key, testBlob, plain)
	if err := iotest.TestReader(NewReader(bytes.NewReader(sealed), key, testBlob, int64(len(plain))), plain); err != nil {
		t.Error(err)
	}
}

func TestAnyRangeEqualsThatPartOfTheBlob(t *testing.T) {
	key := testKey("blob")
	blobs := map[int][]byte{}
	for _, size := range edges {
		blobs[size] = sealBlob(t, key, testBlob, pattern(size))
	}
	check := func(t interface {
		Helper()
		Fatalf(string, ...any)
	}, size, off, n int) {
		t.Helper()
		sealed := blobs[size]
		sealedOff, sealedLen := SealedRange(int64(size), int64(off), int64(n))
		if sealedOff < 0 || sealedLen < 0 || sealedOff+sealedLen > int64(len(sealed)) {
			t.Fatalf("[%d,+%d) of %d wants sealed [%d,+%d) of %d", off, n, size, sealedOff, sealedLen, len(sealed))
		}
		if most := int64(n + 2*SegmentSize + (n/SegmentSize+2)*gcmOverhead); sealedLen > most {
			t.Fatalf("[%d,+%d) of %d fetches %d bytes", off, n, size, sealedLen)
		}
		r, err := NewRangeReader(bytes.NewReader(sealed[sealedOff:sealedOff+sealedLen]), key, testBlob, int64(size), Range{int64(off), int64(n)})
		if err != nil {
			t.Fatalf("[%d,+%d) of %d: %v", off, n, size, err)
		}
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, pattern(size)[off:off+n]) {
			t.Fatalf("[%d,+%d) of %d: read %d, %v", off, n, size, len(got), err)
		}
	}
	for _, size := range edges {
		for _, off := range edges {
			for _, n := range edges {
				if off+n <= size {
					check(t, size, off, n)
				}
			}
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.SampledFrom(edges).Draw(t, "size")
		off := rapid.IntRange(0, size).Draw(t, "off")
		check(t, size, off, rapid.IntRange(0, size-off).Draw(t, "n"))
	})
}

func TestARangeOutsideTheBlobIsRefused(t *testing.T) {
	const huge = 1<<63 - 1
	for _, c := range [][3]int64{{10, 11, 0}, {10, 0, 11}, {10, 10, 1}, {10, -1, 1}, {10, 1, -1}, {0, 0, 1}, {10, huge, huge}, {10, 5, huge}, {-1, 0, 0}, {MaxBlob + 1, 0, 1}} {
		_, err := NewRangeReader(bytes.NewReader(nil), NewKey(), testBlob, c[0], Range{c[1], c[2]})
		if !fail.Is(err, api.RangeNotSatisfiable) {
			t.Errorf("[%d,+%d) of %d: %v", c[1], c[2], c[0], err)
		}
		if off, n := SealedRange(c[0], c[1], c[2]); off != 0 || n != 0 {
			t.Errorf("[%d,+%d) of %d: SealedRange is %d,%d", c[1], c[2], c[0], off, n)
		}
	}
}

func TestSizesUpToTheLargestBlob(t *testing.T) {
	if got, want := SealedSize(MaxBlob), int64(8)+1<<48+28<<32; got != want {
		t.Errorf("SealedSize(MaxBlob) is %d, want %d", got, want)
	}
	off, n := SealedRange(MaxBlob, MaxBlob-1, 1)
	if off+n != SealedSize(MaxBlob) || n != SegmentSize+28 {
		t.Errorf("its last byte is in sealed [%d,+%d)", off, n)
	}
	for _, size := range []int64{-1, MaxBlob + 1} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("SealedSize(%d) did not panic", size)
				}
			}()
			SealedSize(size)
		}()
		_, err := io.ReadAll(NewReader(bytes.NewReader(nil), NewKey(), testBlob, size))
		wantDamaged(t, err, "blob 66 of tenant 11")
	}
}

func TestTheWriterStopsAtTheLastSegmentOfAKey(t *testing.T) {
	w := NewWriter(io.Discard, NewKey(), testBlob).(*blobWriter)
	w.next = maxSegments - 1
	if _, err := w.Write(pattern(SegmentSize)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte{1}); err != nil { // seals segment 2^32-1
		t.Fatal(err)
	}
	if err := w.Close(); !fail.Is(err, api.TooLarge) {
		t.Errorf("Close: %v", err)
	}
}

// splitSegments splits a sealed blob into its header and its segments.
func splitSegments(sealed []byte) (header []byte, parts [][]byte) {
	header, sealed = sealed[:len(blobHeader)], sealed[len(blobHeader):]
	return header, slices.Collect(slices.Chunk(sealed, sealedSegment))
}

func TestAForgedBlobIsRefusedAndNamed(t *testing.T) {
	key := testKey("blob")
	const size = 3*SegmentSize + 100
	plain := pattern(size)
	whole := sealBlob(t, key, testBlob, plain)
	header, s := splitSegments(whole)
	again := sealBlob(t, key, testBlob, plain)
	_, longer := splitSegments(sealBlob(t, key, testBlob, append(bytes.Clone(plain), plain...)))
	_, other := splitSegments(sealBlob(t, key, BlobContext{Tenant: 11, Blob: 67}, plain))
	_, tenant := splitSegments(sealBlob(t, key, BlobContext{Tenant: 12, Blob: 66}, plain))
	_, otherKey := splitSegments(sealBlob(t, testKey("other blob"), testBlob, plain))
	_, three := splitSegments(sealBlob(t, key, testBlob, plain[:3*SegmentSize]))
	empty := sealBlob(t, key, testBlob, nil)
	join := func(parts ...[]byte) []byte { return slices.Concat(append([][]byte{header}, parts...)...) }
	flip := func(at int) []byte {
		b := bytes.Clone(whole)
		b[at] ^= 1
		return b
	}

	cases := map[string]struct {
		sealed []byte
		size   int64
		names  string
	}{
		"segments swapped":                        {join(s[1], s[0], s[2], s[3]), size, "segment 0 of 4"},
		"later segments swapped":                  {join(s[0], s[2], s[1], s[3]), size, "segment 1 of 4"},
		"a segment repeated":                      {join(s[0], s[0], s[2], s[3]), size, "segment 1 of 4"},
		"a segment left out":                      {join(s[0], s[2], s[3]), size, "segment 1 of 4"},
		"the first left out":                      {join(s[1], s[2], s[3]), size, "segment 0 of 4"},
		"the last left out":                       {join(s[0], s[1], s[2]), size, "segment 3 of 4: it is truncated"},
		"the last left out, size lowered":         {join(s[0], s[1], s[2]), 3 * SegmentSize, "segment 2 of 3"},
		"the last cut":                            {whole[:len(whole)-1], size, "segment 3 of 4: it is truncated"},
		"the last cut, size lowered":              {whole[:len(whole)-1], size - 1, "segment 3 of 4"},
		"cut inside a segment":                    {whole[:SegmentSize], size, "segment 0 of 4: it is truncated"},
		"cut inside the header":                   {whole[:5], size, "blob 66 of tenant 11"},
		"cut to nothing":                          {nil, size, "blob 66 of tenant 11"},
		"cut to nothing, size 0":                  {nil, 0, "blob 66 of tenant 11"},
		"cut to the header, size 0":               {header, 0, "segment 0 of 1: it is truncated"},
		"replaced by an empty blob":               {empty, size, "segment 0 of 4: it is truncated"},
		"size 0":                                  {whole, 0, "segment 0 of 1"},
		"size raised":                             {whole, size + 1, "segment 3 of 4"},
		"size raised by a segment":                {whole, size + SegmentSize, "segment 3 of 5"},
		"extended by a byte":                      {append(bytes.Clone(whole), 0), size, "segment 3 of 4: more bytes follow"},
		"extended by a segment":                   {join(s[0], s[1], s[2], s[3], s[3]), size, "more bytes follow"},
		"extended by a segment, size raised":      {join(s[0], s[1], s[2], s[3], s[3]), size + SegmentSize, "segment 3 of 5"},
		"an empty one extended":                   {slices.Concat(empty, empty), 0, "more bytes follow"},
		"a segment of another blob":               {join(s[0], other[1], s[2], s[3]), size, "segment 1 of 4"},
		"all of another blob":                     {join(other...), size, "segment 0 of 4"},
		"a segment of another tenant":             {join(s[0], s[1], tenant[2], s[3]), size, "segment 2 of 4"},
		"a segment under another key":             {join(s[0], s[1], s[2], otherKey[3]), size, "segment 3 of 4"},
		"the end of a shorter blob with this key": {join(s[0], s[1], three[2], s[3]), size, "segment 2 of 4"},
		"the middle of a longer one as the end":   {join(s[0], s[1], longer[2]), 3 * SegmentSize, "segment 2 of 3"},
		"another format":                          {flip(7), size, "format 1"},
		"another magic":                           {flip(0), size, "does not begin with the header of a sealed blob"},
		"a bit of a nonce flipped":                {flip(8), size, "segment 0 of 4"},
		"a bit of the text flipped":               {flip(8 + sealedSegment + 500), size, "segment 1 of 4"},
		"a bit of a tag flipped":                  {flip(len(whole) - 1), size, "segment 3 of 4"},
		"without a header":                        {whole[8:], size, "does not begin with the header of a sealed blob"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := io.ReadAll(NewReader(bytes.NewReader(c.sealed), key, testBlob, c.size))
			wantDamaged(t, err, "read blob 66 of tenant 11", c.names)
			if !bytes.HasPrefix(plain, got) {
				t.Error("bytes came out that the blob does not have there")
			}
		})
	}

	// A blob that is written twice under one key and encryption context has the same plaintext, and
	// mixed segments of both seals decrypt to it: only their random nonces differ.
	_, s2 := splitSegments(again)
	got, err := io.ReadAll(NewReader(bytes.NewReader(join(s[0], s2[1], s[2], s2[3])), key, testBlob, size))
	if err != nil || !bytes.Equal(got, plain) {
		t.Errorf("two seals of one blob do not mix: %v", err)
	}
}

func TestAForgedRangeIsRefusedAndNamed(t *testing.T) {
	key := testKey("blob")
	const size = 3*SegmentSize + 100
	plain := pattern(size)
	_, s := splitSegments(sealBlob(t, key, testBlob, plain))
	_, other := splitSegments(sealBlob(t, key, BlobContext{Tenant: 11, Blob: 67}, plain))
	cases := map[string]struct {
		sealed []byte
		off, n int64
		names  string
	}{
		"another segment":        {s[2], SegmentSize, 10, "segment 1 of 4"},
		"the first for the last": {s[0][:100+gcmOverhead], 3 * SegmentSize, 10, "segment 3 of 4"},
		"swapped":                {slices.Concat(s[2], s[1]), SegmentSize, 2 * SegmentSize, "segment 1 of 4"},
		"of another blob":        {other[1], SegmentSize, 10, "segment 1 of 4"},
		"one too few":            {s[1], SegmentSize + 5, SegmentSize, "segment 2 of 4: it is truncated"},
		"one too many":           {slices.Concat(s[1], s[2]), SegmentSize, 10, "segment 1 of 4: more bytes follow"},
		"cut":                    {s[1][:100], SegmentSize, 10, "segment 1 of 4: it is truncated"},
		"nothing":                {nil, SegmentSize, 10, "segment 1 of 4: it is truncated"},
		"the last cut":           {s[3][:99+gcmOverhead], 3 * SegmentSize, 10, "segment 3 of 4: it is truncated"},
		"with the header before": {append([]byte(blobHeader), s[0]...), 0, 10, "segment 0 of 4"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r, err := NewRangeReader(bytes.NewReader(c.sealed), key, testBlob, size, Range{c.off, c.n})
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r)
			wantDamaged(t, err, "read blob 66 of tenant 11", c.names)
			if !bytes.HasPrefix(plain[c.off:c.off+c.n], got) {
				t.Error("bytes came out that the range does not have")
			}
		})
	}
}

func TestABlobWhoseWriterWasNotClosedIsRefused(t *testing.T) {
	key := NewKey()
	for _, size := range []int{0, 1, SegmentSize, 2*SegmentSize + 1} {
		var sealed bytes.Buffer
		if _, err := NewWriter(&sealed, key, testBlob).Write(pattern(size)); err != nil {
			t.Fatal(err)
		}
		_, err := io.ReadAll(NewReader(&sealed, key, testBlob, int64(size)))
		wantDamaged(t, err, "blob 66")
	}
}

var errDisk = errors.New("disk full")

type failingWriter struct{ after int }

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.after--; w.after < 0 {
		return 0, errDisk
	}
	return len(p), nil
}

func TestErrorsOfTheStoreAreReturnedUnchanged(t *testing.T) {
	key := NewKey()
	for after := range 3 {
		w := NewWriter(&failingWriter{after}, key, testBlob)
		_, werr := w.Write(pattern(2*SegmentSize + 5))
		cerr := w.Close()
		if !errors.Is(cerr, errDisk) || after < 2 && !errors.Is(werr, errDisk) || after == 2 && werr != nil {
			t.Errorf("after %d writes: Write %v, Close %v", after, werr, cerr)
		}
		if _, err := w.Write([]byte{1}); !errors.Is(err, errDisk) {
			t.Errorf("a later Write says %v", err)
		}
	}
	w := NewWriter(io.Discard, key, testBlob)
	w.Close()
	if _, err := w.Write([]byte{1}); !errors.Is(err, errClosed) {
		t.Errorf("a Write after Close says %v", err)
	}

	sealed := sealBlob(t, key, testBlob, pattern(SegmentSize+5))
	for _, cut := range []int{0, 3, 8, 100, len(sealed) - 1, len(sealed)} {
		src := io.MultiReader(bytes.NewReader(sealed[:cut]), iotest.ErrReader(errDisk))
		_, err := io.ReadAll(NewReader(src, key, testBlob, SegmentSize+5))
		if !errors.Is(err, errDisk) || fail.CodeOf(err) != api.Internal {
			t.Errorf("failing after %d bytes: %v, want the store's error", cut, err)
		}
	}
}

func TestAReaderThatFailedKeepsFailing(t *testing.T) {
	key := NewKey()
	sealed := sealBlob(t, key, testBlob, pattern(2*SegmentSize))
	sealed[8+sealedSegment] ^= 1
	r := NewReader(bytes.NewReader(sealed), key, testBlob, 2*SegmentSize)
	_, err := io.ReadAll(r)
	wantDamaged(t, err)
	for range 3 {
		n, again := r.Read(make([]byte, 10))
		if n != 0 || fmt.Sprint(again) != fmt.Sprint(err) {
			t.Errorf("then it reads %d, %v", n, again)
		}
	}
}

// The memory of a stream does not grow with the blob: a few segments in total.
func TestStreamsUseConstantMemory(t *testing.T) {
	key, chunk := NewKey(), pattern(SegmentSize)
	allocated := func(segments int) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		pr, pw := io.Pipe()
		go func() {
			w := NewWriter(pw, key, testBlob)
			for range segments {
				w.Write(chunk)
			}
			pw.CloseWithError(w.Close())
		}()
		size := int64(segments) * SegmentSize
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, NewReader(pr, key, testBlob, size), make([]byte, 32<<10))
		if err != nil || n != size {
			t.Fatal(n, err)
		}
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	small, large := allocated(4), allocated(256)
	// Either may allocate the buffer that the other found in the pool.
	const few = 10 * SegmentSize
	if small > few || large > few {
		t.Errorf("4 segments take %d bytes, 256 take %d", small, large)
	}
}

func FuzzReader(f *testing.F) {
	key := testKey("blob")
	plain := pattern(SegmentSize + 40)
	whole := sealBlob(f, key, testBlob, plain)
	f.Add(int64(len(plain)), whole)
	f.Add(int64(len(plain)), whole[:len(whole)-1])
	f.Add(int64(SegmentSize), whole[:8+sealedSegment])
	f.Add(int64(10), sealBlob(f, key, testBlob, plain[:10]))
	f.Add(int64(0), sealBlob(f, key, testBlob, nil))
	f.Add(int64(0), []byte(blobHeader))
	f.Add(int64(-1), []byte{})
	f.Add(int64(1)<<62, whole)
	f.Fuzz(func(t *testing.T, size int64, sealed []byte) {
		got, err := io.ReadAll(NewReader(bytes.NewReader(sealed), key, testBlob, size))
		if !bytes.HasPrefix(plain, got) {
			t.Error("other bytes came out than went in")
		}
		if err != nil {
			wantDamaged(t, err)
		} else if int64(len(got)) != size {
			t.Errorf("%d bytes came out of %d", len(got), size)
		}
	})
}

func FuzzRangeReader(f *testing.F) {
	key := testKey("blob")
	plain := pattern(SegmentSize + 40)
	size := int64(len(plain))
	whole := sealBlob(f, key, testBlob, plain)
	for _, r := range [][2]int64{{0, size}, {SegmentSize, 40}, {SegmentSize - 1, 2}, {5, 0}, {size, 0}} {
		off, n := SealedRange(size, r[0], r[1])
		f.Add(r[0], r[1], whole[off:off+n])
	}
	f.Add(int64(-1), int64(1)<<62, whole)
	f.Add(int64(1), int64(1), []byte{})
	f.Fuzz(func(t *testing.T, off, n int64, sealed []byte) {
		r, err := NewRangeReader(bytes.NewReader(sealed), key, testBlob, size, Range{off, n})
		if err != nil {
			if !fail.Is(err, api.RangeNotSatisfiable) {
				t.Errorf("%v", err)
			}
			return
		}
		got, err := io.ReadAll(r)
		if !bytes.HasPrefix(plain[off:off+n], got) {
			t.Error("other bytes came out than went in")
		}
		if err != nil {
			wantDamaged(t, err)
		} else if int64(len(got)) != n {
			t.Errorf("%d bytes came out of %d", len(got), n)
		}
	})
}
