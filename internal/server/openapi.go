package server

import (
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"keyroll/api"
	"keyroll/internal/fail"
)

// binding is the state of huma while the operations of a handler are bound.
type binding struct {
	h       *handler
	api     huma.API
	schemas huma.Registry
}

const bearer = "bearer" // name of the security scheme

func newBinding(h *handler) *binding {
	format := huma.Format{Marshal: encodeJSON, Unmarshal: decodeJSON}
	// huma.DefaultConfig is not used: its hooks put $schema, with the request's host,
	// into each response, and it serves pages that load scripts from other hosts.
	config := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{Title: "keyroll service API", Version: "1",
				Description: "Customer keys for a multi-tenant service. A failure is a problem document (RFC 9457) with a code and, where possible, a hint."},
			Components: &huma.Components{
				Schemas:         huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{bearer: {Type: "http", Scheme: "bearer"}},
			},
			Security: []map[string][]string{{bearer: {}}},
		},
		Formats:                      map[string]huma.Format{string(api.JSON): format, "json": format},
		DefaultFormat:                string(api.JSON),
		RejectUnknownQueryParameters: true,
	}
	schemas := config.Components.Schemas
	schemas.RegisterTypeAlias(reflect.TypeFor[problem](), reflect.TypeFor[api.Problem]())
	b := &binding{h, humago.New(routes{h.mux, h}, config), schemas}
	return b
}

func (b *binding) schema(t reflect.Type) *huma.Schema { return b.schemas.Schema(t, true, "") }

// operation describes m for huma; parameters and JSON bodies follow from the input's
// type.
func (b *binding) operation(m api.Meta) huma.Operation {
	b.h.operations[m.Method+" "+m.Path] = m
	op := huma.Operation{
		OperationID: m.Name, Method: m.Method, Path: m.Path, Summary: m.Summary,
		Extensions:      map[string]any{"x-roles": m.Roles},
		Middlewares:     huma.Middlewares{b.h.prepareBody(m.Sends)},
		MaxBodyBytes:    maxJSON + 1, // readJSON has checked the size; huma refuses at this number
		BodyReadTimeout: -1,          // no timeout from here on: it would end the operation, not only the body
	}
	problems := &huma.Response{Description: "The operation was refused or failed",
		Content: map[string]*huma.MediaType{problemType: {Schema: b.schema(reflect.TypeFor[api.Problem]())}}}
	op.Responses = map[string]*huma.Response{"200": {Description: "Done"}, "default": problems}
	content := &huma.Schema{Type: huma.TypeString, Format: "binary"}
	if m.Sends == api.Bytes {
		op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{string(m.Sends): {Schema: content}}}
	}
	switch m.Returns {
	case api.Bytes:
		op.Responses["200"].Content = map[string]*huma.MediaType{string(m.Returns): {Schema: content}}
	case api.Lines:
		op.Responses["200"].Description = "JSON objects, one per line"
		op.Responses["200"].Content = map[string]*huma.MediaType{string(m.Returns): {Schema: b.schema(m.Out)}}
	}
	return op
}

// document completes the OpenAPI document with what the types do not express.
func (b *binding) document() *huma.OpenAPI {
	code := b.schemas.Map()["Problem"].Properties["code"]
	for _, row := range fail.Table {
		code.Enum = append(code.Enum, string(row.Code))
	}
	return b.api.OpenAPI()
}
