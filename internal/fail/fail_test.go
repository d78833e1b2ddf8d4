package fail_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/fail"
)

// codes returns the codes of package api, from its source.
func codes(t *testing.T) (list []api.Code) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../../api/code.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		name, ok := spec.Type.(*ast.Ident)
		if !ok || name.Name != "Code" || len(spec.Values) != len(spec.Names) {
			t.Errorf("%s is no constant of type Code with a value", spec.Names[0])
			return true
		}
		for i, value := range spec.Values {
			text, err := strconv.Unquote(value.(*ast.BasicLit).Value)
			if err != nil {
				t.Error(err)
			}
			if text != spec.Names[i].Name {
				t.Errorf("code %s is spelled %q", spec.Names[i].Name, text)
			}
			list = append(list, api.Code(text))
		}
		return true
	})
	if len(list) == 0 {
		t.Fatal("package api has no codes")
	}
	return list
}

func TestEveryCodeHasExactlyOneRow(t *testing.T) {
	all := codes(t)
	rows := map[api.Code]int{}
	for _, row := range fail.Table {
		rows[row.Code]++
		if !slices.Contains(all, row.Code) {
			t.Errorf("row %s is of no code", row.Code)
		}
	}
	for _, code := range all {
		if rows[code] != 1 {
			t.Errorf("code %s has %d rows", code, rows[code])
		}
		if fail.Lookup(code).Code != code {
			t.Errorf("code %s is looked up as %s", code, fail.Lookup(code).Code)
		}
	}
	if row := fail.Lookup("never heard of"); row.Code != api.Internal {
		t.Errorf("an unknown code is %s", row.Code)
	}
}

// PowerShell's categories of errors (System.Management.Automation.ErrorCategory).
var categories = strings.Fields(`NotSpecified OpenError CloseError DeviceError DeadlockDetected InvalidArgument InvalidData InvalidOperation InvalidResult
	InvalidType MetadataError NotImplemented NotInstalled ObjectNotFound OperationStopped OperationTimeout SyntaxError ParserError PermissionDenied ResourceBusy
	ResourceExists ResourceUnavailable ReadError WriteError FromStdErr SecurityError ProtocolError ConnectionError AuthenticationError LimitsExceeded QuotaExceeded NotEnabled`)

func TestRowsHaveValidStatusesAndCategories(t *testing.T) {
	for _, row := range fail.Table {
		if row.Status < 400 || row.Status > 599 {
			t.Errorf("%s: HTTP status %d", row.Code, row.Status)
		}
		if misuse := row.Code == api.InvalidArgument || row.Code == api.SyntaxError; row.Exit != 1 && !misuse || misuse && row.Exit != 2 {
			t.Errorf("%s: exit status %d", row.Code, row.Exit)
		}
		if !slices.Contains(categories, row.Category) {
			t.Errorf("%s: PowerShell has no category %q", row.Code, row.Category)
		}
		if row.Azure == "" {
			t.Errorf("%s has no Azure code", row.Code)
		}
		if row.Status == 503 && !row.Retry {
			t.Errorf("%s: unavailable, and not to be tried again", row.Code)
		}
	}
}

func TestCodeOfReturnsTheCodeOfTheOutermostError(t *testing.T) {
	inner := fail.New(api.NotFound, "read: it is not there")
	for name, c := range map[string]struct {
		err  error
		want api.Code
	}{
		"itself":            {inner, api.NotFound},
		"with context":      {fmt.Errorf("open: %w", inner), api.NotFound},
		"within another":    {fail.New(api.Damaged, "open: %w", inner), api.Damaged},
		"joined":            {errors.Join(errors.New("x"), inner), api.NotFound},
		"a foreign one":     {errors.New("x"), api.Internal},
		"nothing":           {nil, api.Internal},
		"because of a code": {fail.New(api.Conflict, "x").Because(inner), api.Conflict},
	} {
		if got := fail.CodeOf(c.err); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
		if fail.Is(c.err, c.want) != (c.err != nil) {
			t.Errorf("%s: Is says otherwise than CodeOf", name)
		}
	}
	if !errors.Is(fail.New(api.Conflict, "x").Because(inner), inner) || !errors.Is(fail.New(api.Conflict, "x: %w", inner), inner) {
		t.Error("a cause is lost")
	}
}

func TestPublicShowsNoForeignText(t *testing.T) {
	secret := errors.New("password=hunter2")
	for name, c := range map[string]struct {
		err          error
		code         api.Code
		detail, hint string
	}{
		"a detail with its hint":  {fmt.Errorf("a: %w", fail.New(api.NotFound, "b %d", 7).WithHint("look at %s", "c")), api.NotFound, "a: b 7", "look at c"},
		"a cause is not shown":    {fail.New(api.VaultUnavailable, "x").Because(secret), api.VaultUnavailable, "x", ""},
		"a foreign error":         {fmt.Errorf("a: %w", secret), api.Internal, "", ""},
		"an internal error":       {fail.New(api.Internal, "x %w", secret), api.Internal, "", ""},
		"internal around another": {fail.New(api.Internal, "x %w", fail.New(api.NotFound, "y")), api.Internal, "", ""},
	} {
		code, detail, hint := fail.Public(c.err)
		if code != c.code || hint != c.hint || c.detail != "" && detail != c.detail || strings.Contains(detail, "hunter2") || detail == "" {
			t.Errorf("%s: %s, %q, %q", name, code, detail, hint)
		}
	}
}
