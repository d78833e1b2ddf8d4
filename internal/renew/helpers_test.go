package renew_test

import "keyroll/internal/content/contenttest"

// fixture is what most tests work on.
type fixture = contenttest.Small

const blobSize = contenttest.SmallBlob

var (
	each = contenttest.Each
	must = contenttest.Must
)
