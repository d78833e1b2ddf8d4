package availability

import "keyroll/internal/files"

// VaultKey is the name of a version's key in a vault.
var VaultKey = vaultKey

// OpenOn opens a store in a folder of a file system.
func OpenOn(f files.FS, path string) (*Store, error) {
	d, err := openFolder(f, path)
	if err != nil {
		return nil, err
	}
	return &Store{backend: d}, nil
}
