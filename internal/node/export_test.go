package node

import "time"

// WithOutage makes the embedded vaults behind a host fall silent while away
// says so: connections to them break off.
func (o Options) WithOutage(away func(host string) bool) Options {
	o.outage = away
	return o
}

// WithClock makes the node go by a clock of the test's.
func (o Options) WithClock(now func() time.Time) Options {
	o.now = now
	return o
}
