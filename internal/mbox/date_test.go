package mbox_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"keyroll/internal/mbox"
)

func TestDatesAreReadAsMailProgramsWriteThem(t *testing.T) {
	for value, want := range map[string]string{
		"Fri, 21 Nov 1997 09:55:06 -0600":                                   "1997-11-21T15:55:06Z",
		"Thu, 19 Sep 91 12:41:43 EDT":                                       "1991-09-19T16:41:43Z",
		"Sun, 27 Oct 2002 23:57:07 EST":                                     "2002-10-28T04:57:07Z",
		"Wed, 9 Jan 2002 19:47:50 MST":                                      "2002-01-10T02:47:50Z",
		"1 Jan 2024 00:00:00 CST":                                           "2024-01-01T06:00:00Z",
		"1 Jan 2024 00:00:00 cdt":                                           "2024-01-01T05:00:00Z",
		"1 Jan 2024 00:00:00 PST":                                           "2024-01-01T08:00:00Z",
		"1 Jan 2024 00:00:00 PDT":                                           "2024-01-01T07:00:00Z",
		"1 Jan 2024 00:00:00 MDT":                                           "2024-01-01T06:00:00Z",
		"1 Jan 2024 00:00:00 UT":                                            "2024-01-01T00:00:00Z",
		"1 Jan 2024 00:00:00 GMT":                                           "2024-01-01T00:00:00Z",
		"1 Jan 2024 00:00:00 Z":                                             "2024-01-01T00:00:00Z",
		"1 Jan 2024 00:00:00 A":                                             "2024-01-01T00:00:00Z", // RFC 5322, section 4.3: military zones say nothing
		"1 Jan 2024 00:00:00 CEST":                                          "2023-12-31T22:00:00Z",
		"1 Jan 2024 00:00:00 JST":                                           "2023-12-31T15:00:00Z",
		"1 Jan 2024 00:00:00 XYZT":                                          "2024-01-01T00:00:00Z",
		"1 Jan 2024 00:00:00":                                               "2024-01-01T00:00:00Z",
		"1 Jan 2024 00:00 +0100":                                            "2023-12-31T23:00:00Z",
		"1 Jan 2024 00:00:00 -0000":                                         "2024-01-01T00:00:00Z",
		"Mon, 1 Jan 2024 1:02:03 +01:00":                                    "2024-01-01T00:02:03Z",
		"Mon, 1 Jan 2024 01:02:03 GMT+0100":                                 "2024-01-01T00:02:03Z",
		"Mon, 1 Jan 2024 01:02:03 GMT+1:00":                                 "2024-01-01T00:02:03Z",
		"Mon, 1 Jan 2024 01:02:03 +0100 (CET)":                              "2024-01-01T00:02:03Z",
		"Mon, 1 Jan 2024 01:02:03 +0100 CET":                                "2024-01-01T00:02:03Z",
		"Mon, 1 Jan 2024 01:02:03+0100":                                     "2024-01-01T00:02:03Z",
		"Mon, 1 Jan 2024 01:02:03 +0530":                                    "2023-12-31T19:32:03Z",
		"Mon, 1 Jan 2024 01:02:03 -0330":                                    "2024-01-01T04:32:03Z",
		"Mon (a day), 1 (first \\) (of) all) Jan\t2024 01:02:03 (no +0100)": "2024-01-01T01:02:03Z",
		"Mon, 1 Jan 2024 01:02:03 +0100 (not closed":                        "2024-01-01T00:02:03Z",
		"Mon 1 Jan 2024 01:02:03 +0100":                                     "2024-01-01T00:02:03Z",
		"Monday, 1 January 2024 01:02:03 +0100":                             "2024-01-01T00:02:03Z",
		"Monday, 01-Jan-24 01:02:03 GMT":                                    "2024-01-01T01:02:03Z",
		"Mon,1 Jan 2024 01:02:03 +0100":                                     "2024-01-01T00:02:03Z",
		"Mon Jan  1 01:02:03 2024":                                          "2024-01-01T01:02:03Z",
		"Mon Jan  1 01:02:03 EST 2024":                                      "2024-01-01T06:02:03Z",
		"Mon Jan  1 01:02:03 +0100 2024":                                    "2024-01-01T00:02:03Z",
		"Mon, Jan 1 2024 01:02:03 +0100":                                    "2024-01-01T00:02:03Z",
		"Mon, Jan 01, 2024 01:02:03 PM -0500":                               "2024-01-01T18:02:03Z",
		"1 Jan 2024 12:02:03 AM":                                            "2024-01-01T00:02:03Z",
		"1 Jan 2024 12:02 pm":                                               "2024-01-01T12:02:00Z",
		"2024-01-01T01:02:03+01:00":                                         "2024-01-01T00:02:03Z",
		"2024-01-01 01:02:03.5 +0100":                                       "2024-01-01T00:02:03Z",
		"2024-01-01T01:02:03Z":                                              "2024-01-01T01:02:03Z",
		"1 Jan 2024 01.02.03 +0100":                                         "2024-01-01T00:02:03Z",
		"31 Dec 2016 23:59:60 +0000":                                        "2017-01-01T00:00:00Z", // a leap second
		"29 Feb 2024 00:00:00 +0000":                                        "2024-02-29T00:00:00Z",
		"1 Jan 49 00:00:00 +0000":                                           "2049-01-01T00:00:00Z",
		"1 Jan 50 00:00:00 +0000":                                           "1950-01-01T00:00:00Z",
		"1 Jan 102 00:00:00 +0000":                                          "2002-01-01T00:00:00Z",
		"Fri, 21 Nov 1997 09(comment):   55  :  06 -0600":                   "1997-11-21T15:55:06Z", // RFC 5322, appendix A.6.2
	} {
		if got := mbox.ReadDate(value); got.Format(time.RFC3339) != want {
			t.Errorf("%q is %s, want %s", value, got.Format(time.RFC3339), want)
		}
	}
	for _, value := range []string{"", "tomorrow", "Mon, 1 Foo 2024 00:00:00 +0000", "30 Feb 2024 00:00:00 +0000", "0 Jan 2024 00:00:00 +0000", "1 Jan 2024 24:00:00 +0000", "1 Jan 2024 00:60:00 +0000",
		"1 Jan 2024", "1 Jan 0000 00:00:00 +0000", "31 Dec 9999 23:00:00 -0200", "1 Jan 2024 13:00 PM", "2024-13-01T00:00:00Z", "1704067200"} {
		if got := mbox.ReadDate(value); !got.IsZero() {
			t.Errorf("%q is %s, want none", value, got)
		}
	}
}

