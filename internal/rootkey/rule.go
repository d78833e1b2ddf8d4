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

// Unwrap unwraps the policy key by one of a policy's two customer keys.
type Unwrap func(ctx context.Context) ([]byte, error)

// The customer key that a Rule got its answer from.
const (
	Primary   = 0
	Secondary = 1
)

// Rule decides in which order and when the two customer keys are used. It returns the
// plaintext and the key that gave it. If both fail, the error names both keys with
// both reasons; its code is VaultDenied if either vault refused the service, whatever
// the other vault answered, and VaultUnavailable only if both vaults were
// unavailable. A cancelled ctx ends a rule with context.Canceled; one past its
// deadline counts as an outage.
type Rule func(ctx context.Context, primary, secondary Unwrap) (plaintext []byte, which int, err error)

var (
	_ Rule = RandomThenOther
	_ Rule = Hedged(0)
)

// RandomThenOther uses one of the two at random and, if it fails, the other: the rule
// of mailbox and multi-workload policies.
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

// Hedged uses the primary, and the secondary once offset has passed or the primary has
// failed; the first plaintext wins and cancels the other request: the rule of site
// policies.
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

// bothFailed joins the failures of the two customer keys. The code is that of an
// outage only if both are outages: damage and local problems are not.
func bothFailed(errs [2]error) error {
	var details [2]string
	var hints [2]string
	codes := [2]api.Code{}
	for i, err := range errs {
		codes[i], details[i], hints[i] = fail.Public(err)
	}
	leading := 0
	if severity(codes[1]) > severity(codes[0]) {
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

func severity(code api.Code) int {
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
