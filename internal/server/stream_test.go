package server_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"keyroll/api"
	"keyroll/internal/fail"
)

func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{7})
	_, _ = r.Read(b)
	return b
}

func (w *testServer) serveFile(data []byte) {
	w.service.answer = func(_ context.Context, name string, _ any) (any, error) {
		return map[string]any{"GetFile": api.File{Bytes: int64(len(data))}, "PutFile": api.File{}, "ImportMail": api.Imported{}}[name], nil
	}
	w.service.write = func(_ context.Context, off, n int64, out io.Writer) error {
		end := int64(len(data))
		if n >= 0 {
			end = off + n
		}
		_, err := io.Copy(out, bytes.NewReader(data[off:end]))
		return err
	}
}

var file = api.FileInput{SiteInput: api.SiteInput{Site: "https://s"}, Path: "p"}

const filePath = "/v1/site/file?site=https://s&path=p"

func TestFileIsReadWholeAndByRange(t *testing.T) {
	data := []byte("0123456789")
	w := newTestServer(t, true)
	w.serveFile(data)
	for _, c := range []struct {
		header string
		status int
		want   string
		place  string // Content-Range
	}{
		{"", 200, "0123456789", ""},
		{"bytes=0-0", 206, "0", "bytes 0-0/10"},
		{"bytes=3-5", 206, "345", "bytes 3-5/10"},
		{"BYTES = 3-5 ", 206, "345", "bytes 3-5/10"},
		{"bytes=3-", 206, "3456789", "bytes 3-9/10"},
		{"bytes=0-", 206, "0123456789", "bytes 0-9/10"},
		{"bytes=9-9", 206, "9", "bytes 9-9/10"},
		{"bytes=9-99", 206, "9", "bytes 9-9/10"},
		{"bytes=1-99999999999999999999999", 206, "123456789", "bytes 1-9/10"},
		{"bytes=-3", 206, "789", "bytes 7-9/10"},
		{"bytes=-10", 206, "0123456789", "bytes 0-9/10"},
		{"bytes=-99", 206, "0123456789", "bytes 0-9/10"},
		{"bytes=10-", 416, "", "bytes */10"},
		{"bytes=10-20", 416, "", "bytes */10"},
		{"bytes=99999999999999999999999-", 416, "", "bytes */10"},
		{"bytes=-0", 416, "", "bytes */10"},
		{"bytes=0-1,3-4", 200, "0123456789", ""},
		{"lines=0-1", 200, "0123456789", ""},
		{"bytes=", 400, "", ""},
		{"bytes=-", 400, "", ""},
		{"bytes=5-3", 400, "", ""},
		{"bytes=a-b", 400, "", ""},
		{"bytes=+1-2", 400, "", ""},
		{"bytes=1-2-3", 400, "", ""},
		{"bytes=--1", 400, "", ""},
		{"bytes=5", 400, "", ""},
	} {
		resp, body := w.raw("GET", filePath, "", "Range", c.header)
		if resp.StatusCode != c.status || resp.Header.Get("Content-Range") != c.place {
			t.Errorf("%q: %d %q", c.header, resp.StatusCode, resp.Header.Get("Content-Range"))
			continue
		}
		if c.status >= 400 {
			p := problemIn(t, resp, body)
			if want := map[int]api.Code{400: api.InvalidArgument, 416: api.RangeNotSatisfiable}[c.status]; p.Code != want {
				t.Errorf("%q: %+v", c.header, p)
			}
			continue
		}
		if body != c.want || resp.ContentLength != int64(len(c.want)) || resp.Header.Get("Content-Type") != "application/octet-stream" ||
			resp.Header.Get("X-Content-Type-Options") != "nosniff" || resp.Header.Get("Accept-Ranges") != "bytes" {
			t.Errorf("%q: %q, %d bytes, %v", c.header, body, resp.ContentLength, resp.Header)
		}
	}
	if _, body := w.raw("GET", filePath, "", "Range", "bytes=0-1", "If-Range", `"etag"`); body != string(data) {
		t.Errorf("If-Range: %q", body)
	}
	w.serveFile(nil)
	for header, status := range map[string]int{"": 200, "bytes=-5": 200, "bytes=0-": 416, "bytes=0-0": 416} {
		if resp, body := w.raw("GET", filePath, "", "Range", header); resp.StatusCode != status || status == 200 && body != "" {
			t.Errorf("empty file, %q: %d %q", header, resp.StatusCode, body)
		}
	}
}

