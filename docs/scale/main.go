// Command scale prints the arithmetic of docs/scale.md: what a service of many mailboxes
// in many regions takes, from constants that bench measures and limits that the
// vaults document. Each is a flag, so that anybody can put in his own:
//
//	go run ./docs/scale -mailboxes 5000000 -regions 10
package main

import (
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"
)

// plan is what is put in.
type plan struct {
	mailboxes, regions, messages, messageBytes           float64
	perPolicy, largestTenant, largestPolicies, policyAge float64
	databaseBytes, nodes, slots                          float64
	mailboxRow, messageRow                               float64
	containerRate, blobKeyRate, contentRate              float64
	renew, deadline                                      time.Duration
	refreshRequests, nodeRequests                        float64
	vaultLimit, largeKeyLimit                            float64

	inputs []input
}

// input is a row of the table of inputs.
type input struct {
	flag, meaning string
	show          func() string
}

func newPlan(flags *flag.FlagSet) *plan {
	p := &plan{}
	number := func(to *float64, name string, value float64, meaning string, show func(float64) string) {
		flags.Float64Var(to, name, value, meaning)
		p.inputs = append(p.inputs, input{name, meaning, func() string { return show(*to) }})
	}
	span := func(to *time.Duration, name string, value time.Duration, meaning string) {
		flags.DurationVar(to, name, value, meaning)
		p.inputs = append(p.inputs, input{name, meaning, func() string { return duration(*to) }})
	}
	number(&p.mailboxes, "mailboxes", 100e6, "mailboxes in all", count)
	number(&p.regions, "regions", 100, "regions, with as many mailboxes each", count)
	number(&p.messages, "messages", 20_000, "messages in each mailbox", count)
	number(&p.messageBytes, "message-bytes", 75<<10, "bytes a message", bytes)
	number(&p.perPolicy, "mailboxes-per-policy", 5000, "mailboxes a policy", count)
	number(&p.largestTenant, "largest-tenant", 1e6, "mailboxes of the largest tenant", count)
	number(&p.largestPolicies, "largest-policies", 50, "policies of the largest tenant, all in one pair of vaults; 50 is the most", count)
	number(&p.policyAge, "generations", 2, "policy keys a policy in use: the current one, and those that inactive mailboxes and backups stayed under", count)
	number(&p.databaseBytes, "database-bytes", 1<<40, "bytes that one database may take", bytes)
	number(&p.nodes, "nodes", 3, "nodes a cell", count)
	number(&p.slots, "page-slots", 512, "keys a key page", count)
	number(&p.mailboxRow, "mailbox-row", 611, "measured: bytes of the database for each mailbox", count)
	number(&p.messageRow, "message-row", 665, "measured: bytes of the database a message", count)
	number(&p.containerRate, "containers-per-second", 849e3, "measured: depth policy, of a database", count)
	number(&p.blobKeyRate, "blob-keys-per-second", 891e3, "measured: depth container, of a database", count)
	number(&p.contentRate, "content-bytes-per-second", 118<<20, "measured: depth content, of a node", bytes)
	span(&p.renew, "renew", 4*time.Minute, "a node unwraps each policy key that it holds again after")
	number(&p.refreshRequests, "refresh-requests", 4, "measured: requests of a refresh to each of its two vaults, at most: get, wrap, unwrap to compare, unwrap to roll", count)
	number(&p.nodeRequests, "node-requests", 1, "unwraps of a node that meets a new policy key, at one of the two vaults", count)
	number(&p.vaultLimit, "vault-limit", 2000, "documented: requests to a vault in 10 s with RSA 2,048 keys in an HSM", count)
	number(&p.largeKeyLimit, "vault-limit-4096", 250, "documented: the same with RSA 4,096 keys", count)
	span(&p.deadline, "deadline", 72*time.Hour, "how long a roll may take")
	return p
}

// cells is how the mailboxes of a region are divided.
func (p *plan) cells() (cells, mailboxes float64) {
	region := p.mailboxes / p.regions
	most := math.Floor(p.databaseBytes / (p.mailboxRow + p.messages*p.messageRow))
	cells = math.Ceil(region / max(most, 1))
	return cells, region / cells
}

