package node

import (
	"net/http"
	"time"

	"keyroll/internal/files"
)

// WithOutage makes the embedded vaults behind a host fall silent while away
// says so: connections to them break off.
func (o Options) WithOutage(away func(host string) bool) Options {
	return o.WithTrouble(func(_ http.ResponseWriter, r *http.Request) bool {
		if away(r.Host) {
			panic(http.ErrAbortHandler)
		}
		return false
	})
}

// WithTrouble lets a test answer requests in place of the node: those of which
// trouble reports that it did.
func (o Options) WithTrouble(trouble func(w http.ResponseWriter, r *http.Request) bool) Options {
	o.trouble = trouble
	return o
}

// WithClock makes the node go by a clock of the test's.
func (o Options) WithClock(now func() time.Time) Options {
	o.now = now
	return o
}

// MakeFolder makes a data folder in a file system.
func MakeFolder(on files.FS, data string) error {
	_, err := makeFolder(on, data)
	return err
}

// LockFolder holds a data folder in a file system.
var LockFolder = lockFolder

// Write writes the description into a data folder in a file system.
func (i Info) Write(on files.FS, data string) error { return i.write(on, data) }
