package content

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"keyroll/api"
	"keyroll/internal/blob"
	"keyroll/internal/container"
	"keyroll/internal/envelope"
	"keyroll/internal/fault"
	"keyroll/internal/store"
)

// An import commits whenever a batch has this size, so that there are few commits,
// and little to lose or to hold in memory.
const (
	batchMessages = 512
	batchBytes    = 16 << 20
)

// Imported counts what an import stored, and what mbox found in addition.
type Imported struct {
	Messages, Bytes       int64
	Before                int64 // messages that were stored before the import was continued
	NoEmptyLine, FromText int64
}

// ImportOptions are the options of Import; nil selects the defaults.
type ImportOptions struct {
	Name     string         // under which it can be continued; default: a unique name
	Format   api.MailFormat // default: api.AutoFormat
	Progress func(Imported) // is called after each commit with the counts so far
}

// messageMetadata is the sealed metadata of a message. Head and Tail are how many of
// the stored bytes belong to the mbox rather than to the message: the "From " line
// before it, with anything that an mbox has before its first one, and the empty line
// after it.
type messageMetadata struct {
	Head int64 `json:"head"`
	Tail int64 `json:"tail,omitempty"`
	// Next, of a message that does not end in an empty line, is the Previous of the
	// one that follows it in the mbox: an export puts nothing between the two.
	Next     int64 `json:"next,omitempty"`
	Previous int64 `json:"previous,omitempty"`
	headerSummary
}

// Import adds the messages of the mbox r to c. The mbox has size bytes; a negative
// size means that it is not known. The mbox is kept byte for byte. also, if not
// nil, runs in the transaction of the last commit.
//
// Import commits in batches. If it fails, the messages of finished commits stay,
// as Imported and the error report, and nothing that came after them: no message is
// ever stored in part. An import of the same name of the same mbox continues after
// them; it fails DifferentMail if the mbox begins differently, and Conflict if
// another request continues the same import. Import fails InvalidArgument if r is
// not an mbox, and Truncated if the transfer ended early.
func (s *Contents) Import(ctx context.Context, c container.Container, size int64, r io.Reader, options *ImportOptions, also func(tx *store.Tx) error) (Imported, error) {
	var done Imported
	if options == nil {
		options = &ImportOptions{}
	}
	err := s.importAll(ctx, c, newTransfer(ctx, r, size), &done, options, also)
	if kept := done.Before + done.Messages; err != nil && kept > 0 {
		err = fmt.Errorf("%w; its first %d messages were kept", err, kept)
	}
	if err != nil {
		return done, fmt.Errorf("import mail: %w", err)
	}
	return done, nil
}

func (s *Contents) importAll(ctx context.Context, c container.Container, in *transfer, done *Imported, options *ImportOptions, also func(tx *store.Tx) error) error {
	mail := newMbox(in, options.Format)
	i, err := s.newImporting(ctx, c, options.Name, options.Format)
	if err != nil {
		return err
	}
	if err := i.resume(ctx, mail); err != nil {
		return in.failure(err)
	}
	done.Before = i.stored.Messages
	for {
		if err := s.checkAccess(ctx, c); err != nil {
			return err
		}
		b := &batch{contents: s, container: c, blobs: s.blobs.Batch(), pages: newPages{slots: s.slots}, link: i.stored.link, read: i.read}
		last, err := b.fill(ctx, mail)
		if err != nil {
			b.discard()
			return in.failure(err)
		}
		next := i.stored
		next.Messages, next.Bytes, next.link = next.Messages+int64(len(b.items)), next.Bytes+b.bytes, b.link
		next.digest, next.Finished, next.Changed = i.digest(), last, s.now()
		err = b.commit(ctx, func(tx *store.Tx) error {
			if err := i.recordProgress(ctx, tx, next); err != nil || !last || also == nil {
				return err
			}
			return also(tx)
		})
		if err != nil {
			return err
		}
		i.stored, i.hasRow = next, true
		done.Messages += int64(len(b.items))
		done.Bytes += b.bytes
		done.NoEmptyLine, done.FromText = mail.count.NoEmptyLine, mail.count.FromText
		if options.Progress != nil {
			options.Progress(*done)
		}
		if last {
			return nil
		}
	}
}

// batch is the messages of one commit.
type batch struct {
	contents     *Contents
	container    container.Container
	blobs        blob.Batch
	items        []itemRow
	rows         []blobRow
	keys         []*envelope.Key
	replacedKeys []*envelope.Key // of blobs that were re-encrypted before their rows were inserted
	pages        newPages
	bytes        int64
	link         int64     // messageMetadata.Next of the last message so far
	read         io.Writer // receives a copy of the bytes read
}

