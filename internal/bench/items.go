package bench

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/node"
	"keyroll/internal/store"
)

// ItemsOptions says how many small items are stored and read: Items messages and Items
// files of ItemSize bytes each.
type ItemsOptions struct {
	Options
	Clients []int // numbers of concurrent clients, each measured on its own
}

// ItemsResult is the result of a benchmark of small items.
type ItemsResult struct {
	Clients    []ItemsFigures `json:"clients"`
	Items      int            `json:"items"` // messages, and files, per number of clients and round
	ItemSize   int64          `json:"itemSize"`
	Path       string         `json:"path"`
	BytesEqual bool           `json:"bytesEqual"`
	Base
}

// ItemsFigures are the figures at one number of clients: medians, rates in items per second.
// Base.Range has each under its name, a slash and the number of clients.
type ItemsFigures struct {
	Clients                int     `json:"clients"`
	RatioImportToWrite     float64 `json:"ratioImportToWrite"`
	RatioImportToRows      float64 `json:"ratioImportToRows"`
	RatioPutToWrite        float64 `json:"ratioPutToWrite"`
	RatioGetToWithoutAudit float64 `json:"ratioGetToWithoutAudit"`
	ImportPerSecond        float64 `json:"importPerSecond"`
	WriteMailPerSecond     float64 `json:"writeMailPerSecond"` // the same mbox in a file of each client, with fsync
	RowsPerSecond          float64 `json:"rowsPerSecond"`      // the rows that the import made, inserted again
	PutPerSecond           float64 `json:"putPerSecond"`
	PutP50Seconds          float64 `json:"putP50Seconds"`
	PutP99Seconds          float64 `json:"putP99Seconds"`
	WriteFilesPerSecond    float64 `json:"writeFilesPerSecond"` // a file for each item, with fsync
	GetPerSecond           float64 `json:"getPerSecond"`
	GetP50Seconds          float64 `json:"getP50Seconds"`
	GetP99Seconds          float64 `json:"getP99Seconds"`
	WithoutAuditPerSecond  float64 `json:"withoutAuditPerSecond"` // gets without an audit entry
	ListPerSecond          float64 `json:"listPerSecond"`
	// ObjectsPer1000Messages is how many objects of the blob store 1,000 imported messages
	// are in.
	ObjectsPer1000Messages float64 `json:"objectsPer1000Messages"`
}

// itemsPath names the layers between the clients and the node.
const itemsPath = "clients with connections of their own, TLS 1.3, HTTP/2 to import, put and list and HTTP/1.1 to get, node; in one process on the same cores"

// Items imports, stores, reads and lists small items with each number of clients, in
// interleaved rounds with plain writes of the same bytes, the rows of the import alone, and
// reads without audit entries. It compares all that it reads with what it has stored.
func Items(ctx context.Context, o ItemsOptions) (r ItemsResult, err error) {
	if err := o.checkClients(); err != nil {
		return r, err
	}
	databases, drop, err := o.databases(ctx, 2)
	if err != nil {
		return r, err
	}
	defer drop(&err)
	p, err := startItems(ctx, o, databases)
	if err != nil {
		return r, err
	}
	defer p.close()
	s := series{}
	for round := range o.Rounds {
		o.Progress(roundOf(round, o.Rounds))
		for _, clients := range o.Clients {
			if err := p.round(ctx, round, clients, s); err != nil {
				return r, err
			}
		}
	}
	o.Progress("read all messages again")
	if err := p.checkMail(ctx); err != nil {
		return r, err
	}
	for _, clients := range o.Clients {
		r.Clients = append(r.Clients, itemsFigures(s, clients))
	}
	r.Items, r.ItemSize, r.Path, r.BytesEqual = o.Items, o.ItemSize, itemsPath, true
	r.Base, err = p.base(ctx, s)
	return r, err
}

// checkClients completes o with a mailbox for each import.
func (o *ItemsOptions) checkClients() error {
	o.Containers = 0
	for _, clients := range o.Clients {
		if clients < 1 || clients > o.Items {
			return fail.New(api.InvalidArgument, "%d items cannot be shared among %d clients; there must be at least 1 client, and an item for each", o.Items, clients)
		}
		o.Containers += clients * o.Rounds
	}
	if len(o.Clients) == 0 {
		return fail.New(api.InvalidArgument, "there is no number of clients")
	}
	if slices.Sort(o.Clients); len(slices.Compact(slices.Clone(o.Clients))) != len(o.Clients) {
		return fail.New(api.InvalidArgument, "a number of clients is named twice")
	}
	return o.checkItems()
}

