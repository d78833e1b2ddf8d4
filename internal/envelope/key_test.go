package envelope

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/fail"
)

// holders are all the ways in which a caller's value can contain a key.
type exported struct {
	Key   Key
	Ptr   *Key
	Slot  Slot
	Many  []Key
	Named map[string]*Key
}
type unexported struct {
	key  Key
	ptr  *Key
	slot Slot
	many []Key
	page Page
}

func TestKeysPrintAsKeyEverywhere(t *testing.T) {
	// Letters: they are visible in any rendering of the bytes.
	raw := []byte("SecretSecretSecretSecretSecret!!")
	key, err := KeyFrom(raw)
	if err != nil {
		t.Fatal(err)
	}
	page, err := NewPage(Slot{Child: 1, Key: *key})
	if err != nil {
		t.Fatal(err)
	}
	slot := Slot{Child: 1, Key: *key}
	shown := map[string]any{
		"value":          *key,
		"pointer":        key,
		"slot":           slot,
		"slots":          []Slot{slot},
		"exported":       exported{*key, key, slot, []Key{*key}, map[string]*Key{"a": key}},
		"exported ptr":   &exported{*key, key, slot, []Key{*key}, map[string]*Key{"a": key}},
		"unexported":     unexported{*key, key, slot, []Key{*key}, *page},
		"unexported ptr": &unexported{*key, key, slot, []Key{*key}, *page},
		"page":           *page,
		"page ptr":       page,
		"any":            []any{key, *key},
		"error":          fmt.Errorf("with %v: %w", key, errors.New("x")),
	}
	// If the key's own methods are called, the output must be [key]; if fmt reads
	// unexported fields directly, the output must not contain the key.
	asked := []string{"value", "pointer", "slot", "slots", "exported", "exported ptr", "any", "error"}

	var secrets []string
	for _, b := range [][]byte{raw[:6], raw[12:18]} {
		secrets = append(secrets, string(b), hex.EncodeToString(b), strings.ToUpper(hex.EncodeToString(b)),
			strings.Trim(fmt.Sprint(b), "[]"), strings.Trim(fmt.Sprintf("%x", []int{int(b[0]), int(b[1]), int(b[2])}), "[]"),
			strings.Trim(fmt.Sprintf("%#v", b), "[]byte{}"), base64.StdEncoding.EncodeToString(b),
			fmt.Sprintf("%q", b)[1:6], fmt.Sprintf("%o", b[0])+" "+fmt.Sprintf("%o", b[1]))
	}
	hides := func(t *testing.T, how, text string) {
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("%s shows the key: %s", how, text)
			}
		}
	}
	for name, value := range shown {
		t.Run(name, func(t *testing.T) {
			ask := false
			for _, a := range asked {
				ask = ask || a == name
			}
			check := func(how, text string) {
				hides(t, how, text)
				if ask && !strings.Contains(text, "[key]") {
					t.Errorf("%s is %s, want [key] in it", how, text)
				}
			}
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%q", "%d", "%o", "%b", "%c", "%U", "% x", "%#x", "%10v", "%t"} {
				if name == "error" && verb != "%v" && verb != "%s" && verb != "%+v" {
					continue
				}
				check(verb, fmt.Sprintf(verb, value))
			}
			check("Sprint", fmt.Sprint(value))
			hides(t, "%p", fmt.Sprintf("%p", value))

			var text bytes.Buffer
			slog.New(slog.NewTextHandler(&text, nil)).Info("x", "k", value)
			check("slog text", text.String())
			text.Reset()
			slog.New(slog.NewJSONHandler(&text, nil)).Info("x", "k", value)
			check("slog JSON", text.String())

			if name != "error" {
				b, err := json.Marshal(value)
				if err != nil {
					t.Fatal(err)
				}
				check("JSON", string(b))
			}
		})
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		if got := fmt.Sprintf(verb, key); got != "[key]" {
			t.Errorf("%s of a key is %q", verb, got)
		}
		if got := fmt.Sprintf(verb, *key); got != "[key]" {
			t.Errorf("%s of a key's value is %q", verb, got)
		}
	}
	if key.String() != "[key]" {
		t.Errorf("String is %q", key.String())
	}
}

func TestANilKeyPrintsWithoutPanic(t *testing.T) {
	var key *Key
	var text bytes.Buffer
	slog.New(slog.NewTextHandler(&text, nil)).Info("x", "k", key)
	slog.New(slog.NewJSONHandler(&text, nil)).Info("x", "k", key, "zero", Key{})
	if got := fmt.Sprint(key, Key{}); got != "<nil> [key]" || strings.Contains(text.String(), "anic") {
		t.Errorf("prints %q and logs %q", got, text.String())
	}
}

func TestKeyFromCopiesExactly32Bytes(t *testing.T) {
	raw := bytes.Repeat([]byte{7}, KeySize)
	key, err := KeyFrom(raw)
	if err != nil {
		t.Fatal(err)
	}
	clear(raw)
	if got := key.Bytes(); !bytes.Equal(got, bytes.Repeat([]byte{7}, KeySize)) {
		t.Errorf("clearing the caller's bytes changed the key")
	} else if clear(got); !bytes.Equal(key.Bytes(), bytes.Repeat([]byte{7}, KeySize)) {
		t.Errorf("clearing Bytes changed the key")
	}
	for _, n := range []int{0, 31, 33, 64} {
		_, err := KeyFrom(bytes.Repeat([]byte{7}, n))
		wantDamaged(t, err, fmt.Sprintf("%d bytes", n))
	}
	_, err = KeyFrom(make([]byte, KeySize))
	wantDamaged(t, err, "zeros")
}

