package content

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/envelope"
	"keyroll/internal/fault"
	"keyroll/internal/items"
	"keyroll/internal/mbox"
	"keyroll/internal/store"
)

// batchBytes is the size at which an import commits a batch of fewer than
// items.Sizes.Batch messages: there are few commits, and little to lose or to hold in
// memory.
const batchBytes = 16 << 20

// Imported counts what an import stored, and what mbox found in addition.
type Imported struct {
	Messages, Bytes       int64
	Before                int64 // messages that were stored before the import was continued
	NoEmptyLine, FromText int64
}

// ImportOptions are the options of an import; the zero value selects the defaults.
type ImportOptions struct {
	Name     string         // under which it can be continued; default: a unique name
	Format   api.MailFormat // default: api.AutoFormat
	Progress func(Imported) // is called after each commit with the counts so far
}

// PreparedImport is an import whose last batch is stored and not yet committed.
type PreparedImport struct {
	importing *importing
	options   ImportOptions
	mail      *mbox.Reader
	last      *batch
	done      Imported
}

// PrepareImport adds the messages of the mbox r to c, except for the last batch, which
// Commit adds. The mbox has size bytes; a negative size means that it is not known. The
// mbox is kept byte for byte.
//
// Each batch before the last one has a transaction of its own. If the import fails, the
// messages of finished transactions stay, as the error reports, and nothing that came
// after them: no message is ever stored in part. An import of the same name of the same
// mbox continues after them; it fails DifferentMail if the mbox begins differently, and
// Conflict if another request continues the same import. PrepareImport fails
// InvalidArgument if r is not an mbox, and Truncated if the transfer ended early.
func (s *Contents) PrepareImport(ctx context.Context, c container.Container, size int64, r io.Reader, options ImportOptions) (*PreparedImport, error) {
	in := newTransfer(ctx, r, size)
	p := &PreparedImport{options: options, mail: mbox.New(in, options.Format)}
	if err := p.storeBatches(ctx, s, c, in); err != nil {
		return nil, p.Failure(err)
	}
	return p, nil
}

// storeBatches stores all batches, and commits all but the last one. While one is stored
// and committed, the next one is read.
func (p *PreparedImport) storeBatches(ctx context.Context, s *Contents, c container.Container, in *transfer) (err error) {
	if p.importing, err = s.newImporting(ctx, c, p.options.Name, p.options.Format); err != nil {
		return err
	}
	if err := p.importing.resume(ctx, p.mail); err != nil {
		return in.failure(err)
	}
	p.done.Before = p.importing.stored.Messages
	last, committed := p.importing.stored, func() error { return nil }
	for {
		b, err := p.nextBatch(ctx, s, c, last)
		if failed := committed(); failed != nil {
			if err == nil {
				b.discard()
			}
			return failed
		}
		if err != nil {
			return in.failure(err)
		}
		if b.next.Finished {
			p.last = b
			return b.store(ctx)
		}
		last, committed = b.next, p.commit(ctx, b)
	}
}

// commit begins to store and commit a batch. The function that it returns waits until that
// is done, and counts the batch.
func (p *PreparedImport) commit(ctx context.Context, b *batch) (committed func() error) {
	var err error
	var panicked any
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer func() { panicked = recover() }()
		if err = b.store(ctx); err == nil {
			err = b.contents.db.Commit(ctx, b, func(tx *store.Tx) error { return b.Commit(ctx, tx) })
		}
	}()
	return func() error {
		<-ended
		if panicked != nil {
			panic(panicked) // which ends this request only
		}
		if err == nil {
			p.committed(b)
		}
		return err
	}
}

// nextBatch reads the messages of the batch after those of last.
func (p *PreparedImport) nextBatch(ctx context.Context, s *Contents, c container.Container, last MailImport) (*batch, error) {
	i := p.importing
	if err := s.items.CheckAccess(ctx, c); err != nil {
		return nil, err
	}
	blobs, err := s.items.NewBatch(ctx)
	if err != nil {
		return nil, err
	}
	b := &batch{contents: s, container: c, importing: i, blobs: blobs, pages: s.items.NewKeyPages(), link: last.link, read: i.read}
	finished, err := b.fill(ctx, p.mail)
	if err != nil {
		b.discard()
		return nil, err
	}
	b.next, b.seen = last, p.mail.Count()
	b.next.Messages, b.next.Bytes, b.next.link = b.next.Messages+int64(len(b.items)), b.next.Bytes+b.bytes, b.link
	b.next.digest, b.next.Finished, b.next.Changed = i.digest(), finished, s.now()
	return b, nil
}

