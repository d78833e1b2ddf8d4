// Package name has the rules for names: which texts are valid, which spellings are equal,
// and how a text is shown on a terminal. It never changes a name: a name is stored and
// returned as given. Start reading at Fold.
package name

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Fold returns the form in which two names are compared as SharePoint compares URLs and
// paths: ignoring case and the encoding of accents. Case is that of single characters
// (simple case folding of the Unicode Character Database, CaseFolding.txt), so that
// "straße" and "strasse" are different names; the encoding is normalisation form C (UAX
// #15).
func Fold(s string) string {
	if isLowerASCII(s) {
		return s
	}
	// Some marks change their combining class with their case: hence twice.
	for range 2 {
		s = strings.Map(foldRune, norm.NFD.String(s))
	}
	return norm.NFC.String(s)
}

func isLowerASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf || 'A' <= s[i] && s[i] <= 'Z' {
			return false
		}
	}
	return true
}

// foldRune returns the same character for all that differ only in case: the lower case
// of the first of them.
func foldRune(r rune) rune {
	first := r
	for other := unicode.SimpleFold(r); other != r; other = unicode.SimpleFold(other) {
		first = min(first, other)
	}
	return unicode.ToLower(first)
}

// Refusal returns why a text may not be part of a new name, empty if it may: it is not
// UTF-8, or has invisible characters, which may change how the others are shown
// (controls, format characters such as U+202E, line separators).
func Refusal(s string) string {
	if !utf8.ValidString(s) {
		return "is not UTF-8"
	}
	if i := strings.IndexFunc(s, invisible); i >= 0 {
		r, _ := utf8.DecodeRuneInString(s[i:])
		if unicode.IsControl(r) {
			return fmt.Sprintf("has the control character %U", r)
		}
		return fmt.Sprintf("has the invisible character %U", r)
	}
	return ""
}

// invisible reports whether a character is a control (Cc), a format character (Cf) or a
// separator of lines or paragraphs (Zl, Zp) of Unicode.
func invisible(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
}

// Escape returns a text that is safe for a terminal: characters that Refusal refuses are
// written as \u and four or \U and eight hexadecimal digits, and bytes that are not UTF-8
// as \x and two. Characters in keep are not escaped.
func Escape(s, keep string) string {
	return escape(s, func(b *strings.Builder, r rune) {
		switch {
		case strings.ContainsRune(keep, r):
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(b, `\U%08x`, r)
		default:
			fmt.Fprintf(b, `\u%04x`, r)
		}
	})
}

// EscapeJSON returns the same JSON text with such characters in its strings
// written as JSON's own escapes (RFC 8259, section 7). White space between values
// stays.
func EscapeJSON(s string) string {
	return escape(s, func(b *strings.Builder, r rune) {
		switch high, low := utf16.EncodeRune(r); {
		case r == '\n' || r == '\t' || r == '\r':
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(b, `\u%04x`, r)
		}
	})
}

func escape(s string, write func(b *strings.Builder, r rune)) string {
	if Refusal(s) == "" {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case invisible(r):
			write(&b, r)
		default:
			b.WriteRune(r)
		}
		s = s[size:]
	}
	return b.String()
}
