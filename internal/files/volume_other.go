//go:build !linux

package files

import "errors"

func openVolume(string) (Volume, error) { return nil, errors.ErrUnsupported }
