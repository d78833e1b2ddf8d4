package policy

import "keyroll/internal/envelope"

// Cached returns the cache's own copy of a policy key, nil if it has none.
func (p *Policies) Cached(id int64) *envelope.Key {
	p.cache.mu.Lock()
	defer p.cache.mu.Unlock()
	if e, ok := p.cache.keys[User][id]; ok {
		return e.key
	}
	return nil
}

// CheckNames returns the names of the checks that keys pass to enter a policy.
func CheckNames() (names []string) {
	for _, c := range checks {
		names = append(names, c.name)
	}
	return names
}
