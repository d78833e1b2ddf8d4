package server

import (
	"context"
	"io"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/httpcheck"
)

// bind binds each operation to its method, one per line, and returns the OpenAPI
// document.
func (h *handler) bind() *huma.OpenAPI {
	b, s := newBinding(h), h.Service

	call(b, api.CreateMailbox, s.CreateMailbox)
	call(b, api.ListMailboxes, s.ListMailboxes)
	call(b, api.ShowMailbox, s.ShowMailbox)
	call(b, api.SetMailboxState, s.SetMailboxState)
	call(b, api.AssignMailbox, s.AssignMailbox)
	call(b, api.ImportMail, receive(s.ImportMail))
	call(b, api.ListMailImports, s.ListMailImports)
	call(b, api.StopMailImport, s.StopMailImport)
	stream(b, api.ExportMail, send(h, s.ExportMail))
	call(b, api.ListMessages, s.ListMessages)
	stream(b, api.ReadMessage, send(h, s.ReadMessage))

	call(b, api.CreateSite, s.CreateSite)
	call(b, api.ListSites, s.ListSites)
	call(b, api.ShowSite, s.ShowSite)
	call(b, api.ListFiles, s.ListFiles)
	call(b, api.PutFile, receive(s.PutFile))
	stream(b, api.GetFile, h.sendFile)

	call(b, api.CreatePolicy, s.CreatePolicy)
	call(b, api.CheckKeys, s.CheckKeys)
	call(b, api.RegisterSites, s.RegisterSites)
	call(b, api.ListPolicies, s.ListPolicies)
	call(b, api.ShowPolicy, s.ShowPolicy)
	call(b, api.RefreshPolicy, s.RefreshPolicy)
	call(b, api.UpdatePolicy, s.UpdatePolicy)
	call(b, api.TestPolicy, s.TestPolicy)
	call(b, api.SetPolicy, s.SetPolicy)
	call(b, api.ReplacePolicyKeys, s.ReplacePolicyKeys)
	call(b, api.LeavePolicy, s.LeavePolicy)
	call(b, api.AssignPolicy, s.AssignPolicy)
	call(b, api.ShowAssignment, s.ShowAssignment)

	call(b, api.ListWorkloads, s.ListWorkloads)
	call(b, api.ListWorkloadItems, s.ListWorkloadItems)
	call(b, api.PutWorkloadItem, receive(s.PutWorkloadItem))
	stream(b, api.GetWorkloadItem, send(h, s.GetWorkloadItem))

	call(b, api.RollAvailabilityKeys, s.RollAvailabilityKeys)

	call(b, api.CreateBackup, s.CreateBackup)
	call(b, api.ListBackups, s.ListBackups)
	call(b, api.RestoreBackup, s.RestoreBackup)
	call(b, api.ExpireBackup, s.ExpireBackup)
	call(b, api.AbandonContainer, s.AbandonContainer)

	call(b, api.ListRolls, s.ListRolls)
	call(b, api.ShowRoll, s.ShowRoll)
	call(b, api.PauseRoll, s.PauseRoll)
	call(b, api.ResumeRoll, s.ResumeRoll)
	call(b, api.CancelRoll, s.CancelRoll)

	call(b, api.CreateTenant, s.CreateTenant)
	call(b, api.ListTenants, s.ListTenants)
	call(b, api.ShowTenant, s.ShowTenant)
	call(b, api.SetTenant, s.SetTenant)
	call(b, api.CreateGeo, s.CreateGeo)
	call(b, api.ListGeos, s.ListGeos)

	call(b, api.AddPurgeApprover, s.AddPurgeApprover)
	call(b, api.ListPurgeApprovers, s.ListPurgeApprovers)
	call(b, api.RequestPurge, s.RequestPurge)
	call(b, api.ShowPurge, s.ShowPurge)
	call(b, api.ListPurges, s.ListPurges)
	call(b, api.ApprovePurge, s.ApprovePurge)
	call(b, api.RecoverPolicy, s.RecoverPolicy)
	call(b, api.RestoreSites, s.RestoreSites)

	call(b, api.ListKeyUsage, s.ListKeyUsage)
	stream(b, api.Verify, h.sendVerify)
	stream(b, api.CollectBlobs, h.sendCollection)
	return b.document()
}

// routes is the mux for huma. It adds the checks that all operations share to each
// route.
type routes struct {
	http.Handler
	h *handler
}

func (t routes) HandleFunc(pattern string, next func(http.ResponseWriter, *http.Request)) {
	t.h.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			t.h.notFound(w, r) // the mux would route HEAD as GET; the table has no HEAD
			return
		}
		requestOf(r.Context()).route = pattern
		err := t.h.Service.CheckRole(r.Context(), t.h.operations[pattern])
		if err == nil {
			err = httpcheck.CheckCoding(r)
		}
		if err == nil {
			err = checkQuery(r.URL.RawQuery)
		}
		if err != nil {
			u := newUpload(w, r)
			t.h.refuse(w, r, err)
			u.linger()
			return
		}
		next(w, r)
	})
}

// prepareBody returns a middleware that prepares the body of a request for its operation.
func (h *handler) prepareBody(sends api.Body) func(huma.Context, func(huma.Context)) {
	return func(c huma.Context, next func(huma.Context)) {
		r, w := humago.Unwrap(c)
		switch sends {
		case api.JSON:
			if err := readJSON(w, r); err != nil {
				h.refuse(w, r, err)
				return
			}
		case api.Bytes:
			u := newUpload(w, r)
			next(huma.WithValue(c, uploadKey{}, u))
			u.linger()
			return
		default:
			if r.ContentLength != 0 {
				h.refuse(w, r, fail.New(api.InvalidArgument, "the operation has no request body"))
				return
			}
		}
		next(c)
	}
}

// call serves an operation whose result is JSON.
func call[In, Out any](b *binding, op api.Operation[In, Out], f func(context.Context, In) (Out, error)) {
	type result struct{ Body Out }
	huma.Register(b.api, b.operation(op.Meta), func(ctx context.Context, in *In) (*result, error) {
		out, err := f(ctx, *in)
		if err != nil {
			return nil, b.h.reportFailure(ctx, err)
		}
		fillLists(&out)
		return &result{out}, nil
	})
}

// receive adapts f, which reads the content of the request.
func receive[In, Out any](f func(context.Context, In, int64, io.Reader) (Out, error)) func(context.Context, In) (Out, error) {
	return func(ctx context.Context, in In) (Out, error) {
		u := ctx.Value(uploadKey{}).(*upload)
		return f(ctx, in, u.size, u)
	}
}

// stream serves an operation that writes its own response.
func stream[In, Out any](b *binding, op api.Operation[In, Out], f func(http.ResponseWriter, *http.Request, In)) {
	type result struct{ Body func(huma.Context) }
	huma.Register(b.api, b.operation(op.Meta), func(_ context.Context, in *In) (*result, error) {
		return &result{func(c huma.Context) {
			r, w := humago.Unwrap(c)
			f(w, r, *in)
		}}, nil
	})
}

// send answers with the content that f writes.
func send[In any](h *handler, f func(context.Context, In, io.Writer) error) func(http.ResponseWriter, *http.Request, In) {
	return func(w http.ResponseWriter, r *http.Request, in In) {
		h.send(r, newDownload(w, string(api.Bytes)), func(w io.Writer) error { return f(r.Context(), in, w) })
	}
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