func TestClientReadsRanges(t *testing.T) {
	data := noise(300_000)
	both(t, func(t *testing.T, w *testServer) {
		w.serveFile(data)
		size := int64(len(data))
		for _, c := range []struct{ off, n int64 }{{0, -1}, {0, size}, {0, 1}, {1, -1}, {size - 1, -1}, {size - 1, 1}, {size - 1, 100}, {65535, 2}, {100, 200_000}} {
			r, err := w.client.GetFile(background, file, c.off, c.n)
			if err != nil {
				t.Fatalf("%+v: %v", c, err)
			}
			got, err := io.ReadAll(r)
			r.Close()
			end := size
			if c.n >= 0 {
				end = min(size, c.off+c.n)
			}
			if err != nil || !bytes.Equal(got, data[c.off:end]) {
				t.Errorf("%+v: %d bytes, %v", c, len(got), err)
			}
		}
		if _, err := w.client.GetFile(background, file, size, -1); problem(t, err).Code != api.RangeNotSatisfiable {
			t.Error(err)
		}
		for _, c := range []struct{ off, n int64 }{{-1, 1}, {0, 0}} {
			if _, err := w.client.GetFile(background, file, c.off, c.n); problem(t, err).Code != api.InvalidArgument {
				t.Errorf("%+v: %v", c, err)
			}
		}
	})
}

func TestLargeUploadsAndDownloadsArriveWhole(t *testing.T) {
	data := noise(9<<20 + 13)
	both(t, func(t *testing.T, w *testServer) {
		w.serveFile(data)
		for _, size := range []int64{int64(len(data)), -1} {
			w.service.read = func(_ context.Context, stated int64, r io.Reader) error {
				got, err := io.ReadAll(r)
				if stated != size || !bytes.Equal(got, data) {
					t.Errorf("%d bytes arrived, %d stated", len(got), stated)
				}
				return err
			}
			if _, err := w.client.PutFile(background, file, size, io.MultiReader(bytes.NewReader(data))); err != nil {
				t.Error(err)
			}
		}
		r, err := w.client.ExportMail(background, api.MailboxInput{Mailbox: "m"})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
			t.Errorf("export: %d bytes, %v", len(got), err)
		}
		w.serveFile(nil)
		if r, err = w.client.ExportMail(background, api.MailboxInput{Mailbox: "m"}); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || len(got) != 0 {
			t.Errorf("empty export: %q, %v", got, err)
		}
	})
}

// A failure after the first byte of content never looks like the end of the content.
func TestInterruptedDownloadIsAnError(t *testing.T) {
	cause := fail.New(api.Damaged, "blob cannot be decrypted").Because(errors.New("the-cause"))
	both(t, func(t *testing.T, w *testServer) {
		for _, c := range []struct {
			name    string
			stated  int64
			content int
			err     error
		}{
			{"fails soon", 1000, 10, cause},
			{"fails late", 1 << 20, 1<<20 - 1, cause},
			{"fails after all", 1000, 1000, cause},
			{"ends early", 1000, 999, nil},
			{"ends early in a large one", 1 << 20, 1<<20 - 1, nil},
			{"is longer", 1000, 1001, nil},
		} {
			t.Run(c.name, func(t *testing.T) {
				w.service.answer = func(context.Context, string, any) (any, error) { return api.File{Bytes: c.stated}, nil }
				w.service.write = func(_ context.Context, _, _ int64, out io.Writer) error {
					for left := c.content; left > 0; left -= 333 {
						if _, err := out.Write(noise(min(left, 333))); err != nil {
							return err
						}
					}
					return c.err
				}
				read := func(r io.ReadCloser, err error) ([]byte, error) {
					if err != nil {
						return nil, err
					}
					defer r.Close()
					return io.ReadAll(r)
				}
				got, err := read(w.client.GetFile(background, file, 0, -1))
				if p := problem(t, err); p.Code != api.Truncated {
					t.Errorf("get: %d bytes, %+v", len(got), p)
				}
				if c.err == nil {
					return
				}
				// For content of unknown size a trailer says how it ended.
				got, err = read(w.client.ExportMail(background, api.MailboxInput{Mailbox: "m"}))
				if p := problem(t, err); p.Code != api.Damaged || len(got) != c.content {
					t.Errorf("export: %d bytes, %+v", len(got), p)
				}
			})
		}
		if !strings.Contains(w.log.String(), "the-cause") {
			t.Error("the log does not name the cause")
		}
	})
}

