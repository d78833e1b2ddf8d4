package rootkey_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/rootkey"
)

// answerAfter returns an Unwrap that answers after d, or when its context ends.
func answerAfter(d time.Duration, plaintext string, err error) rootkey.Unwrap {
	return func(ctx context.Context) ([]byte, error) {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(d):
			if err != nil {
				return nil, err
			}
			return []byte(plaintext), nil
		}
	}
}

var (
	errDenied      = fail.New(api.VaultDenied, "key one is disabled").WithHint("enable key one")
	errUnavailable = fail.New(api.VaultUnavailable, "key two was not reached")
)

func TestRandomThenOtherBeginsWithEitherKey(t *testing.T) {
	var first [2]int
	for range 100 {
		_, which, err := rootkey.RandomThenOther(t.Context(), answerAfter(0, "p", nil), answerAfter(0, "s", nil))
		if err != nil {
			t.Fatal(err)
		}
		first[which]++
	}
	if first[0] == 0 || first[1] == 0 {
		t.Errorf("asked first: primary %d, secondary %d times", first[0], first[1])
	}
}

func TestTheOtherKeyIsUsedWhenOneFails(t *testing.T) {
	for name, rule := range map[string]rootkey.Rule{"random": rootkey.RandomThenOther, "hedged": rootkey.Hedged(time.Hour)} {
		for range 20 { // the random rule begins with either
			got, which, err := rule(t.Context(), answerAfter(0, "", errDenied), answerAfter(0, "s", nil))
			if err != nil || string(got) != "s" || which != rootkey.Secondary {
				t.Errorf("%s, primary denied: %q of %d, %v", name, got, which, err)
			}
		}
		got, which, err := rule(t.Context(), answerAfter(0, "p", nil), answerAfter(0, "", errUnavailable))
		if err != nil || string(got) != "p" || which != rootkey.Primary {
			t.Errorf("%s, secondary unavailable: %q of %d, %v", name, got, which, err)
		}
	}
}

func TestOneDeliberateRefusalDecidesWhenBothFail(t *testing.T) {
	foreign := errors.New("internal words")
	for name, rule := range map[string]rootkey.Rule{"random": rootkey.RandomThenOther, "hedged": rootkey.Hedged(0)} {
		for _, test := range []struct {
			primary, secondary error
			want               api.Code
			text, hint         string
		}{
			{errDenied, errUnavailable, api.VaultDenied, "both customer keys failed: primary: key one is disabled; secondary: key two was not reached", "enable key one"},
			{errUnavailable, errDenied, api.VaultDenied, "both customer keys failed: primary: key two was not reached; secondary: key one is disabled", "enable key one"},
			{errUnavailable, errUnavailable, api.VaultUnavailable, "", ""},
			{errDenied, errDenied, api.VaultDenied, "", "enable key one"},
			{foreign, errUnavailable, api.Internal, "", ""},
			{errUnavailable, fail.New(api.Unavailable, "out of descriptors"), api.Unavailable, "", ""},
			{fail.New(api.Damaged, "wrap is damaged"), errUnavailable, api.Damaged, "", ""},
			{fail.New(api.Damaged, "wrap is damaged"), errDenied, api.VaultDenied, "", "enable key one"},
			{fail.New(api.Damaged, "wrap is damaged"), fail.New(api.Damaged, "wrap is damaged"), api.Damaged, "", ""},
		} {
			_, _, err := rule(t.Context(), answerAfter(0, "", test.primary), answerAfter(0, "", test.secondary))
			code, detail, hint := fail.Public(err)
			if code != test.want || test.text != "" && detail != test.text || hint != test.hint {
				t.Errorf("%s, %v and %v: %s %q, hint %q", name, test.primary, test.secondary, code, detail, hint)
			}
			if strings.Contains(detail, "internal words") || !errors.Is(err, test.primary) || !errors.Is(err, test.secondary) {
				t.Errorf("%s: %q shows or loses a cause", name, detail)
			}
		}
	}
}

func TestRandomThenOtherStopsWhenCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	asked := 0
	stop := func(ctx context.Context) ([]byte, error) {
		asked++
		cancel()
		return nil, ctx.Err()
	}
	if _, _, err := rootkey.RandomThenOther(ctx, stop, stop); !errors.Is(err, context.Canceled) || asked != 1 {
		t.Errorf("asked %d, %v", asked, err)
	}
}

func TestHedgedCallsTheSecondaryOnlyAfterTheOffset(t *testing.T) {
	const offset = 50 * time.Millisecond
	for _, test := range []struct {
		name               string
		primary, secondary rootkey.Unwrap
		want               string
		took               time.Duration
	}{
		{"a quick primary", answerAfter(offset/2, "p", nil), answerAfter(0, "s", nil), "p", offset / 2},
		{"a slow primary", answerAfter(time.Second, "p", nil), answerAfter(time.Millisecond, "s", nil), "s", offset + time.Millisecond},
		{"a primary that still is first", answerAfter(offset+1, "p", nil), answerAfter(time.Second, "s", nil), "p", offset + 1},
		{"a primary that fails at once", answerAfter(0, "", errDenied), answerAfter(time.Millisecond, "s", nil), "s", time.Millisecond},
		{"a secondary that fails first", answerAfter(time.Second, "p", nil), answerAfter(0, "", errDenied), "p", time.Second},
	} {
		synctest.Test(t, func(t *testing.T) { // ends only when the loser has ended
			start := time.Now()
			got, which, err := rootkey.Hedged(offset)(t.Context(), test.primary, test.secondary)
			if err != nil || string(got) != test.want || (which == rootkey.Primary) != (test.want == "p") {
				t.Errorf("%s: %q of %d, %v", test.name, got, which, err)
			}
			if took := time.Since(start); took != test.took {
				t.Errorf("%s: took %v, want %v", test.name, took, test.took)
			}
			synctest.Wait()
			if took := time.Since(start); took != test.took {
				t.Errorf("%s: the loser ran on for %v", test.name, took-test.took)
			}
		})
	}
}

func TestHedgedEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, _, err := rootkey.Hedged(time.Millisecond)(ctx, answerAfter(time.Hour, "p", nil), answerAfter(time.Hour, "s", nil))
		if !errors.Is(err, context.Canceled) || fail.Is(err, api.VaultUnavailable) {
			t.Errorf("cancelled: %v", err)
		}
	})
}

func TestADeadlineDoesNotHideADeliberateRefusal(t *testing.T) {
	for name, rule := range map[string]rootkey.Rule{"random": rootkey.RandomThenOther, "hedged": rootkey.Hedged(0)} {
		for range 20 { // the random rule may never come to the denied key
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				start, denied := time.Now(), false
				primary := func(ctx context.Context) ([]byte, error) {
					denied = true
					return nil, errDenied
				}
				secondary := func(ctx context.Context) ([]byte, error) {
					<-ctx.Done()
					return nil, errUnavailable
				}
				_, _, err := rule(ctx, primary, secondary)
				if time.Since(start) != time.Second || !denied || !fail.Is(err, api.VaultDenied) {
					t.Errorf("%s, after %v: %v", name, time.Since(start), err)
				}
			})
		}
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _, err := rootkey.Hedged(0)(ctx, answerAfter(time.Hour, "", nil), answerAfter(time.Hour, "", nil))
		if !fail.Is(err, api.VaultUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("outage alone: %v", err)
		}
	})
}

func TestHedgedClearsThePlaintextOfTheLoser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := []byte("late secret")
		slow := func(context.Context) ([]byte, error) { // does not heed its context
			time.Sleep(time.Second)
			return late, nil
		}
		if _, which, err := rootkey.Hedged(0)(t.Context(), slow, answerAfter(time.Millisecond, "s", nil)); which != rootkey.Secondary || err != nil {
			t.Fatal(which, err)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if strings.Trim(string(late), "\x00") != "" {
			t.Errorf("left %q", late)
		}
	})
}
