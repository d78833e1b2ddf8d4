package api

// Code is the kind of a failure. It is the "code" member of a problem document
// (RFC 9457), and its meaning never changes.
type Code string

const (
	// Internal is a failure of keyroll itself. Its cause is logged, never shown.
	Internal Code = "Internal"
	// InvalidArgument is input that no state of the system would accept.
	InvalidArgument Code = "InvalidArgument"
	// SyntaxError is text that is not valid in the cmdlet language.
	SyntaxError Code = "SyntaxError"
	// Unauthenticated is a request without a valid token.
	Unauthenticated Code = "Unauthenticated"
	// Forbidden is a request that its principal may not make.
	Forbidden Code = "Forbidden"
	// NotFound is a name or an identifier that names nothing the principal may see.
	NotFound Code = "NotFound"
	// AlreadyExists is a name that is taken.
	AlreadyExists Code = "AlreadyExists"
	// DifferentMail is an mbox that is not the one whose import is to be continued.
	DifferentMail Code = "DifferentMail"
	// Conflict is an operation that the present state does not allow.
	Conflict Code = "Conflict"
	// RollInProgress is a roll or an update refused because another one runs.
	RollInProgress Code = "RollInProgress"
	// NoNewVersion is a refresh that found no newer usable key version.
	NoNewVersion Code = "NoNewVersion"
	// KeyUnusable is a customer key that cannot serve: of the wrong type,
	// disabled, expired, not yet valid, or without an operation it needs.
	KeyUnusable Code = "KeyUnusable"
	// VaultDenied is a refusal by a vault that its owner caused deliberately.
	VaultDenied Code = "VaultDenied"
	// VaultUnavailable is a vault that did not answer, or not usably.
	VaultUnavailable Code = "VaultUnavailable"
	// TooLarge is content or input over a stated limit.
	TooLarge Code = "TooLarge"
	// UnsupportedMediaType is a body in a content coding, or of a type, that is not accepted.
	UnsupportedMediaType Code = "UnsupportedMediaType"
	// MethodNotAllowed is a method that a path does not have, where it has others.
	MethodNotAllowed Code = "MethodNotAllowed"
	// Truncated is a transfer that ended before its stated length.
	Truncated Code = "Truncated"
	// RangeNotSatisfiable is a byte range outside the content.
	RangeNotSatisfiable Code = "RangeNotSatisfiable"
	// Damaged is stored data that cannot be decrypted or does not belong where it is.
	Damaged Code = "Damaged"
	// FolderInUse is a data folder that another process holds.
	FolderInUse Code = "FolderInUse"
	// WrongSeal is a database that was made under another seal.
	WrongSeal Code = "WrongSeal"
	// NewerFormat is data written by a newer keyroll.
	NewerFormat Code = "NewerFormat"
	// Gone is content or a policy that was purged, irreversibly.
	Gone Code = "Gone"
	// Unavailable is a server that is starting, draining, or not reached.
	Unavailable Code = "Unavailable"
	// TooManyRequests is a request that was refused because too many others are
	// under way; Retry-After says when to send it again.
	TooManyRequests Code = "TooManyRequests"
	// InsufficientStorage is a database or a blob store that is full.
	InsufficientStorage Code = "InsufficientStorage"
	// ReadOnly is a database or a blob store that accepts no writes.
	ReadOnly Code = "ReadOnly"
)
