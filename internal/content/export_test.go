package content

import "io"

// Small makes c cut files into blobs of blobSize bytes, and take so many items at
// a time where it imports and reads.
func Small(c *Contents, blobSize int64, items int) *Contents {
	c.blobSize, c.batch, c.part = blobSize, items, items
	return c
}

// Mbox is the mbox reader.
type Mbox = mbox

// NewMbox returns one.
func NewMbox(r io.Reader) *Mbox { return newMbox(r) }
