// Package blobtest is the test suite that every blob store must pass.
package blobtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"keyroll/api"
	"keyroll/internal/blob"
	"keyroll/internal/fail"
)

// Run runs the suite; open returns an empty store each time.
func Run(t *testing.T, open func(t *testing.T) blob.Store) {
	for name, test := range map[string]func(*testing.T, blob.Store){
		"WhatWasPutIsReadBack":              readBack,
		"RangesAreExact":                    ranges,
		"ATakenNameKeepsItsBlob":            taken,
		"OneOfManyWritersWins":              race,
		"AFailedReaderLeavesNothing":        failedReader,
		"AnEndedContextStoresNothing":       endedContext,
		"MissingIsNotFound":                 missing,
		"DeleteIsIdempotent":                deletion,
		"AReaderOfADeletedBlobIsNotCheated": openReader,
		"ABigBlobIsReadBack":                bigBlob,
		"ListFindsEachBlobOnce":             list,
		"ALongListIsWhole":                  longList,
		"ListStopsAtAnError":                listStops,
		"NamesThatAreNoneAreRefused":        names,
		"ABatchIsThereAfterCommit":          batchCommit,
		"ABatchWithATakenNameIsNotThere":    batchTaken,
		"ADiscardedBatchIsNotThere":         batchDiscard,
		"ABatchSurvivesAFailedReader":       batchFailedReader,
		"AnEmptyBatchCommits":               batchEmpty,
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			test(t, s)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func put(t *testing.T, s blob.Store, name, body string) {
	t.Helper()
	size, err := s.PutIfAbsent(t.Context(), name, strings.NewReader(body))
	if err != nil || size != int64(len(body)) {
		t.Fatalf("put %s: size %d, %v", name, size, err)
	}
}

func get(t *testing.T, s blob.Store, name string, off, n int64) string {
	t.Helper()
	r, err := s.GetRange(t.Context(), name, off, n)
	if err != nil {
		t.Fatalf("get %s: %v", name, err)
	}
	body, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatalf("get %s: %v", name, err)
	}
	return string(body)
}

func wantCode(t *testing.T, err error, code api.Code) {
	t.Helper()
	if !fail.Is(err, code) {
		t.Fatalf("error %v, want code %s", err, code)
	}
}

func wantBlobs(t *testing.T, s blob.Store, prefix string, want map[string]int64) {
	t.Helper()
	got, last := make(map[string]int64), ""
	err := s.List(t.Context(), prefix, func(name string, size int64) error {
		if name <= last {
			t.Errorf("%s listed after %s", name, last)
		}
		got[name], last = size, name
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(got, want) {
		t.Fatalf("blobs with prefix %q: %v, want %v", prefix, got, want)
	}
}

func readBack(t *testing.T, s blob.Store) {
	big := strings.Repeat("0123456789abcdef", 20_000)
	bodies := map[string]string{"0": "", "01/2": "x", "01/3": big}
	for name, body := range bodies {
		put(t, s, name, body)
	}
	for name, body := range bodies {
		if got := get(t, s, name, 0, -1); got != body {
			t.Errorf("%s: %d bytes read, %d put", name, len(got), len(body))
		}
		if size, err := s.Stat(t.Context(), name); err != nil || size != int64(len(body)) {
			t.Errorf("stat %s: %d, %v", name, size, err)
		}
	}
}

func ranges(t *testing.T, s blob.Store) {
	const body = "0123456789"
	put(t, s, "a", body)
	for off := range int64(12) {
		for n := int64(-1); n < 12; n++ {
			want := body[min(off, 10):]
			if n >= 0 {
				want = want[:min(n, int64(len(want)))]
			}
			if got := get(t, s, "a", off, n); got != want {
				t.Errorf("[%d, +%d): %q, want %q", off, n, got, want)
			}
		}
	}
}

func taken(t *testing.T, s blob.Store) {
	put(t, s, "a/b", "first")
	_, err := s.PutIfAbsent(t.Context(), "a/b", strings.NewReader("second"))
	wantCode(t, err, api.AlreadyExists)
	if got := get(t, s, "a/b", 0, -1); got != "first" {
		t.Errorf("the blob became %q", got)
	}
	wantBlobs(t, s, "", map[string]int64{"a/b": 5})
}

func race(t *testing.T, s blob.Store) {
	var wg sync.WaitGroup
	won := make(chan string, 8)
	for i := range cap(won) {
		wg.Go(func() {
			body := strings.Repeat(fmt.Sprint(i), 5000)
			if _, err := s.PutIfAbsent(t.Context(), "aa/bb", strings.NewReader(body)); err == nil {
				won <- body
			} else if !fail.Is(err, api.AlreadyExists) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Fatalf("%d writers won", len(won))
	}
	if got := get(t, s, "aa/bb", 0, -1); got != <-won {
		t.Error("the blob is not the winner's")
	}
}

var errBroken = errors.New("broken")

// broken returns a reader that returns body and then fails.
func broken(body string) io.Reader {
	return io.MultiReader(strings.NewReader(body), readerFunc(func([]byte) (int, error) { return 0, errBroken }))
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func failedReader(t *testing.T, s blob.Store) {
	if _, err := s.PutIfAbsent(t.Context(), "a", broken("half")); !errors.Is(err, errBroken) {
		t.Fatalf("error %v", err)
	}
	wantBlobs(t, s, "", nil)
	put(t, s, "a", "whole")
}

func endedContext(t *testing.T, s blob.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	// The context ends once the whole body has been read: no blob may become visible.
	body := io.MultiReader(strings.NewReader("body"), readerFunc(func([]byte) (int, error) {
		cancel()
		return 0, io.EOF
	}))
	if _, err := s.PutIfAbsent(ctx, "a", body); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	wantBlobs(t, s, "", nil)
}

func missing(t *testing.T, s blob.Store) {
	put(t, s, "aa/bb", "x")
	for _, name := range []string{"0", "aa", "aa/b", "aa/bbb", "ab/bb"} {
		_, err := s.GetRange(t.Context(), name, 0, -1)
		wantCode(t, err, api.NotFound)
		_, err = s.Stat(t.Context(), name)
		wantCode(t, err, api.NotFound)
	}
}

func deletion(t *testing.T, s blob.Store) {
	put(t, s, "aa/1", "x")
	put(t, s, "aa/2", "y")
	for range 2 {
		if err := s.Delete(t.Context(), "aa/1"); err != nil {
			t.Fatal(err)
		}
	}
	wantBlobs(t, s, "", map[string]int64{"aa/2": 1})
	put(t, s, "aa/1", "again")
}

func openReader(t *testing.T, s blob.Store) {
	body := strings.Repeat("x", 300_000)
	put(t, s, "a", body)
	r, err := s.GetRange(t.Context(), "a", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := s.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); string(got) != body && !fail.Is(err, api.NotFound) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// bigBlob puts blobs that object services store in parts.
func bigBlob(t *testing.T, s blob.Store) {
	random := rand.NewChaCha8([32]byte{1})
	body := make([]byte, 18<<20+5)
	_, _ = random.Read(body)
	for name, size := range map[string]int{"aa/1": len(body), "aa/2": 9 << 20} {
		put, err := s.PutIfAbsent(t.Context(), name, iotest.HalfReader(bytes.NewReader(body[:size])))
		if err != nil || put != int64(size) {
			t.Fatalf("put %d bytes: %d, %v", size, put, err)
		}
		if got := get(t, s, name, 0, -1); got != string(body[:size]) {
			t.Errorf("%d bytes: %d others were read", size, len(got))
		}
		if got := get(t, s, name, 5<<20, 6<<20); got != string(body[5<<20:min(size, 11<<20)]) {
			t.Errorf("%d bytes: %d others were read from the middle", size, len(got))
		}
	}
	_, err := s.PutIfAbsent(t.Context(), "aa/1", bytes.NewReader(body[:9<<20+1]))
	wantCode(t, err, api.AlreadyExists)
	if _, err := s.PutIfAbsent(t.Context(), "aa/5", io.MultiReader(bytes.NewReader(body[:9<<20+1]), broken(""))); !errors.Is(err, errBroken) {
		t.Errorf("error %v", err)
	}
	wantBlobs(t, s, "aa/5", nil)
	b := s.Batch()
	for name, size := range map[string]int{"ab/1": 300_000, "ab/2": 9<<20 + 1, "ab/3": 100_000, "ab/4": 1 << 20} {
		if _, err := b.Put(t.Context(), name, bytes.NewReader(body[:size])); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantBlobs(t, s, "ab/", map[string]int64{"ab/1": 300_000, "ab/2": 9<<20 + 1, "ab/3": 100_000, "ab/4": 1 << 20})
	if got := get(t, s, "ab/2", 0, -1); got != string(body[:9<<20+1]) {
		t.Errorf("%d bytes of the batch's biggest blob", len(got))
	}
}

func list(t *testing.T, s blob.Store) {
	wantBlobs(t, s, "", nil)
	wantBlobs(t, s, "1/", nil)
	want := make(map[string]int64)
	for i := range 30 {
		name := fmt.Sprintf("%d/%x/%x", 1+i%3, i%2, i)
		put(t, s, name, strings.Repeat("x", i))
		want[name] = int64(i)
	}
	for _, prefix := range []string{"", "1", "1/", "1/0", "1/0/", "1/0/1", "1/0/12", "4/", "1/0/0/0"} {
		part := make(map[string]int64)
		for name, size := range want {
			if strings.HasPrefix(name, prefix) {
				part[name] = size
			}
		}
		wantBlobs(t, s, prefix, part)
	}
}

// longList lists more blobs than the tests of object services list at a time.
func longList(t *testing.T, s blob.Store) {
	want := make(map[string]int64)
	b := s.Batch()
	for i := range 50 {
		name := fmt.Sprintf("%x/%03x", i%16, i)
		if _, err := b.Put(t.Context(), name, strings.NewReader("")); err != nil {
			t.Fatal(err)
		}
		want[name] = 0
	}
	if err := b.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantBlobs(t, s, "", want)
	for prefix := range 2 { // of the list, as it goes
		err := s.List(t.Context(), fmt.Sprintf("%x/", prefix), func(name string, _ int64) error { return s.Delete(t.Context(), name) })
		if err != nil {
			t.Fatal(err)
		}
	}
	maps.DeleteFunc(want, func(name string, _ int64) bool { return name < "2" })
	wantBlobs(t, s, "", want)
}

func listStops(t *testing.T, s blob.Store) {
	put(t, s, "1", "")
	put(t, s, "2", "")
	calls := 0
	err := s.List(t.Context(), "", func(string, int64) error { calls++; return errBroken })
	if !errors.Is(err, errBroken) || calls != 1 {
		t.Errorf("%d calls, %v", calls, err)
	}
}

func names(t *testing.T, s blob.Store) {
	for _, name := range []string{"", "/", "/a", "a/", "a//b", "..", "a/../b", "a/./b", "A", "g", "tmp", "tmp/a", "a b", "a\x00", "a\\b", "é", strings.Repeat("a", 1000)} {
		_, err := s.PutIfAbsent(t.Context(), name, strings.NewReader("x"))
		wantCode(t, err, api.InvalidArgument)
		_, err = s.GetRange(t.Context(), name, 0, -1)
		wantCode(t, err, api.InvalidArgument)
		_, err = s.Stat(t.Context(), name)
		wantCode(t, err, api.InvalidArgument)
		wantCode(t, s.Delete(t.Context(), name), api.InvalidArgument)
		_, err = s.Batch().Put(t.Context(), name, strings.NewReader("x"))
		wantCode(t, err, api.InvalidArgument)
	}
	wantBlobs(t, s, "", nil)
}

// fill puts n blobs into b and returns them as List would.
func fill(t *testing.T, b blob.Batch, n int) map[string]int64 {
	t.Helper()
	want := make(map[string]int64)
	for i := range n {
		name, body := fmt.Sprintf("%x/%x", i%3, i), bytes.Repeat([]byte{byte(i)}, i*100)
		size, err := b.Put(t.Context(), name, bytes.NewReader(body))
		if err != nil || size != int64(len(body)) {
			t.Fatalf("put %s: size %d, %v", name, size, err)
		}
		want[name] = size
	}
	return want
}

func batchCommit(t *testing.T, s blob.Store) {
	b := s.Batch()
	want := fill(t, b, 20)
	if err := b.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.Discard()
	wantBlobs(t, s, "", want)
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got := get(t, s, name, 0, -1); int64(len(got)) != want[name] {
			t.Errorf("%s: %d bytes, want %d", name, len(got), want[name])
		}
	}
	if _, err := b.Put(t.Context(), "f", strings.NewReader("")); err == nil {
		t.Error("a committed batch takes more")
	}
	if err := b.Commit(t.Context()); err == nil {
		t.Error("a batch is committed twice")
	}
}

func batchTaken(t *testing.T, s blob.Store) {
	put(t, s, "1/a", "first")
	b := s.Batch()
	fill(t, b, 12) // holds 1/a
	wantCode(t, b.Commit(t.Context()), api.AlreadyExists)
	wantBlobs(t, s, "", map[string]int64{"1/a": 5})
}

func batchDiscard(t *testing.T, s blob.Store) {
	b := s.Batch()
	fill(t, b, 5)
	b.Discard()
	b.Discard()
	wantBlobs(t, s, "", nil)
	if err := b.Commit(t.Context()); err == nil {
		t.Error("a discarded batch is committed")
	}
}

func batchFailedReader(t *testing.T, s blob.Store) {
	b := s.Batch()
	want := fill(t, b, 3)
	if _, err := b.Put(t.Context(), "f", broken("half")); !errors.Is(err, errBroken) {
		t.Fatalf("error %v", err)
	}
	if err := b.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantBlobs(t, s, "", want)
}

func batchEmpty(t *testing.T, s blob.Store) {
	if err := s.Batch().Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Batch().Discard()
	wantBlobs(t, s, "", nil)
}
