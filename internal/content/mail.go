package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
	"keyroll/internal/items"
)

// Message is what a list shows of a message.
type Message struct {
	ID      int64
	Subject string
	From    string
	Date    time.Time // zero if the message has none that can be read
	Flags   string    // the letters of its Status and X-Status fields
	Size    int64     // bytes, without the "From " line
	Damaged error     // why only the ID is valid; nil: all fields are
	Lost    bool      // damaged, and listed after all others: its position is not known
}

// Export writes c's messages to w as one mbox, in the order in which they were
// imported. After a single import it is what was imported, byte for byte; where the
// mboxes of several imports meet, or a message is omitted, line ends are added if
// they are needed to separate the messages. It checks access to the container's key
// again after every 256 messages or items.BlobSize bytes.
//
// A message that cannot be decrypted is omitted, and the others are written; Export
// then fails Damaged at the end and names the first. Only if a large message turns
// out to be damaged after part of it was written, Export ends there.
func (s *Contents) Export(ctx context.Context, c container.Container, w io.Writer) error {
	e := export{joiner: joiner{w: w}}
	err := s.exportAll(ctx, c, &e)
	if err == nil {
		err = e.damage()
	}
	if err != nil {
		return fmt.Errorf("export mail: %w", err)
	}
	return nil
}

// export is an export under way.
type export struct {
	joiner
	omitted int   // omitted messages
	first   error // why the first of them was omitted
}

// omit records that a message is omitted.
func (e *export) omit(err error) {
	if e.omitted++; e.first == nil {
		e.first = err
	}
}

func (e *export) damage() error {
	if e.omitted == 0 {
		return nil
	}
	return fail.New(api.Damaged, "%d messages are damaged and were omitted; all others were written; the first: %w", e.omitted, e.first).
		WithHint("keyroll verify lists them all; docs/damage.md describes how to restore them")
}

func (s *Contents) exportAll(ctx context.Context, c container.Container, e *export) error {
	for after := int64(0); ; {
		p, err := s.items.OpenPart(ctx, c, items.Messages, after, s.sizes.Part)
		if err != nil {
			return err
		}
		if len(p.List) == 0 {
			break
		}
		if err := s.exportPart(ctx, c, p, e); err != nil {
			return err
		}
		after = p.List[len(p.List)-1].Item.ID
	}
	lost, err := s.items.ItemsWithoutBlob(ctx, c, items.Messages)
	for _, l := range lost {
		e.omit(l.Err())
	}
	return err
}

func (s *Contents) exportPart(ctx context.Context, c container.Container, p items.Part, e *export) error {
	defer p.Keys.Zero()
	from := s.items.InOrder(firstBlobs(p.List))
	defer from.Close()
	var written int64 // since access to the key was checked
	for _, f := range p.List {
		if written >= s.sizes.Blob {
			if err := s.items.CheckAccess(ctx, c); err != nil {
				return err
			}
			written = 0
		}
		_, err := p.Keys.Key(f.Blob)
		if err == nil {
			message := messageWriter{to: &e.joiner, of: func() items.MessageMetadata { return metadataOrEmpty(p, f) }}
			err = s.copyMessage(ctx, openedMessage{f, c, p.Keys, from}, f.Blob.Whole(), &message)
			if err != nil && message.begun {
				return err
			}
		}
		if fail.Is(err, api.Damaged) {
			e.omit(err)
			continue
		}
		if err != nil {
			return err
		}
		e.next = 0
		if e.emptyLine() == 0 {
			e.next = metadataOrEmpty(p, f).Next
		}
		written += f.Blob.Size
	}
	return nil
}

func firstBlobs(list []items.WithFirstBlob) []items.Blob {
	blobs := make([]items.Blob, len(list))
	for i, f := range list {
		blobs[i] = f.Blob
	}
	return blobs
}

// metadataOrEmpty returns the metadata of a message, or empty metadata if they cannot be
// read: the content is exported nevertheless.
func metadataOrEmpty(p items.Part, f items.WithFirstBlob) items.MessageMetadata {
	m, err := metadataOf(p, f)
	if err != nil {
		return items.MessageMetadata{}
	}
	return m
}

// messageWriter writes one message. With its first bytes, it separates the message from
// the one before.
type messageWriter struct {
	to    *joiner
	of    func() items.MessageMetadata
	begun bool
}

func (m *messageWriter) Write(p []byte) (int, error) {
	if !m.begun {
		m.begun = true
		if err := m.to.separate(m.of); err != nil {
			return 0, err
		}
	}
	return m.to.Write(p)
}

