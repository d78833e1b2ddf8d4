package cmdlet

import (
	"context"
	"fmt"
	"strings"

	"keyroll/api"
)

// warnNeeded tells what still needs a key version, any version of a key, or
// anything of a vault, before it is taken away: empty names stand for all. It
// only warns; whether to go on is the customer's to say.
func (c *Call) warnNeeded(ctx context.Context, vault, key, version string) {
	usage, err := c.Service.ListKeyUsage(ctx, api.KeyUsageInput{Vault: vault, Key: key, Version: version})
	if err != nil {
		c.warn("what still needs it is not known: %v", err)
		return
	}
	for _, u := range usage.Items {
		if u.Verdict != api.InUse {
			continue
		}
		c.warn("key %s version %s in vault %s is still needed by policy %s%s", u.Key, u.Version, u.Vault, u.Policy, needs(u))
	}
}

// needs writes the counts of what a key version protects.
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
