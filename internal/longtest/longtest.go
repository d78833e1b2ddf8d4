// Package longtest says how much a test does: what is long by nature, a model
// run in many orders or a death at every point, is done in part by make test and
// whole by make test-long.
package longtest

import "os"

// On reports whether tests run at full length: make test-long sets the
// environment variable KEYROLL_TEST_LONG.
func On() bool { return os.Getenv("KEYROLL_TEST_LONG") != "" }

// Of returns how often something is done: short times in make test, long times in
// make test-long.
func Of(short, long int) int {
	if On() {
		return long
	}
	return short
}
