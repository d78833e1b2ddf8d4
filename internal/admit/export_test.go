package admit

// Tenants is how many tenants a queue remembers.
func (q *Queue) Tenants() int { return len(q.tenants) + q.turns.Len() }
