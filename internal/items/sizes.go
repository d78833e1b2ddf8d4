package items

// BlobSize is how much of a file one blob holds, in bytes; the last blob has the
// rest. It is the unit that an update re-keys, and the interval at which a stream
// checks whether its container's key may still be used.
const BlobSize = 8 << 20

// Sizes are how much is stored, read or written at a time. Tests use small ones.
type Sizes struct {
	Blob  int64 // bytes of a file that one blob has
	Batch int   // items that one transaction inserts or deletes
	Part  int   // items that are read and decrypted at a time

	Object int64 // bytes at which an object of several blobs is complete; default: as in production
}

// DefaultSizes are those of production.
var DefaultSizes = Sizes{Blob: BlobSize, Batch: 512, Part: 256, Object: 16 << 20}
