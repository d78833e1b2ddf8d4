package store

import "time"

// TimeOrZero returns the time of a column in milliseconds since 1970, in which 0 means none.
func TimeOrZero(milli int64) time.Time {
	if milli == 0 {
		return time.Time{}
	}
	return time.UnixMilli(milli)
}

// MilliOrZero is the inverse of TimeOrZero.
func MilliOrZero(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}
