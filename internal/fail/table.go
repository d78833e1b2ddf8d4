package fail

import (
	"net/http"

	"keyroll/api"
)

// Row has the meaning of one code in each interface.
type Row struct {
	Code     api.Code
	Status   int    // HTTP status
	Exit     int    // exit status of a command: 1 refused or failed, 2 misuse
	Category string // PowerShell ErrorCategory
	Azure    string // error code of the vault's REST interface
	Retry    bool   // whether the same request may succeed later
}

// Table has one row for each code.
var Table = []Row{
	{api.Internal, http.StatusInternalServerError, 1, "NotSpecified", "InternalServerError", true},
	{api.InvalidArgument, http.StatusBadRequest, 2, "InvalidArgument", "BadParameter", false},
	{api.SyntaxError, http.StatusBadRequest, 2, "ParserError", "BadParameter", false},
	{api.Unauthenticated, http.StatusUnauthorized, 1, "AuthenticationError", "Unauthorized", false},
	{api.Forbidden, http.StatusForbidden, 1, "PermissionDenied", "Forbidden", false},
	{api.NotFound, http.StatusNotFound, 1, "ObjectNotFound", "NotFound", false},
	{api.AlreadyExists, http.StatusConflict, 1, "ResourceExists", "Conflict", false},
	{api.Conflict, http.StatusConflict, 1, "InvalidOperation", "Conflict", false},
	{api.DifferentMail, http.StatusConflict, 1, "InvalidArgument", "Conflict", false},
	{api.RollInProgress, http.StatusConflict, 1, "ResourceBusy", "Conflict", true},
	{api.NoNewVersion, http.StatusConflict, 1, "InvalidOperation", "Conflict", false},
	{api.KeyUnusable, http.StatusUnprocessableEntity, 1, "InvalidArgument", "BadParameter", false},
	{api.VaultDenied, http.StatusForbidden, 1, "SecurityError", "Forbidden", false},
	{api.VaultUnavailable, http.StatusServiceUnavailable, 1, "ConnectionError", "ServiceUnavailable", true},
	{api.TooLarge, http.StatusRequestEntityTooLarge, 1, "LimitsExceeded", "BadParameter", false},
	{api.UnsupportedMediaType, http.StatusUnsupportedMediaType, 1, "InvalidArgument", "BadParameter", false},
	{api.MethodNotAllowed, http.StatusMethodNotAllowed, 1, "InvalidOperation", "MethodNotAllowed", false},
	{api.Truncated, http.StatusBadRequest, 1, "InvalidData", "BadParameter", false},
	{api.RangeNotSatisfiable, http.StatusRequestedRangeNotSatisfiable, 1, "InvalidArgument", "BadParameter", false},
	{api.Damaged, http.StatusInternalServerError, 1, "InvalidData", "InternalServerError", false},
	{api.FolderInUse, http.StatusConflict, 1, "ResourceBusy", "Conflict", true},
	{api.WrongSeal, http.StatusConflict, 1, "SecurityError", "Conflict", false},
	{api.NewerFormat, http.StatusConflict, 1, "InvalidData", "Conflict", false},
	{api.Gone, http.StatusGone, 1, "ObjectNotFound", "NotFound", false},
	{api.Unavailable, http.StatusServiceUnavailable, 1, "ResourceUnavailable", "ServiceUnavailable", true},
	{api.TooManyRequests, http.StatusTooManyRequests, 1, "LimitsExceeded", "Throttled", true},
	{api.InsufficientStorage, http.StatusInsufficientStorage, 1, "WriteError", "ServiceUnavailable", true},
	{api.ReadOnly, http.StatusServiceUnavailable, 1, "WriteError", "ServiceUnavailable", true},
}

// Lookup returns the row of code; a code without a row is Internal.
func Lookup(code api.Code) Row {
	for _, row := range Table {
		if row.Code == code {
			return row
		}
	}
	return Table[0]
}
