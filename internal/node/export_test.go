package node

// WithOutage makes the embedded vaults behind a host fall silent while away
// says so: connections to them break off.
func (o Options) WithOutage(away func(host string) bool) Options {
	o.outage = away
	return o
}