func TestUploadThatEndsEarlyIsTruncated(t *testing.T) {
	w := newTestServer(t, false)
	read := make(chan error, 1)
	w.service.read = func(_ context.Context, _ int64, r io.Reader) error {
		_, err := io.Copy(io.Discard, r)
		read <- err
		return fmt.Errorf("put file: %w", err)
	}
	for _, body := range []string{
		"Content-Length: 100\r\n\r\n0123456789",
		"Transfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n",
		"Transfer-Encoding: chunked\r\n\r\na\r\n01234",
		"Transfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\nzz\r\n",
	} {
		conn, err := tls.Dial("tcp", w.http.Listener.Addr().String(), &tls.Config{RootCAs: w.http.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, ServerName: "example.com"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, "PUT "+filePath+" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer good\r\nConnection: close\r\n"+body); err != nil {
			t.Fatal(err)
		}
		if err := conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(conn)
		conn.Close()
		if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") || !strings.Contains(string(answer), `"code":"Truncated"`) {
			t.Errorf("%q: %s, %v", body, answer, err)
		}
		if err := <-read; !fail.Is(err, api.Truncated) {
			t.Errorf("%q: the service read %v", body, err)
		}
	}
}

func TestClientSendsNoContentOfAnotherLength(t *testing.T) {
	both(t, func(t *testing.T, w *testServer) {
		var whole atomic.Bool
		w.service.read = func(_ context.Context, size int64, r io.Reader) error {
			n, err := io.Copy(io.Discard, r)
			whole.Store(err == nil && (size < 0 || n == size))
			return err
		}
		own := errors.New("disk on fire")
		for _, c := range []struct {
			name string
			size int64
			r    io.Reader
			code api.Code
		}{
			{"short", 100, bytes.NewReader(noise(99)), api.Truncated},
			{"short and large", 1 << 20, bytes.NewReader(noise(1<<20 - 1)), api.Truncated},
			{"empty", 100, strings.NewReader(""), api.Truncated},
			{"long", 100, bytes.NewReader(noise(101)), api.InvalidArgument},
			{"long from nothing", 0, bytes.NewReader(noise(1)), api.InvalidArgument},
			{"broken", 100, io.MultiReader(bytes.NewReader(noise(50)), broken{own}), ""},
			{"broken, unknown length", -1, io.MultiReader(bytes.NewReader(noise(50)), broken{own}), ""},
			{"broken at once", 0, broken{own}, ""},
		} {
			whole.Store(false)
			_, err := w.client.ImportMail(background, api.ImportMailInput{MailboxInput: api.MailboxInput{Mailbox: "m"}}, c.size, c.r)
			if c.code == "" {
				if !errors.Is(err, own) {
					t.Errorf("%s: %v", c.name, err)
				}
			} else if err == nil || problem(t, err).Code != c.code {
				t.Errorf("%s: %+v", c.name, err)
			}
			if whole.Load() {
				t.Errorf("%s: arrived as whole", c.name)
			}
		}
	})
}

type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }

