package server

import (
	"context"
	"io"
	"net/http"
	"reflect"
	"runtime"
	"testing"

	"keyroll/api"
	"keyroll/internal/principals"
	"keyroll/internal/service"
)

// Fake replaces the methods of the service in the table, one method for each form of
// operation. A result that is nil stands for the zero value.
type Fake interface {
	CheckRole(context.Context, api.Meta) error
	Call(ctx context.Context, name string, in any) (any, error)
	Receive(ctx context.Context, name string, in any, size int64, r io.Reader) (any, error)
	Send(ctx context.Context, name string, in any, w io.Writer) error
	GetFile(ctx context.Context, in api.FileInput, part func(api.File) (off, n int64, err error), w io.Writer) error
	Follow(ctx context.Context, name string, in any, progress func(any)) (any, error)
}

// unbound is a service whose methods have names and cannot be called.
func unbound() *service.Service { return &service.Service{Principals: &principals.Principals{}} }

// NewWithFake returns the handler of New over the same table, with f for the service.
func NewWithFake(c Config, f Fake) http.Handler {
	table := operations(unbound())
	for i, op := range table {
		table[i] = op.(fakeable).with(f)
	}
	return newHandler(c, f.CheckRole, table)
}

// fakeable is implemented by each form of operation.
type fakeable interface {
	with(Fake) operation
	method() (name string, do any)
}

func typed[Out any](got any, err error) (out Out, _ error) {
	if got != nil {
		out = got.(Out)
	}
	return out, err
}

func (o callOperation[In, Out]) with(f Fake) operation {
	return call(o.op, func(ctx context.Context, in In) (Out, error) { return typed[Out](f.Call(ctx, o.op.Name, in)) })
}

func (o receiveOperation[In, Out]) with(f Fake) operation {
	return receive(o.op, func(ctx context.Context, in In, size int64, r io.Reader) (Out, error) {
		return typed[Out](f.Receive(ctx, o.op.Name, in, size, r))
	})
}

func (o sendOperation[In]) with(f Fake) operation {
	return send(o.op, func(ctx context.Context, in In, w io.Writer) error { return f.Send(ctx, o.op.Name, in, w) })
}

func (o fileOperation) with(f Fake) operation { return fileOperation{f.GetFile} }

func (o followOperation[In, Progress, Report, Event]) with(f Fake) operation {
	return follow(o.op, func(ctx context.Context, in In, progress func(Progress)) (Report, error) {
		return typed[Report](f.Follow(ctx, o.op.Name, in, func(p any) { progress(p.(Progress)) }))
	}, o.event)
}

func (o callOperation[In, Out]) method() (string, any)    { return o.op.Name, o.do }
func (o receiveOperation[In, Out]) method() (string, any) { return o.op.Name, o.do }
func (o sendOperation[In]) method() (string, any)         { return o.op.Name, o.do }
func (o fileOperation) method() (string, any)             { return api.GetFile.Name, o.do }
func (o followOperation[In, Progress, Report, Event]) method() (string, any) {
	return o.op.Name, o.do
}

// The compiler compares types only, and several operations have the same.
func TestEachOperationIsDoneByTheMethodOfItsName(t *testing.T) {
	bound := map[string]int{}
	for _, op := range operations(unbound()) {
		name, do := op.(fakeable).method()
		bound[name]++
		if f := runtime.FuncForPC(reflect.ValueOf(do).Pointer()).Name(); f != "keyroll/internal/service.(*Service)."+name+"-fm" && f != "keyroll/internal/principals.(*Principals)."+name+"-fm" {
			t.Errorf("%s is done by %s", name, f)
		}
	}
	for _, m := range api.Operations() {
		if bound[m.Name] != 1 {
			t.Errorf("%s is %d times in the table", m.Name, bound[m.Name])
		}
	}
}
