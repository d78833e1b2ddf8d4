package admit

// Tenants is how many tenants a queue has state for.
func (q *Queue) Tenants() int { return len(q.tenants) + q.turns.Len() }
