package crashtest

import (
	"keyroll/internal/node/nodetest"
)

func workPolicy() step {
	return step{
		name: "make the multi-workload policy",
		do:   func(w *nodetest.World) { w.StageWork() },
		then: func(m *model) { m.Policies[nodetest.WorkPolicy] = 1 },
	}
}

func assignTenant() step {
	return step{
		name: "assign the multi-workload policy",
		do:   func(w *nodetest.World) { w.AssignTenant(nodetest.WorkPolicy) },
		then: func(*model) {},
	}
}

func leave(policy string) step {
	return step{
		name: "leave " + policy,
		do:   func(w *nodetest.World) { w.Leave(policy) },
		then: func(m *model) {
			for name, b := range m.Mailboxes {
				if b.Policy == policy {
					b.Policy = ""
					m.Mailboxes[name] = b
				}
			}
		},
	}
}

// putItem may leave an empty store.
func putItem(store, name string, content []byte) step {
	made := func(m *model) {
		if m.Stores[store] == nil {
			m.Stores[store] = map[string]string{}
		}
	}
	return step{
		name:   "put " + name + " into " + store,
		do:     func(w *nodetest.World) { w.PutItem(store, name, content) },
		then:   func(m *model) { made(m); m.Stores[store][name] = digest(content) },
		partly: made,
	}
}
