package main

import (
	"fmt"
	"io"

	"keyroll/internal/bench"
)

type benchContent struct {
	Size byteSize `name:"size" default:"1GiB" placeholder:"BYTES" help:"Size of the file; KiB, MiB and GiB may follow the number (${default})."`
	benchPlace
}

func (c *benchContent) Run(e *env) error {
	return c.in(e, func(o bench.Options) error {
		o.ItemSize = int64(c.Size)
		r, err := bench.Content(e, o)
		if err != nil {
			return err
		}
		return e.object(r, func(w io.Writer) {
			figures(w, r.Base,
				"ratio of put to plain copy", ratio("ratioPutToCopy"), "ratio of get to plain copy", ratio("ratioGetToCopy"),
				"the same, get written with fsync", ratio("ratioGetToDiskToCopy"),
				"memory above idle", fmt.Sprintf("%s to put, %s to get", size(r.PutAboveIdleBytes), size(r.GetAboveIdleBytes)), "memory at idle", size(r.IdleBytes),
				"put", bytesPerSecond("putPerSecond"), "get", bytesPerSecond("getPerSecond"), "get, written with fsync", bytesPerSecond("getToDiskPerSecond"),
				"plain copy, with fsync", bytesPerSecond("copyPerSecond"), "seals alone", bytesPerSecond("sealPerSecond"), "opening alone", bytesPerSecond("openPerSecond"),
				"file", size(r.Size), "path", r.Path, "bytes equal", r.BytesEqual)
		})
	})
}