// fill reads messages until the batch is full, and reports whether they were the
// last. It looks ahead, so that the last batch is known to be the last.
func (b *batch) fill(ctx context.Context, mail *mbox) (last bool, err error) {
	for {
		switch more, err := mail.More(); {
		case err != nil:
			return false, err
		case !more:
			return true, nil
		case len(b.items) >= b.contents.batch || b.bytes >= batchBytes:
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
func (b *batch) add(ctx context.Context, message *mbox) error {
	tenant := b.container.Tenant
	item := itemRow{ID: store.NewID(), Tenant: tenant, Container: b.container.ID, Version: 1, Created: b.contents.writtenTime()}
	row := blobRow{ID: store.NewID(), Tenant: tenant, Item: item.ID}
	key := envelope.NewKey()
	b.keys = append(b.keys, key)
	in := &intake{from: io.TeeReader(message, b.read), lead: int64(message.lead)}
	sealed := newSealing(in, key, envelope.BlobContext{Tenant: tenant, Blob: row.ID})
	defer sealed.release()
	if _, err := b.blobs.Put(ctx, blobName(tenant, row.ID), sealed); err != nil {
		return err
	}
	item.Size, row.Size = sealed.size, sealed.size
	metadata := in.metadata()
	metadata.Previous, b.link = b.link, 0
	if in.emptyLine() == 0 {
		metadata.Next, b.link = item.ID, item.ID
	}
	if err := item.sealMetadata(key, metadata); err != nil {
		return err
	}
	b.items, b.rows, b.bytes = append(b.items, item), append(b.rows, row), b.bytes+item.Size
	return nil
}

// commit makes the batch durable and visible: first blobs, then rows and pages.
func (b *batch) commit(ctx context.Context, also func(tx *store.Tx) error) error {
	defer b.zero()
	if err := b.contents.checkAccess(ctx, b.container); err != nil {
		b.blobs.Discard()
		return err
	}
	if err := b.blobs.Commit(ctx); err != nil {
		return err
	}
	fault.Point("import.blobs-durable")
	err := b.contents.insertNewBlobs(ctx, func(run inTx) error {
		return retryIfStale(b.insert(ctx, run, also), func(mark int64) error { return b.renewStale(ctx, mark) })
	}, func() []blobRow { return b.rows })
	if errors.Is(err, errRetry) {
		return rolledMeanwhile()
	}
	if err != nil {
		return err
	}
	fault.Point("import.after-commit")
	return nil
}

// insert runs the transaction of commit.
func (b *batch) insert(ctx context.Context, run inTx, also func(tx *store.Tx) error) error {
	opened, err := b.contents.keys.OpenKey(ctx, b.container, api.ByUser)
	if err != nil {
		return err
	}
	defer opened.Zero()
	if err := b.sealKeys(opened); err != nil {
		return err
	}
	return run(func(tx *store.Tx) error {
		if err := b.contents.acceptsBlobs(ctx, tx, opened, b.rows); err != nil {
			return err
		}
		if err := checkGCFence(ctx, tx, b.rows); err != nil {
			return err
		}
		if err := insert(ctx, tx, b.items, b.rows, b.pages.sealed); err != nil {
			return err
		}
		if err := also(tx); err != nil {
			return err
		}
		fault.Point("import.before-commit")
		return nil
	})
}

// sealKeys puts the blobs' keys into sealed pages.
func (b *batch) sealKeys(opened container.Opened) (err error) {
	b.pages.sealed = nil
	for i := range b.rows {
		if b.rows[i].Page, err = b.pages.add(b.rows[i].ID, b.keys[i]); err != nil {
			return err
		}
		if b.pages.full() {
			if err := b.pages.seal(opened); err != nil {
				return err
			}
		}
	}
	return b.pages.seal(opened)
}

func (b *batch) discard() {
	b.blobs.Discard()
	b.zero()
}

func (b *batch) zero() {
	for _, key := range append(b.replacedKeys, b.keys...) {
		key.Zero()
	}
	b.pages.zero()
}

// deleteBlobs deletes blobs that no row references or ever will. Blobs that it cannot
// delete are harmless orphans in the blob store.
func (s *Contents) deleteBlobs(ctx context.Context, blobs []blobRow) {
	if len(blobs) > 0 {
		_ = s.deleteAll(context.WithoutCancel(ctx), blobs[0].Tenant, idsOf(blobs))
	}
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
	if space := maxHeader - len(in.begin); space > 0 && len(b) > 0 {
		in.begin = append(in.begin, b[:min(space, len(b))]...)
	}
	return n, err
}

func (in *intake) metadata() messageMetadata {
	m := messageMetadata{Head: in.head, headerSummary: readHeaderSummary(string(in.begin))}
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
