package envelope

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/fail"
)

// testKey returns the same key for the same name in every process, so that
// fuzzing finds the seals of its seeds again.
func testKey(name string) *Key {
	k, err := KeyFrom([]byte(strings.Repeat("keyroll-test-key", 2)))
	if err != nil {
		panic(err)
	}
	return k.Derive(name)
}

var testContext = EncryptionContext{Tenant: 11, Parent: 22, Generation: 3, Child: 44, Class: ClassActive, Version: 55, Count: 2}

// wantDamaged fails the test unless err is fail Damaged and its text has all of parts.
func wantDamaged(t testing.TB, err error, parts ...string) {
	t.Helper()
	if !fail.Is(err, api.Damaged) {
		t.Fatalf("error is %v (%v), want code Damaged", err, fail.CodeOf(err))
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not name %q", err, part)
		}
	}
}

// alterations returns copies of v that each differ from it in one field: every
// bit of every number and array, and strings and byte slices longer, shorter,
// and with each byte changed. It walks v, so no field can be forgotten.
func alterations[T any](v T) map[string]T {
	out := map[string]T{}
	var walk func(path string, at func(reflect.Value) reflect.Value)
	walk = func(path string, at func(reflect.Value) reflect.Value) {
		alter := func(how string, change func(reflect.Value)) {
			altered := v
			field := at(reflect.ValueOf(&altered).Elem())
			if field.Kind() == reflect.Slice {
				field.SetBytes(slices.Clone(field.Bytes()))
			}
			change(field)
			out[path+" "+how] = altered
		}
		f := at(reflect.ValueOf(&v).Elem())
		switch f.Kind() {
		case reflect.Struct:
			for i := range f.NumField() {
				walk(path+"."+f.Type().Field(i).Name, func(v reflect.Value) reflect.Value { return at(v).Field(i) })
			}
		case reflect.Array:
			for i := range f.Len() {
				walk(fmt.Sprintf("%s[%d]", path, i), func(v reflect.Value) reflect.Value { return at(v).Index(i) })
			}
		case reflect.Int64:
			for bit := range 64 {
				alter(fmt.Sprintf("bit %d", bit), func(f reflect.Value) { f.SetInt(f.Int() ^ 1<<bit) })
			}
		case reflect.Uint8, reflect.Uint32, reflect.Uint64:
			for bit := range f.Type().Bits() {
				alter(fmt.Sprintf("bit %d", bit), func(f reflect.Value) { f.SetUint(f.Uint() ^ 1<<bit) })
			}
		case reflect.String:
			alter("longer", func(f reflect.Value) { f.SetString(f.String() + "\x00") })
			alter("empty", func(f reflect.Value) { f.SetString("") })
			for i := range f.Len() {
				alter(fmt.Sprintf("byte %d", i), func(f reflect.Value) {
					b := []byte(f.String())
					b[i] ^= 0x20
					f.SetString(string(b))
				})
			}
		case reflect.Slice:
			alter("longer", func(f reflect.Value) { f.SetBytes(append(f.Bytes(), 0)) })
			alter("empty", func(f reflect.Value) { f.SetBytes(nil) })
			for i := range f.Len() {
				alter(fmt.Sprintf("byte %d", i), func(f reflect.Value) { f.Bytes()[i] ^= 1 })
			}
		default:
			panic("no alteration for a " + f.Kind().String())
		}
	}
	walk("", func(v reflect.Value) reflect.Value { return v })
	return out
}
