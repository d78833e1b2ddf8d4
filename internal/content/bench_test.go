package content_test

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"keyroll/internal/container"
	"keyroll/internal/content"
	"keyroll/internal/content/contenttest"
	"keyroll/internal/store/storetest"
)

// benchFixture has the sizes of production.
func benchFixture(b *testing.B) *fixture {
	w := newFixture(b, storetest.One(b))
	w.Contents = contenttest.Connect(contenttest.Config{DB: w.DB, Containers: w.Containers.Containers, Blobs: w.Blobs, Slots: 512, Now: time.Now})
	return w
}

func BenchmarkMail(b *testing.B) {
	const n = 4096
	var all strings.Builder
	for i := range n {
		fmt.Fprintf(&all, "From alice@contoso.com Mon Jan  1 00:00:00 2024\nFrom: Alice <alice@contoso.com>\nTo: bob@contoso.com\nSubject: =?utf-8?q?message_%d?=\nDate: Mon, 1 Jan 2024 00:00:00 +0000\n\n%s\n\n",
			i, strings.Repeat("a line of some length, as mail has them\n", 50))
	}
	mbox := all.String()
	w := benchFixture(b)
	perSecond := func(b *testing.B) {
		b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "messages/s")
		b.SetBytes(int64(len(mbox)))
	}
	b.Run("import", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			b.StopTimer()
			w.Mail = w.MustCreate(b, container.Mailbox, fmt.Sprintf("m%d.%d@contoso.com", b.N, time.Now().UnixNano()))
			b.StartTimer()
			_, err := w.Import(b.Context(), w.Mail, -1, strings.NewReader(mbox), content.ImportOptions{})
			must(b, err)
		}
		perSecond(b)
	})
	b.Run("export", func(b *testing.B) {
		for b.Loop() {
			must(b, w.Export(b.Context(), w.Mail, io.Discard))
		}
		perSecond(b)
	})
	b.Run("check", func(b *testing.B) {
		for b.Loop() {
			must(b, w.Check(b.Context(), w.Mail, firstDamage))
		}
		perSecond(b)
	})
	b.Run("list", func(b *testing.B) {
		for b.Loop() {
			for after := int64(0); ; {
				list, err := w.Messages(b.Context(), w.Mail, after, 1000)
				must(b, err)
				if len(list) == 0 {
					break
				}
				after = list[len(list)-1].ID
			}
		}
		perSecond(b)
	})
}

func BenchmarkFile(b *testing.B) {
	const size = 256 << 20
	w := benchFixture(b)
	b.Run("put", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			_, err := w.Put(b.Context(), w.Site, "file", size, contenttest.ZeroBytes(size))
			must(b, err)
		}
	})
	b.Run("get", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			must(b, w.Get(b.Context(), w.Site, "file", 0, -1, io.Discard))
		}
	})
	b.Run("small", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			w.MustPut(b, fmt.Sprintf("dir/%d", i), "a small file")
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "files/s")
	})
}
