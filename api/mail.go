package api

import (
	"net/http"
	"time"
)

// MailFormat says how the messages of an mbox are told apart.
type MailFormat string

const (
	// AutoFormat goes by lines that begin with "From " and what is around them,
	// and by a Content-Length that is right.
	AutoFormat MailFormat = "auto"
	// MboxRD begins a message at each line that begins with "From ": for files
	// whose text has no such line because it was quoted (mboxrd, mboxo).
	MboxRD MailFormat = "mboxrd"
	// MboxCL2 ends each message where its Content-Length says, and fails where
	// that is wrong. A message without one is as in AutoFormat.
	MboxCL2 MailFormat = "mboxcl2"
)

// Imported is the outcome of an import.
type Imported struct {
	Messages int64 `json:"messages"`
	Bytes    int64 `json:"bytes"`
	Before   int64 `json:"messagesBefore" doc:"messages that were stored before the import was continued; messages and bytes count what came since"`
	// NoEmptyLine and FromText are where the mbox may mean something else than
	// what was taken from it.
	NoEmptyLine int64 `json:"separatorsWithoutEmptyLine" doc:"messages that begin without an empty line before their From line"`
	FromText    int64 `json:"fromLinesInText" doc:"lines that begin with From and were taken for text"`
}

// MailImport is an import of mail that did not finish, or did.
type MailImport struct {
	Import   string     `json:"import" doc:"the name that its caller chose"`
	Format   MailFormat `json:"format"`
	Messages int64      `json:"messages" doc:"that are stored"`
	Bytes    int64      `json:"bytes" doc:"of the mbox, up to the end of the last message that is stored"`
	Finished bool       `json:"finished" doc:"all of the mbox is stored"`
	Started  time.Time  `json:"started"`
	Changed  time.Time  `json:"changed" doc:"when messages were last stored"`
}

type (
	ImportMailInput struct {
		MailboxInput
		Format MailFormat `query:"format" enum:"auto,mboxrd,mboxcl2" doc:"how messages are told apart; default: auto. mboxrd: each line that begins with From opens one. mboxcl2: Content-Length ends them"`
		Import string     `query:"import" maxLength:"64" doc:"a name for the import, chosen by the caller. An import of the same name, of the same mbox from its beginning, goes on after the messages that are stored; of another mbox it fails DifferentMail"`
	}
	// MailImportInput names an import into a mailbox.
	MailImportInput struct {
		MailboxInput
		Import string `path:"import" maxLength:"64" doc:"name of the import"`
	}
)

// Imports of mail.
var (
	ImportMail = define[ImportMailInput, Imported](Meta{Name: "ImportMail", Method: http.MethodPost, Path: "/v1/mailboxes/{mailbox}/mbox",
		Summary: "Import messages from an mbox", Sends: Bytes})
	ListMailImports = define[MailboxInput, List[MailImport]](Meta{Name: "ListMailImports", Method: http.MethodGet, Path: "/v1/mailboxes/{mailbox}/imports",
		Summary: "List the imports that did not finish and can be continued, the latest first"})
	StopMailImport = define[MailImportInput, MailImport](Meta{Name: "StopMailImport", Method: http.MethodPost, Path: "/v1/mailboxes/{mailbox}/imports/{import}/stop",
		Summary: "Keep an import from storing more, and say how much it has stored; it can be continued"})
)