// write prints all tables.
func (p *plan) write(w io.Writer) {
	t := table{w, []string{"put in", "flag", "value"}}
	t.head()
	for _, in := range p.inputs {
		t.row(in.meaning, "`-"+in.flag+"`", in.show())
	}
	cells, mailboxes := p.cells()
	messages := mailboxes * p.messages
	content := messages * p.messageBytes
	fmt.Fprintln(w)
	t = table{w, []string{"size", "a cell", "a region", "all"}}
	t.head()
	size := func(name string, cell float64, show func(float64) string) {
		t.row(name, show(cell), show(cell*cells), show(cell*cells*p.regions))
	}
	size("cells", 1, count)
	size("nodes", p.nodes, count)
	size("mailboxes", mailboxes, count)
	size("policies", math.Ceil(mailboxes/p.perPolicy), count)
	size("key pages of mailboxes", math.Ceil(mailboxes/p.slots), count)
	size("messages, each a blob with a key of its own", messages, count)
	size("key pages of blobs", mailboxes*math.Ceil(p.messages/p.slots), count)
	size("database", mailboxes*p.mailboxRow+messages*p.messageRow, bytes)
	size("blobs", content, bytes)

	fmt.Fprintln(w)
	t = table{w, []string{"one roll of all policies of a cell", "work", "time", fmt.Sprintf("nodes for %s", duration(p.deadline))}}
	t.head()
	t.row("`root`", count(math.Ceil(mailboxes/p.perPolicy)*p.policyAge)+" policy keys", "as the vaults answer", "1")
	roll := func(depth, work string, seconds float64) {
		t.row(depth, work, duration(time.Duration(seconds*float64(time.Second))), "1")
	}
	roll("`policy`", count(mailboxes)+" container keys", mailboxes/p.containerRate)
	roll("`container`", count(messages)+" blob keys", messages/p.blobKeyRate)
	t.row("`content`", bytes(content), duration(time.Duration(content/(p.contentRate*p.nodes)*float64(time.Second)))+fmt.Sprintf(" with %s nodes", count(p.nodes)),
		count(math.Ceil(content/(p.contentRate*p.deadline.Seconds()))))

	fmt.Fprintln(w)
	spread := math.Ceil(p.largestTenant / mailboxes)
	keys := p.largestPolicies * spread * p.policyAge
	t = table{w, []string{"requests of the largest tenant to one of its two vaults", "in 10 s", "of the limit, RSA 2,048", "RSA 4,096"}}
	t.head()
	vault := func(name string, requests float64) {
		t.row(name, fmt.Sprintf("%.1f", requests), share(requests/p.vaultLimit), share(requests/p.largeKeyLimit))
	}
	vault(fmt.Sprintf("at rest: %s policy keys (%s policies in each of %s cells), on %s nodes each", count(keys), count(p.largestPolicies), count(spread), count(p.nodes)),
		keys*p.nodes/2*10/p.renew.Seconds())
	vault("a refresh of one policy in all its cells", spread*(p.refreshRequests+p.nodes*p.nodeRequests))
	vault("a refresh of all its policies at once", p.largestPolicies*spread*(p.refreshRequests+p.nodes*p.nodeRequests))
	vault("all nodes restart at once", keys*p.nodes/2)
}

// table writes a table of Markdown.
type table struct {
	w       io.Writer
	columns []string
}

func (t table) head() {
	t.row(t.columns...)
	fmt.Fprintln(t.w, "|"+strings.Repeat("---|", len(t.columns)))
}

func (t table) row(cells ...string) {
	fmt.Fprintln(t.w, "| "+strings.Join(cells, " | ")+" |")
}

// count prints a number with thousands separated.
func count(n float64) string {
	digits := fmt.Sprintf("%.0f", n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// bytes prints a size in binary units.
func bytes(n float64) string {
	unit := 0
	for ; n >= 1024 && unit < 6; unit++ {
		n /= 1024
	}
	return fmt.Sprintf("%.3g %s", n, []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}[unit])
}

// share prints a part of a limit.
func share(part float64) string {
	if part > 1 {
		return fmt.Sprintf("%.1f ×: %.0f s", part, math.Ceil(part)*10)
	}
	return fmt.Sprintf("%.1f %%", 100*part)
}

func duration(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case d < 10*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	return fmt.Sprintf("%.1f h", d.Hours())
}

func main() {
	p := newPlan(flag.CommandLine)
	flag.Parse()
	p.write(os.Stdout)
}
