package api

import (
	"net/http"
	"time"
)

// MailFormat says how the messages of an mbox are separated.
type MailFormat string

const (
	// AutoFormat uses lines that begin with "From ", the lines around them, and a
	// Content-Length that is right.
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
	Before   int64 `json:"messagesBefore" doc:"messages that were stored before the import was continued; messages and bytes count only the ones stored since"`
	// NoEmptyLine and FromText count places where the mbox may have been meant
	// differently from how it was read.
	NoEmptyLine int64 `json:"separatorsWithoutEmptyLine" doc:"messages that begin without an empty line before their From line"`
	FromText    int64 `json:"fromLinesInText" doc:"lines that begin with From and were read as text"`
}

// MailImport is an import of mail, finished or not.
type MailImport struct {
	Import   string     `json:"import" doc:"name that the caller chose"`
	Format   MailFormat `json:"format"`
	Messages int64      `json:"messages" doc:"messages that are stored"`
	Bytes    int64      `json:"bytes" doc:"bytes of the mbox up to the end of the last stored message"`
	Finished bool       `json:"finished" doc:"whether all of the mbox is stored"`
	Started  time.Time  `json:"started"`
	Changed  time.Time  `json:"changed" doc:"when messages were last stored"`
}

type (
	ImportMailInput struct {
		MailboxInput
		Format MailFormat `query:"format" enum:"auto,mboxrd,mboxcl2" doc:"how messages are separated; default: auto. mboxrd: at each line that begins with From. mboxcl2: by Content-Length"`
		Import string     `query:"import" maxLength:"64" doc:"a name for the import, chosen by the caller. An import of the same name with the same mbox from its beginning continues after the messages that are stored; with another mbox it fails with DifferentMail"`
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
		Summary: "List the unfinished imports, which can be continued, the latest first"})
	StopMailImport = define[MailImportInput, MailImport](Meta{Name: "StopMailImport", Method: http.MethodPost, Path: "/v1/mailboxes/{mailbox}/imports/{import}/stop",
		Summary: "Stop an import and return how much it has stored; it can be continued"})
)