func itemsFigures(s series, clients int) ItemsFigures {
	of := func(name string) float64 { return s.median(atClients(name, clients)) }
	return ItemsFigures{Clients: clients,
		RatioImportToWrite: of("ratioImportToWrite"), RatioImportToRows: of("ratioImportToRows"), RatioPutToWrite: of("ratioPutToWrite"), RatioGetToWithoutAudit: of("ratioGetToWithoutAudit"),
		ImportPerSecond: of("importPerSecond"), WriteMailPerSecond: of("writeMailPerSecond"), RowsPerSecond: of("rowsPerSecond"),
		PutPerSecond: of("putPerSecond"), PutP50Seconds: of("putP50Seconds"), PutP99Seconds: of("putP99Seconds"), WriteFilesPerSecond: of("writeFilesPerSecond"),
		GetPerSecond: of("getPerSecond"), GetP50Seconds: of("getP50Seconds"), GetP99Seconds: of("getP99Seconds"), WithoutAuditPerSecond: of("withoutAuditPerSecond"),
		ListPerSecond: of("listPerSecond"), ObjectsPer1000Messages: of("objectsPer1000Messages")}
}

func atClients(name string, clients int) string { return fmt.Sprintf("%s/%d", name, clients) }

// itemsNode is a node with mailboxes and a site, and what small items are compared with.
type itemsNode struct {
	*fixture
	rows         *store.DB // has the rows of imports alone
	withoutAudit atomic.Bool
	content      []byte // of files, which differ in their first bytes
	imported     []importedMail
	files        uint64 // that have been stored
}

// importedMail is a mailbox with the number of its messages.
type importedMail struct {
	mailbox  string
	messages int
}

// startItems starts the node. It does its background work, as a node that serves users
// does: puts queue jobs.
func startItems(ctx context.Context, o ItemsOptions, databases []string) (p *itemsNode, err error) {
	p = &itemsNode{content: make([]byte, o.ItemSize)}
	rand.Read(p.content)
	o.Progress(fmt.Sprintf("fill %d mailboxes", o.Containers))
	p.fixture, err = startNode(ctx, o.Options, node.Options{Data: filepath.Join(o.Data, "items"), Database: databases[0],
		ForTests: &store.ForTests{SkipAppends: p.withoutAudit.Load}})
	if err != nil {
		return nil, err
	}
	if err = o.Script(ctx, p.Node, contentSetUp); err == nil {
		p.rows, err = o.openEmpty(ctx, databases[1])
	}
	if err != nil {
		p.fixture.Close()
		return nil, err
	}
	return p, nil
}

func (p *itemsNode) close() {
	p.rows.Close()
	p.fixture.Close()
}

// round measures everything once with a number of clients.
func (p *itemsNode) round(ctx context.Context, round, clients int, s series) error {
	c, err := p.connect(ctx, clients)
	if err != nil {
		return err
	}
	defer c.close()
	r := itemsRound{c, round, s}
	if err := r.mail(ctx); err != nil {
		return err
	}
	if err := r.puts(ctx); err != nil {
		return err
	}
	return r.gets(ctx)
}

// timing is how long some work took, and each of its calls.
type timing struct {
	took time.Duration
	each []time.Duration
}

// rateAgainst returns the rate of t divided by that of other, for the same work.
func (t timing) rateAgainst(other timing) float64 { return other.took.Seconds() / t.took.Seconds() }

// concurrently calls do n times, by as many goroutines as there are clients. Each takes the
// next item when it has finished one.
func concurrently(n, clients int, do func(client, i int) error) (t timing, err error) {
	var g errgroup.Group
	var begun atomic.Int64
	t.each = make([]time.Duration, n)
	begin := time.Now()
	for client := range clients {
		g.Go(func() error {
			for i := int(begun.Add(1)) - 1; i < n; i = int(begun.Add(1)) - 1 {
				began := time.Now()
				if err := do(client, i); err != nil {
					return err
				}
				t.each[i] = time.Since(began)
			}
			return nil
		})
	}
	err = g.Wait()
	t.took = time.Since(begin)
	return t, err
}

// newImports shares the messages of a round among clients, with a mailbox for each.
func (p *itemsNode) newImports(clients int) []importedMail {
	mail := make([]importedMail, clients)
	for i := range mail {
		messages := p.options.Items / clients
		if i < p.options.Items%clients {
			messages++
		}
		mail[i] = importedMail{mailboxName(len(p.imported) + i), messages}
	}
	p.imported = append(p.imported, mail...)
	return mail
}

// file returns the content of a file.
func (p *itemsNode) file(number uint64) []byte {
	head := binary.BigEndian.AppendUint64(nil, number)
	content := bytes.Clone(p.content)
	copy(content, head[max(len(head)-len(content), 0):])
	return content
}

// objects counts the objects of the blob store.
func (p *itemsNode) objects() (n int, err error) {
	err = filepath.WalkDir(filepath.Join(p.options.Data, "items", "blobs"), func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			n++
		}
		return err
	})
	return n, err
}

// checkMail exports all messages that were imported and compares them.
func (p *itemsNode) checkMail(ctx context.Context) error {
	for _, m := range p.imported {
		stored, err := io.ReadAll(newMail(m.messages, p.options.ItemSize))
		if err != nil {
			return err
		}
		r, err := p.client.ExportMail(ctx, api.MailboxInput{Mailbox: m.mailbox})
		if err != nil {
			return err
		}
		read, err := io.ReadAll(r)
		r.Close()
		if err != nil {
			return err
		}
		if !bytes.Equal(read, stored) {
			return fail.New(api.Damaged, "the messages that were read differ from those that were imported")
		}
	}
	return nil
}
