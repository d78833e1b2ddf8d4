package content

import (
	"context"
	"io"

	"keyroll/internal/container"
)

// Get writes bytes of the file of c at path to w, as Reader.WriteRange does.
func (s *Contents) Get(ctx context.Context, c container.Container, path string, off, n int64, w io.Writer) error {
	r, err := s.Open(ctx, c, path)
	if err != nil {
		return err
	}
	defer r.Close()
	return r.WriteRange(ctx, off, n, w)
}
