package server

import (
	"context"
	"io"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"keyroll/api"
)

// operation is an operation of package api and the method of the service that does it.
// There is one type for each form that such a method has.
type operation interface {
	// register adds the operation to the routes and to the OpenAPI document.
	register(*binding)
}

// callOperation is an operation whose input and result are JSON.
type callOperation[In, Out any] struct {
	op api.Operation[In, Out]
	do func(context.Context, In) (Out, error)
}

func call[In, Out any](op api.Operation[In, Out], do func(context.Context, In) (Out, error)) operation {
	return callOperation[In, Out]{op, do}
}

func (o callOperation[In, Out]) register(b *binding) { registerResult(b, o.op.Meta, o.do) }

// receiveOperation is an operation that reads content. size is the length of r in bytes,
// -1 if the sender did not state one. For a transfer that ends early, r returns fail
// Truncated.
type receiveOperation[In, Out any] struct {
	op api.Operation[In, Out]
	do func(ctx context.Context, in In, size int64, r io.Reader) (Out, error)
}

func receive[In, Out any](op api.Operation[In, Out], do func(ctx context.Context, in In, size int64, r io.Reader) (Out, error)) operation {
	return receiveOperation[In, Out]{op, do}
}

func (o receiveOperation[In, Out]) register(b *binding) {
	registerResult(b, o.op.Meta, func(ctx context.Context, in In) (Out, error) {
		u := ctx.Value(uploadKey{}).(*upload)
		return o.do(ctx, in, u.size, u)
	})
}

// sendOperation is an operation that writes content to w. It fails before the first byte
// where possible, because only then the caller always sees the reason.
type sendOperation[In any] struct {
	op api.Operation[In, api.None]
	do func(ctx context.Context, in In, w io.Writer) error
}

func send[In any](op api.Operation[In, api.None], do func(ctx context.Context, in In, w io.Writer) error) operation {
	return sendOperation[In]{op, do}
}

func (o sendOperation[In]) register(b *binding) {
	registerStream(b, b.operation(o.op.Meta), func(w http.ResponseWriter, r *http.Request, in In) {
		b.h.send(r, newDownload(w, string(api.Bytes)), func(w io.Writer) error { return o.do(r.Context(), in, w) })
	})
}

// fileOperation is GetFile, the one operation with byte ranges. It calls part once, before
// the first byte, with the opened file. part returns which n bytes from off on to write.
type fileOperation struct {
	do func(ctx context.Context, in api.FileInput, part func(api.File) (off, n int64, err error), w io.Writer) error
}

func (o fileOperation) register(b *binding) {
	described := b.operation(api.GetFile.Meta)
	described.Parameters = []*huma.Param{{Name: "Range", In: "header", Description: "one range of bytes", Example: "bytes=0-1023",
		Schema: &huma.Schema{Type: huma.TypeString}}}
	described.Responses["206"] = &huma.Response{Description: "The requested range", Content: described.Responses["200"].Content}
	registerStream(b, described, func(w http.ResponseWriter, r *http.Request, in api.FileInput) {
		d, choose := chooseRange(w, r)
		b.h.send(r, d, func(w io.Writer) error { return o.do(r.Context(), in, choose, w) })
	})
}

// followOperation is an operation that reports its progress. It calls progress from one
// goroutine at a time, and not after it has returned.
type followOperation[In, Progress, Report, Event any] struct {
	op    api.Operation[In, Event]
	do    func(ctx context.Context, in In, progress func(Progress)) (Report, error)
	event func(*Progress, *Report, *api.Problem) Event
}

func follow[In, Progress, Report, Event any](op api.Operation[In, Event], do func(context.Context, In, func(Progress)) (Report, error),
	event func(*Progress, *Report, *api.Problem) Event) operation {
	return followOperation[In, Progress, Report, Event]{op, do, event}
}

func (o followOperation[In, Progress, Report, Event]) register(b *binding) {
	registerStream(b, b.operation(o.op.Meta), func(w http.ResponseWriter, r *http.Request, in In) {
		sendEvents(b.h, w, r, func(progress func(Progress)) (Report, error) { return o.do(r.Context(), in, progress) }, o.event)
	})
}

func verifyEvent(p *api.VerifyProgress, report *api.Verified, problem *api.Problem) api.VerifyEvent {
	return api.VerifyEvent{Progress: p, Report: report, Problem: problem}
}

func collectBlobsEvent(p, report *api.CollectedBlobs, problem *api.Problem) api.CollectBlobsEvent {
	return api.CollectBlobsEvent{Progress: p, Report: report, Problem: problem}
}

// registerResult registers an operation whose result is JSON.
func registerResult[In, Out any](b *binding, m api.Meta, do func(context.Context, In) (Out, error)) {
	type result struct{ Body Out }
	huma.Register(b.api, b.operation(m), func(ctx context.Context, in *In) (*result, error) {
		out, err := do(ctx, *in)
		if err != nil {
			return nil, b.h.reportFailure(ctx, err)
		}
		fillLists(&out)
		return &result{out}, nil
	})
}

// registerStream registers an operation that writes its own response.
func registerStream[In any](b *binding, described huma.Operation, respond func(http.ResponseWriter, *http.Request, In)) {
	type result struct{ Body func(huma.Context) }
	huma.Register(b.api, described, func(_ context.Context, in *In) (*result, error) {
		return &result{func(c huma.Context) {
			r, w := humago.Unwrap(c)
			respond(w, r, *in)
		}}, nil
	})
}

// fillLists replaces nil lists of a result by empty ones, because a list is never null
// in JSON.
func fillLists(out any) {
	v := reflect.ValueOf(out).Elem()
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.Slice && f.IsNil() {
			f.Set(reflect.MakeSlice(f.Type(), 0, 0))
		}
	}
}
