package cmdlet

import (
	"strings"

	"keyroll/internal/fail"
)

// mostSimilar returns the candidate that is most similar to name, or "".
func mostSimilar(name string, candidates []string) string {
	best, distance := "", max(2, len(name)/4)+1
	for _, c := range candidates {
		if d := edits(strings.ToLower(name), strings.ToLower(c)); d < distance {
			best, distance = c, d
		}
	}
	for _, c := range candidates {
		if best == "" && len(name) > 3 && len(c) > len(name) && strings.EqualFold(c[:len(name)], name) {
			best = c
		}
	}
	return best
}

// edits counts the letters to insert, delete or replace between two words
// (Levenshtein's distance).
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}

// suggest adds the most similar candidate, if there is one, as the hint.
func suggest(err *fail.Error, prefix, name string, candidates []string) *fail.Error {
	if n := mostSimilar(name, candidates); n != "" {
		return err.WithHint("did you mean %s%s?", prefix, n)
	}
	return err
}
