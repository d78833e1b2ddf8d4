package seal

import "keyroll/internal/files"

// OpenOn opens the seal in a file of a file system.
func OpenOn(f files.FS, path string) (*Seal, error) {
	key, err := keyFile(f, path)
	if err != nil {
		return nil, err
	}
	return fromKey(key), nil
}
