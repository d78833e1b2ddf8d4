package main

import (
	"strings"

	"keyroll/api"
)

// damaged is what lists could not show because it does not open.
type damaged []string

func (d *damaged) add(entries []string) { *d = append(*d, entries...) }

// failure is how a command ends that has shown all but what is damaged.
func (d damaged) failure() error {
	if len(d) == 0 {
		return nil
	}
	return &api.Problem{Code: api.Damaged, Detail: "what is damaged is not listed: " + strings.Join(d, "; "),
		Hint: "all else is; keyroll verify names everything that is damaged, and docs/damage.md says how to bring it back"}
}
