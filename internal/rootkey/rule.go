package rootkey

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"keyroll/api"
	"keyroll/internal/fail"
)

// Unwrap asks one of a policy's two customer keys for the policy key.
type Unwrap func(ctx context.Context) ([]byte, error)

// Which of the two customer keys a Rule got its answer from.
const (
	Primary   = 0
	Secondary = 1
)

// Rule decides which of the two customer keys is asked when. It returns the
// plaintext and which key gave it. When both fail, the error names both keys
// with both reasons; its code is VaultDenied if either customer key was refused
// by a deliberate act, whatever the other vault said, and VaultUnavailable only
// if both vaults were out of reach. A cancelled ctx ends a
// rule with context.Canceled; one past its deadline is an outage.
type Rule func(ctx context.Context, primary, secondary Unwrap) (plaintext []byte, which int, err error)

var (
	_ Rule = RandomThenOther
	_ Rule = Hedged(0)
)

// RandomThenOther asks one of the two at random and, when it fails, the other:
// the rule of mailboxes.
func RandomThenOther(ctx context.Context, primary, secondary Unwrap) ([]byte, int, error) {
	keys := [2]Unwrap{primary, secondary}
	var errs [2]error
	first := rand.IntN(2)
	for _, which := range [2]int{first, 1 - first} {
		plaintext, err := keys[which](ctx)
		if err == nil {
			return plaintext, which, nil
		}
		if errors.Is(ctx.Err(), context.Canceled) {
			return nil, which, err
		}
		errs[which] = err
	}
	return nil, Primary, bothFailed(errs)
}

// Hedged asks the primary, and the secondary once offset has passed or the
// primary has failed; the first plaintext wins and cancels the other request:
// the rule of sites.
func Hedged(offset time.Duration) Rule {
	type answer struct {
		which     int
		plaintext []byte
		err       error
	}
	return func(ctx context.Context, primary, secondary Unwrap) ([]byte, int, error) {
		racing, cancel := context.WithCancel(ctx)
		defer cancel()
		answers := make(chan answer)
		ask := func(which int, unwrap Unwrap) {
			plaintext, err := unwrap(racing)
			select {
			case answers <- answer{which, plaintext, err}:
			case <-racing.Done(): // the other one won
				clear(plaintext)
			}
		}
		go ask(Primary, primary)
		timer := time.NewTimer(offset)
		defer timer.Stop()
		asked := false
		askSecondary := func() {
			if !asked {
				asked = true
				go ask(Secondary, secondary)
			}
		}
		var errs [2]error
		for errs[Primary] == nil || errs[Secondary] == nil {
			select {
			case <-ctx.Done():
				if errors.Is(ctx.Err(), context.Canceled) {
					return nil, Primary, fmt.Errorf("unwrap with two customer keys: %w", ctx.Err())
				}
				for which, err := range errs {
					if err == nil {
						errs[which] = fail.New(api.VaultUnavailable, "no answer in time").Because(ctx.Err())
					}
				}
			case <-timer.C:
				askSecondary()
			case got := <-answers:
				if got.err == nil {
					return got.plaintext, got.which, nil
				}
				errs[got.which] = got.err
				askSecondary()
			}
		}
		return nil, Primary, bothFailed(errs)
	}
}

// bothFailed joins the failures of the two customer keys. An outage decides the
// code only where both are one: damage and local trouble are no outage.
func bothFailed(errs [2]error) error {
	var details [2]string
	var hints [2]string
	codes := [2]api.Code{}
	for i, err := range errs {
		codes[i], details[i], hints[i] = fail.Public(err)
	}
	leading := 0
	if rank(codes[1]) > rank(codes[0]) {
		leading = 1
	}
	hint := hints[leading]
	if hint == "" {
		hint = hints[1-leading]
	}
	return &fail.Error{
		Code:   codes[leading],
		Detail: fmt.Sprintf("both customer keys failed: primary: %s; secondary: %s", details[0], details[1]),
		Hint:   hint,
		Err:    errors.Join(errs[:]...),
	}
}

func rank(code api.Code) int {
	switch code {
	case api.VaultDenied:
		return 3
	case api.Damaged:
		return 2
	case api.VaultUnavailable:
		return 0
	}
	return 1
}