// The time of a date does not depend on the zone of the server, which may have the
// same name as the zone of the date.
func TestDatesDoNotDependOnTheZoneOfTheServer(t *testing.T) {
	// Not parallel: the zone is global to the process.
	before := time.Local
	defer func() { time.Local = before }()
	zone := rapid.SampledFrom([]string{"", " EST", " EDT", " MST", " CEST", " CET", " BST", " AST", " IST", " A", " XYZ", " GMT", " +0100", " -0330", " (EST)", " PST8PDT"})
	locals := []*time.Location{time.UTC, time.FixedZone("EST", 12*3600), time.FixedZone("XYZ", -3600)}
	for _, name := range []string{"America/New_York", "Europe/Berlin", "Asia/Kolkata", "Australia/Sydney"} {
		local, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		locals = append(locals, local)
	}
	rapid.Check(t, func(t *rapid.T) {
		at := time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "seconds"), 0).UTC()
		form := rapid.SampledFrom([]string{"Mon, 02 Jan 2006 15:04:05", "2 Jan 06 15:04", "Mon Jan _2 15:04:05 2006", "2006-01-02T15:04:05"}).Draw(t, "form")
		value := at.Format(form) + zone.Draw(t, "zone")
		time.Local = time.UTC
		want := mbox.ReadDate(value)
		if at.Year() < 2050 && strings.HasSuffix(value, "GMT") && !strings.Contains(value, "Jan _2") && form != "Mon Jan _2 15:04:05 2006" && form != "2 Jan 06 15:04" && !want.Equal(at) {
			t.Fatalf("%q is %s", value, want)
		}
		for _, local := range locals {
			time.Local = local
			if got := mbox.ReadDate(value); !got.Equal(want) || got.Location() != time.UTC {
				t.Fatalf("%q is %s under %s, and %s under UTC", value, got, local, want)
			}
		}
	})
}

func FuzzDate(f *testing.F) {
	f.Add("Fri, 21 Nov 1997 09:55:06 -0600 (x)")
	f.Add("Mon Jan  1 01:02:03 EST 2024")
	f.Fuzz(func(t *testing.T, value string) {
		if got := mbox.ReadDate(value); !got.IsZero() {
			if _, err := time.Parse(time.RFC3339, got.Format(time.RFC3339)); err != nil {
				t.Fatal(fmt.Errorf("%q: %w", value, err))
			}
		}
	})
}
