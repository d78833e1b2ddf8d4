package mbox

import (
	"strconv"
	"strings"
)

// mozillaLetters maps the bits of X-Mozilla-Status and, from bit 16 on, of
// X-Mozilla-Status2 to letters (nsMsgMessageFlags of Thunderbird).
var mozillaLetters = []struct {
	bit    uint64
	letter string
}{{0x1, "R"}, {0x2, "A"}, {0x4, "F"}, {0x8, "D"}, {0x200000, "D"}}

// unreadLabels are the labels of unread messages in Google Takeout, which are in the
// language of the account.
var unreadLabels = map[string]bool{"unread": true, "ungelesen": true, "non lus": true, "non lu": true, "no leídos": true, "no leído": true,
	"da leggere": true, "não lidas": true, "não lidos": true, "ongelezen": true, "nieprzeczytane": true, "未読": true}

// gmailLetters maps other labels to letters.
var gmailLetters = map[string]string{"starred": "F", "draft": "T", "drafts": "T"}

// readFlags returns the letters of the fields Status and X-Status, and the letters
// for the flags that Thunderbird and Google Takeout write into fields of their own:
// R read, A answered, F flagged, D deleted, T draft.
func readFlags(fields map[string]string) string {
	letters := strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z' {
			return r
		}
		return -1
	}, fields["status"]+fields["x-status"])
	letters = letters[:min(len(letters), maxFlags)]
	add := func(letter string) {
		if !strings.Contains(letters, letter) {
			letters += letter
		}
	}
	bits := readBits(fields["x-mozilla-status"])&0xffff | readBits(fields["x-mozilla-status2"])&^0xffff
	for _, m := range mozillaLetters {
		if bits&m.bit != 0 {
			add(m.letter)
		}
	}
	if labels := readText(fields["x-gmail-labels"]); labels != "" {
		read := true
		for label := range strings.SplitSeq(labels, ",") {
			label = strings.ToLower(strings.Trim(label, ` "`))
			if unreadLabels[label] {
				read = false
			}
			if letter := gmailLetters[label]; letter != "" {
				add(letter)
			}
		}
		if read {
			add("R")
		}
	}
	return letters
}

// readBits parses a hexadecimal number and returns 0 for anything else.
func readBits(value string) uint64 {
	n, _ := strconv.ParseUint(strings.TrimSpace(value), 16, 32)
	return n
}