// An upload that is refused at once is not sent, and the caller of one that is refused
// midway still gets the reason.
func TestRefusedUploadReturnsItsReason(t *testing.T) {
	both(t, func(t *testing.T, w *testServer) {
		const size = 64 << 20
		for _, c := range []struct {
			name string
			read int64 // by the service, before it refuses
			sent int64 // by the client, at most
		}{{"at once", 0, 0}, {"midway", 100_000, size / 2}} {
			w.service.read = func(_ context.Context, _ int64, r io.Reader) error {
				if _, err := io.CopyN(io.Discard, r, c.read); err != nil {
					t.Error(err)
				}
				return fail.New(api.NotFound, "no such mailbox")
			}
			r := &endless{}
			_, err := w.client.ImportMail(background, api.ImportMailInput{MailboxInput: api.MailboxInput{Mailbox: "m"}}, size, r)
			if p := problem(t, err); p.Code != api.NotFound {
				t.Errorf("%s: %+v", c.name, p)
			}
			if sent := r.sent.Load(); sent > c.sent {
				t.Errorf("%s: the client sent %d bytes", c.name, sent)
			}
		}
		r := &endless{}
		if _, err := w.newClient("wrong").ImportMail(background, api.ImportMailInput{MailboxInput: api.MailboxInput{Mailbox: "m"}}, size, r); problem(t, err).Code != api.Unauthenticated || r.sent.Load() != 0 {
			t.Errorf("%d bytes sent, %v", r.sent.Load(), err)
		}
	})
}

// endless may be read for a moment after the upload has returned.
type endless struct{ sent atomic.Int64 }

func (e *endless) Read(p []byte) (int, error) {
	e.sent.Add(int64(len(p)))
	return len(p), nil
}

func TestVerifyStreamsProgressAndThenItsReportOrAnError(t *testing.T) {
	both(t, func(t *testing.T, w *testServer) {
		want := api.Verified{Items: 3, Closed: []api.Finding{{Kind: "item", ID: "7", Detail: "revoked"}}, Damaged: []api.Finding{}}
		w.service.answer = func(context.Context, string, any) (any, error) { return want, nil }
		var seen []api.VerifyProgress
		got, err := w.client.Verify(background, api.VerifyInput{Policy: "p"}, func(p api.VerifyProgress) { seen = append(seen, p) })
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) || len(seen) != 3 || seen[2].Done != 2 {
			t.Errorf("%+v, %v, progress %v", got, err, seen)
		}
		resp, body := w.raw("POST", "/v1/verify", "")
		if resp.Header.Get("Content-Type") != "application/x-ndjson" || strings.Count(body, "\n") != 4 {
			t.Errorf("%v: %s", resp.Header, body)
		}
		w.service.answer = func(context.Context, string, any) (any, error) {
			return nil, fail.New(api.VaultUnavailable, "vault away").WithHint("wait")
		}
		_, err = w.client.Verify(background, api.VerifyInput{}, nil)
		if p := problem(t, err); p.Code != api.VaultUnavailable || p.Hint != "wait" || p.Request == "" {
			t.Errorf("%+v", p)
		}
		w.service.answer = func(context.Context, string, any) (any, error) { panic("late") }
		if _, err = w.client.Verify(background, api.VerifyInput{}, nil); problem(t, err).Code != api.Truncated {
			t.Errorf("cut off: %v", err)
		}
	})
}

