package cmdlet

import (
	"context"
	"fmt"
	"strings"

	"keyroll/api"
)

// warnNeeded warns, before a removal, of everything that still needs a key version, a
// key or a vault; empty names mean all. It only warns: the decision is the
// customer's.
func (c *Call) warnNeeded(ctx context.Context, vault, key, version string) {
	usage, err := c.Service.ListKeyUsage(ctx, api.KeyUsageInput{Vault: vault, Key: key, Version: version})
	if err != nil {
		c.warn("it is not known what still needs it: %v", err)
		return
	}
	for _, u := range usage.Items {
		if u.Verdict != api.InUse {
			continue
		}
		c.warn("key %s version %s in vault %s is still needed by policy %s%s", u.Key, u.Version, u.Vault, u.Policy, needs(u))
	}
}

// needs describes what a key version protects, in numbers.
func needs(u api.KeyUsage) string {
	var parts []string
	for _, n := range []struct {
		count     int64
		one, many string
	}{
		{u.Active, "active mailbox", "active mailboxes"}, {u.Inactive, "inactive mailbox", "inactive mailboxes"},
		{u.Disconnected, "disconnected mailbox", "disconnected mailboxes"}, {u.Disabled, "disabled mailbox", "disabled mailboxes"},
		{u.Sites, "site", "sites"}, {u.Workloads, "workload store", "workload stores"}, {u.Backups, "backup", "backups"},
	} {
		switch n.count {
		case 0:
		case 1:
			parts = append(parts, "1 "+n.one)
		default:
			parts = append(parts, fmt.Sprintf("%d %s", n.count, n.many))
		}
	}
	if parts == nil {
		return ""
	}
	return " for " + strings.Join(parts, ", ")
}
