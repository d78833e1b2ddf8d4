package mbox

import (
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// zones are the named zones of dates, as hours and minutes: those of RFC 5322
// section 4.3, and others that mail programs write and that are unambiguous. Any
// other name says nothing about the zone, like a single letter: it counts as +0000
// by that section.
var zones = map[string]int{
	"UT": 0, "UTC": 0, "GMT": 0, "Z": 0, "WET": 0,
	"EST": -500, "EDT": -400, "CST": -600, "CDT": -500, "MST": -700, "MDT": -600, "PST": -800, "PDT": -700,
	"AST": -400, "ADT": -300, "AKST": -900, "AKDT": -800, "HST": -1000,
	"BST": 100, "WEST": 100, "CET": 100, "MET": 100, "MEZ": 100, "CEST": 200, "MEST": 200, "MESZ": 200, "EET": 200, "EEST": 300, "MSK": 300,
	"JST": 900, "KST": 900, "AEST": 1000, "AEDT": 1100, "NZST": 1200, "NZDT": 1300,
}

const (
	dateTime = `(?P<hour>[0-9]{1,2})[:.](?P<minute>[0-9]{2})(?:[:.](?P<second>[0-9]{2})(?:[.,][0-9]+)?)?(?: ?(?P<half>[AaPp])\.?[Mm]\b\.?)?`
	dateZone = `(?: ?(?P<zone>[A-Za-z][A-Za-z]*)?(?: ?(?P<offset>[+-] ?[0-9]{1,2}:?[0-9]{2}))?(?: ?\b[A-Za-z][A-Za-z ]*)?)`
	dateDay  = `(?:[A-Za-z]+\.?,? ?)?`
)

// dateForms are the forms of a Date field after comments have been removed and white
// space has been reduced to single spaces: that of RFC 5322 with the additions of
// section 4.3 and some common deviations, that of asctime, and that of RFC 3339.
var dateForms = sync.OnceValue(func() []*regexp.Regexp {
	return []*regexp.Regexp{
		regexp.MustCompile(`^` + dateDay + `(?P<day>[0-9]{1,2})[ -]?(?P<month>[A-Za-z]{3,})\.?,?[ -]?(?P<year>[0-9]{2,4}),? ` + dateTime + dateZone + `$`),
		regexp.MustCompile(`^` + dateDay + `(?P<month>[A-Za-z]{3,})\.? (?P<day>[0-9]{1,2}),? ` + dateTime + dateZone + `,? (?P<year>[0-9]{4})$`),
		regexp.MustCompile(`^` + dateDay + `(?P<month>[A-Za-z]{3,})\.? (?P<day>[0-9]{1,2}),? (?P<year>[0-9]{4}),? ` + dateTime + dateZone + `$`),
		regexp.MustCompile(`^(?P<year>[0-9]{4})-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})[Tt ]` + dateTime + dateZone + `$`),
	}
})

const months = "janfebmaraprmayjunjulaugsepoctnovdec"

// readDate returns the time of a Date field in UTC, independent of the zone of the
// process, and the zero time for a value that is not a date or is outside the years
// 1 to 9999, which JSON cannot represent.
func readDate(value string) time.Time {
	value = strings.Join(strings.Fields(withoutComments(value)), " ")
	value = strings.NewReplacer(" ,", ",", " : ", ":", " :", ":", ": ", ":").Replace(value)
	for _, form := range dateForms() {
		if found := form.FindStringSubmatch(value); found != nil {
			parts := map[string]string{}
			for i, name := range form.SubexpNames() {
				parts[name] = found[i]
			}
			return dateOf(parts)
		}
	}
	return time.Time{}
}

// dateOf returns the time of the parts of a date, and the zero time if they are not valid.
func dateOf(parts map[string]string) time.Time {
	number := func(name string) int {
		n, _ := strconv.Atoi(parts[name])
		return n
	}
	month := number("month")
	if name := strings.ToLower(parts["month"]); month == 0 && len(name) >= 3 {
		if i := strings.Index(months, name[:3]); i%3 == 0 {
			month = i/3 + 1
		}
	}
	year := number("year")
	switch { // RFC 5322, section 4.3
	case len(parts["year"]) == 2 && year < 50:
		year += 2000
	case len(parts["year"]) < 4:
		year += 1900
	}
	hour, minute, second, day := number("hour"), number("minute"), number("second"), number("day")
	if half := strings.ToLower(parts["half"]); half != "" {
		if hour < 1 || hour > 12 {
			return time.Time{}
		}
		hour %= 12
		if half == "p" {
			hour += 12
		}
	}
	if month < 1 || month > 12 || hour > 23 || minute > 59 || second > 60 || len(parts["month"]) < 2 {
		return time.Time{}
	}
	midnight := time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC)
	if midnight.Day() != day {
		return time.Time{}
	}
	date := time.Date(year, time.Month(month), day, hour, minute, second, 0, time.UTC).Add(-zoneOf(parts["zone"], parts["offset"]))
	if date.Year() < 1 || date.Year() > 9999 {
		return time.Time{}
	}
	return date
}

// zoneOf returns the offset of a zone from UTC, positive to the east. A numeric
// offset overrides the name before it.
func zoneOf(name, offset string) time.Duration {
	n := zones[strings.ToUpper(name)]
	if offset != "" {
		n, _ = strconv.Atoi(strings.NewReplacer(" ", "", ":", "", "+", "").Replace(offset))
	}
	return time.Duration(n/100)*time.Hour + time.Duration(n%100)*time.Minute
}

// withoutComments removes comments in parentheses (RFC 5322, section 3.2.2). A
// comment that is not closed extends to the end of the value.
func withoutComments(value string) string {
	var kept strings.Builder
	depth := 0
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case c == '(':
			depth++
		case c == ')' && depth > 0:
			depth--
			kept.WriteByte(' ')
		case c == '\\' && depth > 0:
			i++
		case depth == 0:
			kept.WriteByte(c)
		}
	}
	return kept.String()
}
