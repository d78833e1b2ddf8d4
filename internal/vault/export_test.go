package vault

import "keyroll/internal/admit"

// Queues are those of operations with private keys and of keys that are made.
func (v *Vaults) Queues() (using, making *admit.Queue) { return &v.using, &v.making }

// Opened counts the private keys that are kept open.
func (v *Vaults) Opened() int {
	v.opened.mu.Lock()
	defer v.opened.mu.Unlock()
	return len(v.opened.byID)
}