// A caller that disconnects while an operation reports its progress is not a failure of the
// server, however the operation ends then. A failure of the operation itself is.
func TestACallerThatDisconnectsFromEventsIsNotAFailure(t *testing.T) {
	both(t, func(t *testing.T, w *testServer) {
		ended := make(chan struct{}, 1)
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			defer func() { ended <- struct{}{} }()
			w.handler.ServeHTTP(rw, r)
		}))
		s.EnableHTTP2 = w.http.EnableHTTP2
		s.StartTLS()
		defer s.Close()
		for _, m := range api.Operations() {
			if m.Returns != api.Lines {
				continue
			}
			for name, c := range map[string]struct {
				end    func(ctx context.Context) error
				errors int // in the log
			}{
				"it is done":                   {func(context.Context) error { return nil }, 0},
				"it ends with its context":     {func(ctx context.Context) error { return fmt.Errorf("read blobs: %w", ctx.Err()) }, 0},
				"its store ends with the same": {func(ctx context.Context) error { return fail.New(api.Unavailable, "ended").Because(ctx.Err()) }, 0},
				"it fails":                     {func(context.Context) error { return errors.New("disk on fire") }, 1},
			} {
				w.service.answer = func(ctx context.Context, _ string, _ any) (any, error) {
					<-ctx.Done()
					return nil, c.end(ctx)
				}
				before := len(w.log.String())
				ctx, disconnect := context.WithCancel(background)
				var body io.Reader
				if _, has := m.In.FieldByName("Body"); has {
					body = strings.NewReader("{}")
				}
				r, err := http.NewRequestWithContext(ctx, m.Method, s.URL+m.Path, body)
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Authorization", "Bearer good")
				if body != nil {
					r.Header.Set("Content-Type", "application/json")
				}
				resp, err := s.Client().Do(r)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := resp.Body.Read(make([]byte, 1)); err != nil || resp.StatusCode != http.StatusOK {
					t.Errorf("%s: %s, %v", m.Name, resp.Status, err)
				}
				disconnect()
				<-ended
				resp.Body.Close()
				log := w.log.String()[before:]
				if n := strings.Count(log, `"level":"ERROR"`); n != c.errors || strings.Count(log, "disk on fire") != n || !strings.Contains(log, `"msg":"request"`) {
					t.Errorf("%s, %s: the log has %d errors, want %d:\n%s", m.Name, name, n, c.errors, log)
				}
			}
		}
	})
}

// A failure after the first byte of content of unknown size is reported to the client;
// any other caller, and one behind a proxy that drops trailers, sees an incomplete
// transfer.
func TestAFailureAfterTheFirstByteIsReported(t *testing.T) {
	for _, tls2 := range []bool{false, true} {
		w := newTestServer(t, tls2)
		const detail = "item 7 is damaged: «é» 🔑"
		w.service.answer = func(context.Context, string, any) (any, error) { return nil, nil }
		w.service.write = func(_ context.Context, _, _ int64, out io.Writer) error {
			_, _ = io.WriteString(out, "what is whole")
			return fail.New(api.Damaged, detail).WithHint("the hint")
		}
		in := api.MessageInput{MailboxInput: api.MailboxInput{Mailbox: "m"}, Message: "1"}
		for name, open := range map[string]func() (io.ReadCloser, error){
			"export":  func() (io.ReadCloser, error) { return w.client.ExportMail(background, in.MailboxInput) },
			"message": func() (io.ReadCloser, error) { return w.client.ReadMessage(background, in) },
			"item": func() (io.ReadCloser, error) {
				return w.client.GetWorkloadItem(background, api.WorkloadItemInput{WorkloadInput: api.WorkloadInput{Workload: "chat-messages"}, Item: "i"})
			},
		} {
			r, err := open()
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r)
			if p := problem(t, err); p.Code != api.Damaged || p.Detail != detail || p.Hint != "the hint" || string(got) != "what is whole" {
				t.Errorf("%s: %q, %+v", name, got, p)
			}
		}
		request, _ := http.NewRequest("GET", w.http.URL+"/v1/mailboxes/m/mbox", nil)
		request.Header.Set("Authorization", "Bearer good")
		resp, err := w.http.Client().Do(request)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(resp.Body); err == nil {
			t.Error("a caller that reads no trailer sees a whole")
		}
		w.service.write = func(_ context.Context, _, _ int64, out io.Writer) error {
			_, err := io.WriteString(out, "all of it")
			return err
		}
		r, err := w.client.ReadMessage(background, in)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || string(got) != "all of it" {
			t.Errorf("%q: %v", got, err)
		}
	}
}
