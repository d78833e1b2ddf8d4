package name

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"
)

func TestFoldComparesAsSharePointDoes(t *testing.T) {
	for _, same := range [][]string{
		{"Plans/Budget.XLSX", "plans/budget.xlsx", "PLANS/BUDGET.xlsx"},
		{"Re\u0301sume\u0301.txt", "Résumé.txt", "RÉSUMÉ.TXT"}, // NFD, NFC
		{"ΣΊΣΥΦΟΣ", "Σίσυφος", "σίσυφοσ"},
		{"\u212B.txt", "Å.txt", "å.txt"}, // the sign of the unit
		{"\u1E9E", "ß"},
		{"ЁЛКА", "ёлка", "е\u0308лка"},
	} {
		for _, s := range same[1:] {
			if Fold(s) != Fold(same[0]) {
				t.Errorf("%q and %q are two names", s, same[0])
			}
		}
	}
	for _, other := range [][2]string{{"straße", "strasse"}, {"résumé", "resume"}, {"ı", "i"}, {"a b", "a  b"}, {"ﬁle", "file"}, {"１", "1"}} {
		if Fold(other[0]) == Fold(other[1]) {
			t.Errorf("%q and %q are one name", other[0], other[1])
		}
	}
}

func TestFoldDependsOnNeitherCaseNorEncoding(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringN(0, 20, -1).Draw(t, "name")
		folded := Fold(s)
		if Fold(folded) != folded {
			t.Fatalf("%+q folds to %+q, and that to %+q", s, folded, Fold(folded))
		}
		if !norm.NFC.IsNormalString(folded) || !utf8.ValidString(folded) {
			t.Fatalf("%+q folds to %+q", s, folded)
		}
		for _, form := range []norm.Form{norm.NFC, norm.NFD} {
			if Fold(form.String(s)) != folded {
				t.Fatalf("%+q in form %v folds to %+q, not %+q", s, form, Fold(form.String(s)), folded)
			}
		}
		// Each character in another case, where that is a case of the same one.
		other := strings.Map(unicode.SimpleFold, s)
		if Fold(other) != folded {
			t.Fatalf("%+q, %+q in other cases, fold to %+q and %+q", s, other, folded, Fold(other))
		}
	})
}

func TestInvalidNamesAreRefusedWithAReason(t *testing.T) {
	for s, want := range map[string]string{
		"":                     "",
		"日本語 résumé 🎉.txt":     "",
		"r\xe9sum\xe9.txt":     "is not UTF-8",
		"a\x00b":               "has the control character U+0000",
		"a\u0085b":             "has the control character U+0085",
		"invoice\u202Efdp.exe": "has the invisible character U+202E",
		"a\u200Bb":             "has the invisible character U+200B",
		"a\u2028b":             "has the invisible character U+2028",
		"a\U000E0041b":         "has the invisible character U+E0041",
		"\uFEFFa":              "has the invisible character U+FEFF",
	} {
		if got := Refusal(s); got != want {
			t.Errorf("%+q: %q, want %q", s, got, want)
		}
	}
}

func TestEscapeLeavesNoControlSequenceOfTerminals(t *testing.T) {
	t.Parallel()
	if got, want := Escape("a\x1b[2Jb\u202Ec\xe9d\U000E0041\ne\tf", "\t"), `a\u001b[2Jb\u202ec\xe9d\U000e0041\u000ae`+"\tf"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	rapid.Check(t, func(t *rapid.T) {
		s := string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")) + rapid.String().Draw(t, "text")
		if escaped := Escape(s, ""); Refusal(escaped) != "" {
			t.Fatalf("%+q is shown as %+q", s, escaped)
		}
		s = strings.ToValidUTF8(s, "?")
		plain, err := json.Marshal(map[string]string{s: s})
		if err != nil {
			t.Fatal(err)
		}
		escaped := EscapeJSON(string(plain))
		var back map[string]string
		if err := json.Unmarshal([]byte(escaped), &back); err != nil || back[s] != s || Refusal(escaped) != "" {
			t.Fatalf("%+q: %s, read as %+q (%v)", s, escaped, back, err)
		}
	})
}