// Messages returns up to limit of c's messages with ids above after, in the
// order in which they were imported. One that cannot be decrypted is listed as
// Damaged. Lost ones are added to the last part, beyond the limit.
func (s *Contents) Messages(ctx context.Context, c container.Container, after int64, limit int) ([]Message, error) {
	p, err := s.items.OpenPart(ctx, c, items.Messages, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list messages: %w", err)
	}
	defer p.Keys.Zero()
	list := make([]Message, len(p.List))
	for i, f := range p.List {
		m, err := metadataOf(p, f)
		if err != nil {
			list[i] = Message{ID: f.Item.ID, Damaged: err}
			continue
		}
		list[i] = Message{ID: f.Item.ID, Subject: m.Subject, From: m.From, Date: m.Date, Flags: m.Flags, Size: f.Item.Size - m.Head - m.Tail}
	}
	if len(list) < limit {
		lost, err := s.items.ItemsWithoutBlob(ctx, c, items.Messages)
		if err != nil {
			return nil, fmt.Errorf("list messages: %w", err)
		}
		for _, l := range lost {
			list = append(list, Message{ID: l.ID, Damaged: l.Err(), Lost: true})
		}
	}
	return list, nil
}

// Message writes one message of c to w: the bytes between its "From " line and
// the empty line after it. It fails NotFound.
func (s *Contents) Message(ctx context.Context, c container.Container, id int64, w io.Writer) error {
	p, err := s.items.OpenPart(ctx, c, items.Messages, id-1, 1)
	if err != nil {
		return fmt.Errorf("read message: %w", err)
	}
	defer p.Keys.Zero()
	if len(p.List) == 0 || p.List[0].Item.ID != id {
		return fail.New(api.NotFound, "message %d does not exist", id)
	}
	f := p.List[0]
	m, err := metadataOf(p, f)
	if err != nil {
		return fmt.Errorf("read message: %w", err)
	}
	if err := s.copyMessage(ctx, openedMessage{f, c, p.Keys, s.items}, envelope.Range{Off: m.Head, N: f.Blob.Size - m.Head - m.Tail}, w); err != nil {
		return fmt.Errorf("read message: %w", err)
	}
	return nil
}

// metadataOf decrypts the metadata of a message of the part.
func metadataOf(p items.Part, f items.WithFirstBlob) (items.MessageMetadata, error) {
	var m items.MessageMetadata
	key, err := p.Keys.Key(f.Blob)
	if err == nil {
		err = f.Item.OpenMetadata(key, &m)
	}
	if err == nil && (f.Blob.Size != f.Item.Size || m.Head < 0 || m.Tail < 0 || m.Head+m.Tail > f.Item.Size) {
		err = fail.New(api.Damaged, "open item %d: its size does not match its blob %d", f.Item.ID, f.Blob.ID)
	}
	return m, err
}

// joiner writes messages one after the other and separates them: each but the last
// ends with an empty line, or is followed by the message that followed it in its
// mbox.
type joiner struct {
	w     io.Writer
	begun bool
	next  int64 // items.MessageMetadata.Next of the last message
	ending
}

// separate separates the previous message, if there is one and it needs it, from the
// next one, whose metadata of returns.
func (j *joiner) separate(of func() items.MessageMetadata) error {
	if !j.begun {
		j.begun = true
		return nil
	}
	var missing string
	switch {
	case j.emptyLine() > 0:
		return nil
	case j.next != 0 && of().Previous == j.next:
		return nil
	case j.hasSuffix("\r\n"):
		missing = "\r\n"
	case j.hasSuffix("\n"):
		missing = "\n"
	default:
		missing = "\n\n"
	}
	_, err := io.WriteString(j, missing)
	return err
}

func (j *joiner) Write(p []byte) (int, error) {
	n, err := j.w.Write(p)
	j.note(p[:n])
	return n, err
}

// blobCopier copies blobs as items.Store does: that, or a sequence with those that are read
// next.
type blobCopier interface {
	CopyBlob(ctx context.Context, b items.Blob, key *envelope.Key, at envelope.Range, w io.Writer) (written int64, err error)
}

// openedMessage is a message of a container with the key of its blob.
type openedMessage struct {
	listed    items.WithFirstBlob
	container container.Container
	keys      *items.Keyring
	from      blobCopier
}

// copyMessage writes a range of a message to w, as CopyBlob does, and looks the message
// up again if a roll re-encrypted it in the meantime.
func (s *Contents) copyMessage(ctx context.Context, f openedMessage, at envelope.Range, w io.Writer) error {
	for range items.MaxAttempts {
		key, err := f.keys.Key(f.listed.Blob)
		if err != nil {
			return err
		}
		written, err := f.from.CopyBlob(ctx, f.listed.Blob, key, at, w)
		if !errors.Is(err, items.ErrRenewed) {
			return err
		}
		if at = (envelope.Range{Off: at.Off + written, N: at.N - written}); written > 0 && at.N == 0 {
			return nil
		}
		p, err := s.items.OpenPart(ctx, f.container, items.Messages, f.listed.Item.ID-1, 1)
		if err != nil {
			return err
		}
		defer p.Keys.Zero()
		if len(p.List) == 0 || p.List[0].Item.ID != f.listed.Item.ID {
			return fmt.Errorf("read item %d: %w", f.listed.Item.ID, items.ErrReplaced)
		}
		f.listed, f.keys = p.List[0], p.Keys
	}
	return items.RolledMeanwhile()
}
