package server_test

import (
	"context"
	"io"
	"sync"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/fail"
)

// fakeService replaces the service: it records each call, and returns the result of its
// function.
type fakeService struct {
	role   error // what the check of the caller's role says
	answer func(ctx context.Context, name string, in any) (any, error)
	// for the operations that carry content
	read  func(ctx context.Context, size int64, r io.Reader) error
	write func(ctx context.Context, off, n int64, w io.Writer) error

	mu    sync.Mutex
	calls []string
	last  any
}

func (f *fakeService) CheckRole(context.Context, api.Meta) error { return f.role }

func (f *fakeService) called(name string, in any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls, f.last = append(f.calls, name), in
}

func (f *fakeService) lastCall() (name string, in any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.calls) == 0 {
		return "", nil
	}
	return f.calls[len(f.calls)-1], f.last
}

func (f *fakeService) Call(ctx context.Context, name string, in any) (any, error) {
	f.called(name, in)
	if f.answer == nil {
		return nil, nil
	}
	return f.answer(ctx, name, in)
}

func (f *fakeService) Receive(ctx context.Context, name string, in any, size int64, r io.Reader) (any, error) {
	if f.read != nil {
		if err := f.read(ctx, size, r); err != nil {
			return nil, err
		}
	}
	return f.Call(ctx, name, in)
}

func (f *fakeService) Send(ctx context.Context, name string, in any, w io.Writer) error {
	f.called(name, in)
	if f.write == nil {
		return nil
	}
	return f.write(ctx, 0, -1, w)
}

func (f *fakeService) GetFile(ctx context.Context, in api.FileInput, part func(api.File) (off, n int64, err error), w io.Writer) error {
	var file api.File
	opened, err := f.Call(ctx, "GetFile", in)
	if err != nil {
		return err
	}
	if opened != nil {
		file = opened.(api.File)
	}
	off, n, err := part(file)
	if err != nil || f.write == nil {
		return err
	}
	return f.write(ctx, off, n, w)
}

func (f *fakeService) Follow(ctx context.Context, name string, in any, progress func(any)) (any, error) {
	switch in.(type) {
	case api.VerifyInput:
		for i := range int64(3) {
			progress(api.VerifyProgress{Stage: "items", Done: i, Total: 3})
		}
	case api.CollectBlobsInput:
		progress(api.CollectedBlobs{Blobs: 1})
	}
	return f.Call(ctx, name, in)
}

// fakeAuth accepts the token "good" for an administrator and "weak" for a principal
// without roles; "broken" causes an internal failure.
type fakeAuth struct{ principal access.Principal }

func (fakeAuth) CheckTenant(_ context.Context, _ access.Principal, tenant string) error {
	if tenant == "contoso & söhne" {
		return nil
	}
	return fail.New(api.Forbidden, "the token belongs to another tenant than the request names")
}

func (a fakeAuth) Authenticate(_ context.Context, bearer string) (access.Principal, error) {
	switch bearer {
	case "good":
		return a.principal, nil
	case "weak":
		p := a.principal
		p.Roles = nil
		return p, nil
	case "broken":
		return access.Principal{}, io.ErrClosedPipe
	}
	return access.Principal{}, fail.New(api.Unauthenticated, "the token is not valid")
}
