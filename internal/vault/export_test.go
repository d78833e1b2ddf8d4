package vault

import "keyroll/internal/admit"

// Queues returns the queues for operations with private keys and for generating keys.
func (v *Vaults) Queues() (operations, generations *admit.Queue) {
	return &v.operations, &v.generations
}

// Opened counts the private keys that are kept open.
func (v *Vaults) Opened() int { return v.opened.Len() }

// AlwaysRead makes each request read its state again whenever it uses it, as if it had
// waited.
func (v *Vaults) AlwaysRead() { v.recent = 0 }