// committed counts a batch.
func (p *PreparedImport) committed(b *batch) {
	p.importing.stored, p.importing.hasRow = b.next, true
	p.done = p.counting(b)
	if p.options.Progress != nil {
		p.options.Progress(p.done)
	}
}

// counting returns the counts of the import after a batch.
func (p *PreparedImport) counting(b *batch) Imported {
	done := p.done
	done.Messages += int64(len(b.items))
	done.Bytes += b.bytes
	done.NoEmptyLine, done.FromText = b.seen.NoEmptyLine, b.seen.FromText
	return done
}

// Failure adds to the error of the import's transaction what the import keeps.
func (p *PreparedImport) Failure(err error) error {
	if kept := p.done.Before + p.done.Messages; kept > 0 {
		err = fmt.Errorf("%w; its first %d messages were kept", err, kept)
	}
	return fmt.Errorf("import mail: %w", err)
}

// Prepare prepares the last batch again.
func (p *PreparedImport) Prepare(ctx context.Context) error { return p.last.Prepare(ctx) }

// Commit adds the last batch in tx, and returns the counts of the whole import.
func (p *PreparedImport) Commit(ctx context.Context, tx *store.Tx) (Imported, error) {
	if err := p.last.Commit(ctx, tx); err != nil {
		return p.done, err
	}
	return p.counting(p.last), nil
}

// Close ends the import.
func (p *PreparedImport) Close(ctx context.Context, outcome store.Outcome) {
	p.last.Close(ctx, outcome)
	if outcome == store.Committed {
		p.committed(p.last)
	}
}

// batch is the messages of one commit.
type batch struct {
	contents     *Contents
	container    container.Container
	importing    *importing
	next         MailImport // the state of the import after this batch
	seen         mbox.Count // up to the end of this batch
	blobs        *items.Batch
	objects      []items.Object
	items        []items.Row
	rows         []items.Blob
	keys         []*envelope.Key
	replacedKeys []*envelope.Key // of blobs that were re-encrypted before their rows were inserted
	pages        *items.KeyPages
	bytes        int64
	link         int64     // items.MessageMetadata.Next of the last message so far
	read         io.Writer // receives a copy of the bytes read
	opened       container.Opened
	stale        int64 // blobs that are older than this watermark have to be re-encrypted
}

// fill reads messages until the batch is full, and reports whether they were the
// last. It looks ahead, so that the last batch is known to be the last.
func (b *batch) fill(ctx context.Context, mail *mbox.Reader) (last bool, err error) {
	for {
		switch more, err := mail.More(); {
		case err != nil:
			return false, err
		case !more:
			return true, nil
		case len(b.items) >= b.contents.sizes.Batch || b.bytes >= batchBytes:
			return false, nil
		}
		if err := mail.Next(); err != nil {
			return false, err
		}
		if err := b.add(ctx, mail); err != nil {
			return false, err
		}
	}
}

// add stores the current message as a blob and prepares its rows.
func (b *batch) add(ctx context.Context, message *mbox.Reader) error {
	tenant := b.container.Tenant
	item := items.Row{ID: store.NewID(), Tenant: tenant, Container: b.container.ID, Version: 1, Created: b.contents.writtenTime()}
	row := items.Blob{ID: store.NewID(), Tenant: tenant, Item: item.ID}
	key := envelope.NewKey()
	b.keys = append(b.keys, key)
	in := &intake{from: io.TeeReader(message, b.read), lead: int64(message.Lead())}
	size, err := b.blobs.Put(ctx, row, key, in)
	if err != nil {
		return err
	}
	item.Size, row.Size = size, size
	metadata := in.metadata()
	metadata.Previous, b.link = b.link, 0
	if in.emptyLine() == 0 {
		metadata.Next, b.link = item.ID, item.ID
	}
	if err := item.SealMetadata(key, metadata); err != nil {
		return err
	}
	b.items, b.rows, b.bytes = append(b.items, item), append(b.rows, row), b.bytes+item.Size
	return nil
}

// store makes the blobs durable and prepares their rows. After a failure the batch is
// closed.
func (b *batch) store(ctx context.Context) error {
	if err := b.contents.items.CheckAccess(ctx, b.container); err != nil {
		b.discard()
		return err
	}
	stored, err := b.blobs.Commit(ctx)
	b.rows, b.objects = stored, b.blobs.Objects()
	if err == nil {
		fault.Point("import.blobs-durable")
		err = b.Prepare(ctx)
	}
	if err != nil {
		b.Close(ctx, store.NotCommitted)
	}
	return err
}

// discard ends a batch whose blobs are not stored.
func (b *batch) discard() {
	b.blobs.Discard()
	b.zero()
}

