package keypage

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"

	"keyroll/internal/envelope"
	"keyroll/internal/store"
)

// Buffer reads pages into memory that the next read uses again: fresh memory costs
// more than decrypting what is read into it. The zero value is ready for use.
type Buffer struct {
	rows   []Row
	bodies []byte
}

// Under is the function Under. The rows and their bodies are valid until the next
// call; the caller may change them.
func (b *Buffer) Under(ctx context.Context, tx *store.Tx, tenant int64, parents []Parent, classes []envelope.Class, after int64, limit int) ([]Row, error) {
	b.rows, b.bodies = b.rows[:0], b.bodies[:0]
	for part := range slices.Chunk(spans(parents, classes), maxSpans) {
		query, args := underPages(tenant, part, after, limit)
		if err := b.query(ctx, tx, query, args); err != nil {
			return nil, fmt.Errorf("read key pages: %w", err)
		}
	}
	slices.SortFunc(b.rows, func(a, b Row) int { return cmp.Compare(a.ID, b.ID) })
	return b.rows[:min(len(b.rows), limit)], nil
}

func (b *Buffer) query(ctx context.Context, tx *store.Tx, query string, args []any) error {
	found, err := tx.Query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer found.Close()
	for found.Next() {
		var row Row
		var body sql.RawBytes
		if err := found.Scan(row.columns(&body)...); err != nil {
			return err
		}
		row.Body = b.keep(body)
		b.rows = append(b.rows, row)
	}
	return found.Err()
}

// keep copies a body into the buffer. If that is too small, later bodies are in a
// larger one, and earlier ones stay where they are.
func (b *Buffer) keep(body []byte) []byte {
	begin := len(b.bodies)
	if cap(b.bodies)-begin < len(body) {
		begin, b.bodies = 0, make([]byte, 0, max(2*cap(b.bodies), len(body)))
	}
	b.bodies = append(b.bodies, body...)
	return b.bodies[begin:len(b.bodies):len(b.bodies)]
}
