package node

import (
	"net/http"
	"time"

	"keyroll/internal/files"
)

// WithOutage makes the embedded vaults of the hosts for which away returns true
// unavailable: connections to them are cut.
func (o Options) WithOutage(away func(host string) bool) Options {
	return o.WithTrouble(func(_ http.ResponseWriter, r *http.Request) bool {
		if away(r.Host) {
			panic(http.ErrAbortHandler)
		}
		return false
	})
}

// WithTrouble lets a test answer requests instead of the node: those for which trouble
// returns true.
func (o Options) WithTrouble(trouble func(w http.ResponseWriter, r *http.Request) bool) Options {
	o.trouble = trouble
	return o
}

// WithClock makes the node use a clock of the test.
func (o Options) WithClock(now func() time.Time) Options {
	o.now = now
	return o
}

// MakeFolder makes a data folder in a file system.
func MakeFolder(on files.FS, data string) error {
	_, err := makeFolder(on, data)
	return err
}

// LockFolder locks a data folder in a file system.
var LockFolder = lockFolder

// Write writes InfoFile to a data folder in a file system.
func (i Info) Write(on files.FS, data string) error { return i.write(on, data) }
