package main

import (
	"strings"

	"keyroll/api"
)

// damaged collects the entries that lists could not show because they cannot be decrypted.
type damaged []string

func (d *damaged) add(entries []string) { *d = append(*d, entries...) }

// failure returns the error of a command that has shown everything except damaged entries.
func (d damaged) failure() error {
	if len(d) == 0 {
		return nil
	}
	return &api.Problem{Code: api.Damaged, Detail: "some entries are damaged and not listed: " + strings.Join(d, "; "),
		Hint: "all others are listed; keyroll verify finds everything that is damaged, and docs/damage.md describes how to repair it"}
}