func TestKeysWithTheSameBytesAreEqual(t *testing.T) {
	a := NewKey()
	b, _ := KeyFrom(a.Bytes())
	if !a.Equal(b) || !a.Equal(a) {
		t.Error("a key is not equal to its copy")
	}
	if a.Equal(NewKey()) || a.Equal(nil) || a.Equal(&Key{}) || (&Key{}).Equal(&Key{}) {
		t.Error("a key is equal to another or to none")
	}
	other := a.Bytes()
	other[31] ^= 1
	c, _ := KeyFrom(other)
	if a.Equal(c) {
		t.Error("keys that differ in one bit are equal")
	}
}

func TestAZeroedKeySealsAndOpensNothing(t *testing.T) {
	key := NewKey()
	page, _ := NewPage(Slot{Child: 1, Key: *NewKey()})
	ec := EncryptionContext{Tenant: 1, Child: 2, Class: ClassSite, Count: 1}
	sealed := Seal(key, PurposeName, ec, []byte("x"))
	body, err := SealPage(key, ec, page)
	if err != nil {
		t.Fatal(err)
	}
	other, copied := NewKey(), *key
	key.Zero()
	(*Key)(nil).Zero()
	new(Key).Zero()
	for name, dead := range map[string]*Key{"zeroed": key, "copy of a zeroed": &copied, "empty": {}, "nil": nil} {
		t.Run(name, func(t *testing.T) {
			refused := func(what string, err error) {
				t.Helper()
				if err == nil || !errors.Is(err, errZeroed) || fail.CodeOf(err) != api.Internal {
					t.Errorf("%s: %v, want an internal error that says the key was zeroed", what, err)
				}
			}
			panics := func(what string, f func()) {
				t.Helper()
				defer func() {
					if recover() == nil {
						t.Errorf("%s did not panic", what)
					}
				}()
				f()
			}
			_, err := Open(dead, PurposeName, ec, sealed)
			refused("Open", err)
			_, err = OpenPage(dead, ec, body)
			refused("OpenPage", err)
			_, err = SealPage(dead, ec, page)
			refused("SealPage", err)
			_, err = Reseal(dead, other, ec, ec, body)
			refused("Reseal", err)
			body, _ := SealPage(other, ec, page)
			_, err = Reseal(other, dead, ec, ec, body)
			refused("Reseal to it", err)
			w := NewWriter(&bytes.Buffer{}, dead, BlobContext{})
			_, err = w.Write([]byte("x"))
			refused("Write", err)
			refused("Close", w.Close())
			_, err = NewReader(bytes.NewReader(nil), dead, BlobContext{}, 0).Read(make([]byte, 1))
			refused("Read", err)
			_, err = NewRangeReader(bytes.NewReader(nil), dead, BlobContext{}, 5, Range{0, 1})
			refused("NewRangeReader", err)
			panics("Seal", func() { Seal(dead, PurposeName, ec, nil) })
			panics("Derive", func() { dead.Derive("x") })
			panics("MAC", func() { dead.MAC(nil) })
			panics("Bytes", func() { dead.Bytes() })
			panics("Bundle", func() { Bundle(dead, Binding{}) })
			if _, err := NewPage(Slot{Child: 1, Key: copied}); !errors.Is(err, errZeroed) {
				t.Errorf("NewPage: %v", err)
			}
		})
	}
}

func TestDerivedKeysDifferByLabelAndKey(t *testing.T) {
	a, b := NewKey(), NewKey()
	if !a.Derive("x").Equal(a.Derive("x")) {
		t.Error("the same label gives another key")
	}
	for name, other := range map[string]*Key{"label": a.Derive("y"), "longer label": a.Derive("xx"), "key": b.Derive("x"), "the key itself": a} {
		if a.Derive("x").Equal(other) {
			t.Errorf("another %s gives the same key", name)
		}
	}
}

func TestMACDistinguishesSequencesOfParts(t *testing.T) {
	key := NewKey()
	parts := func(s ...string) (out [][]byte) {
		for _, p := range s {
			out = append(out, []byte(p))
		}
		return out
	}
	sequences := [][][]byte{nil, parts(""), parts("", ""), parts("ab"), parts("a", "b"), parts("", "ab"), parts("ab", ""), parts("b", "a"),
		parts("\x00\x00\x00\x00\x00\x00\x00\x01a"), parts("a", "\x00\x00\x00\x00\x00\x00\x00\x01b")}
	seen := map[string]int{}
	for i, s := range sequences {
		mac := string(key.MAC(s...))
		if len(mac) != 32 {
			t.Fatalf("a MAC of %d bytes", len(mac))
		}
		if j, ok := seen[mac]; ok {
			t.Errorf("%q and %q have one MAC", s, sequences[j])
		}
		seen[mac] = i
	}
	if bytes.Equal(key.MAC([]byte("a")), NewKey().MAC([]byte("a"))) {
		t.Error("two keys give one MAC")
	}
}
