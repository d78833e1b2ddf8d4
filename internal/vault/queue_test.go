package vault_test

import (
	"runtime"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"keyroll/internal/admit"
)

// Another tenant uses every processor, and more of its work waits: this tenant's request
// is next, because each tenant has a queue of its own.
func TestTenantsTakeTurnsAtPrivateKeys(t *testing.T) {
	n := contoso(t, sqlite(t))
	c := n.keys("contoso-A")
	create(t, c, "k", rsa2048())
	wrapped, err := c.WrapKey(ctx, "k", "", wrapParameters(azkeys.EncryptionAlgorithmRSAOAEP256, []byte("secret")), nil)
	if err != nil {
		t.Fatal(err)
	}
	using, making := n.vaults.Queues()
	for name, c := range map[string]struct {
		queue *admit.Queue
		ask   func() error
	}{
		"unwrap": {using, func() error {
			_, err := c.UnwrapKey(ctx, "k", "", wrapParameters(azkeys.EncryptionAlgorithmRSAOAEP256, wrapped.Result), nil)
			return err
		}},
		"wrap": {using, func() error {
			_, err := c.WrapKey(ctx, "k", "", wrapParameters(azkeys.EncryptionAlgorithmRSAOAEP256, []byte("secret")), nil)
			return err
		}},
		"create": {making, func() error {
			_, err := c.CreateKey(ctx, "other", azkeys.CreateKeyParameters{Kty: to.Ptr(azkeys.KeyTypeEC)}, nil)
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			const another = -1
			var leave []func()
			for range runtime.GOMAXPROCS(0) {
				l, err := c.queue.Enter(ctx, another)
				if err != nil {
					t.Fatal(err)
				}
				leave = append(leave, l)
			}
			answer, turn := make(chan error, 1), make(chan func(), 2)
			for range 2 { // of the other tenant: the second comes after this tenant's
				go func() {
					l, _ := c.queue.Enter(ctx, another)
					turn <- l
				}()
			}
			waitUntil(t, func() bool { return c.queue.Waits(another) == 2 })
			go func() { answer <- c.ask() }()
			waitUntil(t, func() bool { return c.queue.Waits(n.ID) == 1 })
			leave[0]()
			(<-turn)() // the other tenant's first
			if err := <-answer; err != nil {
				t.Error(err)
			}
			(<-turn)()
			for _, l := range leave[1:] {
				l()
			}
		})
	}
}

// waitUntil lets other goroutines run until a condition is true.
func waitUntil(t *testing.T, so func() bool) {
	for !so() {
		if t.Context().Err() != nil {
			t.Fatal("it never is so")
		}
		runtime.Gosched()
	}
}