// Prepare opens the container's key and seals the pages of the blobs' keys under it.
func (b *batch) Prepare(ctx context.Context) (err error) {
	if b.stale != 0 {
		if err := b.renewStale(ctx, b.stale); err != nil {
			return err
		}
		b.stale = 0
	}
	b.opened.Zero()
	if b.opened, err = b.contents.keys.OpenKey(ctx, b.container, api.ByUser); err != nil {
		return err
	}
	return b.sealKeys(b.opened)
}

// Commit makes the batch visible in tx, and records the progress of its import.
func (b *batch) Commit(ctx context.Context, tx *store.Tx) (err error) {
	if b.stale, err = b.contents.items.AcceptsBlobs(ctx, tx, b.opened, b.rows); err != nil {
		return err
	}
	if err := items.CheckGCFence(ctx, tx, b.rows); err != nil {
		return err
	}
	if err := items.Insert(ctx, tx, b.items, b.rows, b.pages.Sealed); err != nil {
		return err
	}
	if err := items.InsertObjects(ctx, tx, b.objects, b.rows); err != nil {
		return err
	}
	if err := b.importing.recordProgress(ctx, tx, b.next); err != nil {
		return err
	}
	var add items.Total
	for _, item := range b.items {
		add.Items, add.Bytes = add.Items+1, add.Bytes+item.Size
	}
	if err := items.ChangeTotal(ctx, tx, b.container.Tenant, b.container.ID, add); err != nil {
		return err
	}
	fault.Point("import.before-commit")
	return nil
}

// Close zeroes keys, and deletes the blobs of a batch that was not committed.
func (b *batch) Close(ctx context.Context, outcome store.Outcome) {
	b.zero()
	switch outcome {
	case store.NotCommitted:
		b.contents.items.DeleteUnused(ctx, b.rows, nil)
	case store.Committed:
		fault.Point("import.after-commit")
	}
}

// sealKeys puts the blobs' keys into sealed pages.
func (b *batch) sealKeys(opened container.Opened) (err error) {
	b.pages.Sealed = nil
	for i := range b.rows {
		if b.rows[i].Page, err = b.pages.Add(b.rows[i].ID, b.keys[i]); err != nil {
			return err
		}
		if b.pages.Full() {
			if err := b.pages.Seal(opened); err != nil {
				return err
			}
		}
	}
	return b.pages.Seal(opened)
}

func (b *batch) zero() {
	for _, key := range append(b.replacedKeys, b.keys...) {
		key.Zero()
	}
	b.pages.Zero()
	b.opened.Zero()
}

// intake reads a message that is being stored. It records what the metadata need:
// the length of the "From " line and of anything before it, the beginning of the
// message, and its end.
type intake struct {
	from   io.Reader
	lead   int64 // bytes before the "From " line
	size   int64
	head   int64 // bytes up to the end of the "From " line; complete once headed
	headed bool
	begin  []byte
	ending
}

func (in *intake) Read(p []byte) (int, error) {
	n, err := in.from.Read(p)
	b := p[:n]
	in.size += int64(n)
	in.note(b)
	if !in.headed {
		line := b
		for i, c := range b {
			if c == '\n' && in.head+int64(i) >= in.lead {
				line, in.headed = b[:i+1], true
				break
			}
		}
		in.head += int64(len(line))
		b = b[len(line):]
	}
	if space := mbox.MaxHeader - len(in.begin); space > 0 && len(b) > 0 {
		in.begin = append(in.begin, b[:min(space, len(b))]...)
	}
	return n, err
}

func (in *intake) metadata() items.MessageMetadata {
	m := items.MessageMetadata{Head: in.head, Summary: mbox.ReadSummary(string(in.begin))}
	if tail := in.emptyLine(); in.size-in.head >= tail {
		m.Tail = tail
	}
	return m
}

// ending keeps the last bytes, up to three, of those passed to note.
type ending struct {
	bytes [6]byte
	n     int
}

func (e *ending) note(p []byte) {
	e.n += copy(e.bytes[e.n:], p[max(0, len(p)-3):])
	if e.n > 3 {
		copy(e.bytes[:3], e.bytes[e.n-3:e.n])
		e.n = 3
	}
}

// hasSuffix reports whether the bytes end with suffix, of up to three bytes.
func (e *ending) hasSuffix(suffix string) bool {
	return bytes.HasSuffix(e.bytes[:e.n], []byte(suffix))
}

// emptyLine returns the length of the empty line at the end, and 0 if there is none.
func (e *ending) emptyLine() int64 {
	switch {
	case e.hasSuffix("\n\n"):
		return 1
	case e.hasSuffix("\n\r\n"):
		return 2
	}
	return 0
}
