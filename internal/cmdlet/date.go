package cmdlet

import (
	"context"
	"strings"
	"time"

	"keyroll/api"
	"keyroll/internal/fail"
)

// layouts are the forms of a date. With slashes the month comes first, as in
// the documentation's examples.
var layouts = []string{
	"1/2/2006 3:04 PM", "1/2/2006 3:04:05 PM", "1/2/2006 15:04", "1/2/2006 15:04:05", "1/2/2006",
	time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02",
}

// parseTime reads a date; without a zone it is in UTC.
func parseTime(s string) (time.Time, error) {
	text := strings.ToUpper(strings.Join(strings.Fields(s), " "))
	for _, layout := range layouts {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fail.New(api.InvalidArgument, "%.100q is not a valid date", s).
		WithHint(`write month/day/year as in "12/27/2016 12:01 AM", or 2016-12-27T00:01:00Z`)
}

func dateCmdlets() []*Cmdlet {
	return []*Cmdlet{{
		Name:     "Get-Date",
		Synopsis: "Returns the current time, or the time given with -Date. Times without a zone are UTC.",
		Example:  `Get-Date -Date "12/27/2016 12:01 AM"`,
		Params: []Param{{Name: "Date", Type: DateTime, Position: 1, PipedText: true,
			Help: "Month/day/year with or without a time of day, or the form of RFC 3339."}},
		Run: func(_ context.Context, c *Call) error {
			if t := c.time("Date"); t != nil {
				return c.emit(*t)
			}
			return c.emit(c.Now().UTC())
		},
	}}
}
