package clustertest_test

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/blob/s3test"
	"keyroll/internal/container"
	"keyroll/internal/node/clustertest"
	"keyroll/internal/node/nodetest"
	"keyroll/internal/proxytest"
	"keyroll/internal/store/storetest"
)

var benchRounds = flag.Int("rounds", 3, "interleaved rounds of a benchmark")

const (
	benchMailboxes = 64
	benchMessages  = 4       // of each
	benchMessage   = 1 << 20 // bytes of each
	// trafficPerSecond is what passes between a node and the blobs, both ways.
	trafficPerSecond = 20 << 20
)

// BenchmarkTwoNodesAgainstOne rolls the same content at depth content by one
// node and by two, one after the other in each round, on PostgreSQL and an S3
// server, which every node accesses through its own proxy. Work that both nodes do
// passes both proxies.
func BenchmarkTwoNodesAgainstOne(b *testing.B) {
	objects := s3test.Start(b)
	objects.Setenv(b)
	o := clustertest.Options{Nodes: 2, Database: storetest.PostgresURL(b), Blobs: objects.URL(objects.Addr, "bench")}
	var lines []*proxytest.Proxy
	for range o.Nodes {
		line := proxytest.New(b, "tcp", objects.Addr)
		line.Limit(trafficPerSecond)
		lines = append(lines, line)
	}
	o.Reach = func(i int) (database, blobs string) { return o.Database, objects.URL(lines[i].Addr(), "bench") }
	c := clustertest.Start(b, o)
	c.Nodes[0].World().StageMail()
	inside := c.Inside() // by a line without a limit
	var names []string
	for i := range benchMailboxes {
		names = append(names, fmt.Sprintf("m%d@contoso.com", i))
	}
	inside.CreateMany(container.Mailbox, names, nodetest.MailboxPolicy)
	var mail strings.Builder
	for range benchMessages {
		mail.WriteString("From bench Thu Jan  1 00:00:00 1970\n\n" + strings.Repeat(strings.Repeat("x", 63)+"\n", benchMessage/64) + "\n")
	}
	for _, name := range names {
		inside.Import(name, mail.String())
	}
	inside.Stop()

	roll := func() (seconds float64, passed int64) {
		for _, l := range lines {
			passed -= l.Passed()
		}
		w := c.Nodes[0].World()
		w.AddKey(nodetest.VaultA1)
		w.Refresh(nodetest.MailboxPolicy, api.DepthContent)
		r := w.FinishRoll(nodetest.MailboxPolicy)
		if r.BytesDone != r.BytesTotal || r.BlobsDone != r.BlobsTotal {
			b.Fatalf("the roll is not counted to its end: %+v", r)
		}
		for _, l := range lines {
			passed += l.Passed()
		}
		return r.Finished.Sub(r.Started).Seconds(), passed
	}
	var ratios, ones, twos, extra []float64
	for b.Loop() {
		for range *benchRounds {
			c.Nodes[1].Stop()
			one, once := roll()
			c.Nodes[1].Start()
			two, passed := roll()
			ratios, ones, twos = append(ratios, one/two), append(ones, one), append(twos, two)
			extra = append(extra, 100*(float64(passed)/float64(once)-1))
		}
	}
	c.Nodes[0].World().VerifyClean()
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(ratios), "times-as-fast")
	b.ReportMetric(median(extra), "%-done-twice")
	b.ReportMetric(median(ones), "s-by-one")
	b.ReportMetric(median(twos), "s-by-two")
	b.Logf("two nodes against one %.2f (%.2f to %.2f), passed to and from the blobs %+.2f %% (%+.2f to %+.2f)",
		median(ratios), slices.Min(ratios), slices.Max(ratios), median(extra), slices.Min(extra), slices.Max(extra))
}

func median(values []float64) float64 { return slices.Sorted(slices.Values(values))[len(values)/2] }
