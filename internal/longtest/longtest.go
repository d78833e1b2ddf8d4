// Package longtest says how much a test does: long tests, such as a model run in many
// orders or a crash at every fault point, run partly in make test and completely in
// make test-long.
package longtest

import "os"

// On reports whether tests run at full length: make test-long sets the
// environment variable KEYROLL_TEST_LONG.
func On() bool { return os.Getenv("KEYROLL_TEST_LONG") != "" }

// Of returns a number of repetitions: short in make test, long in make test-long.
func Of(short, long int) int {
	if On() {
		return long
	}
	return short
}
