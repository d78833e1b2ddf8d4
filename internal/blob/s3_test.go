package blob_test

import (
	"strings"
	"testing"

	"keyroll/internal/blob"
	"keyroll/internal/blob/blobtest"
	"keyroll/internal/blob/s3test"
)

func TestS3(t *testing.T) {
	server := s3test.Start(t)
	server.Setenv(t)
	blobtest.Run(t, func(t *testing.T) blob.Store {
		s, err := blob.Open(t.Context(), server.URL(server.Addr, strings.ToLower(t.Name())))
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}
