package items_test

import "keyroll/internal/content/contenttest"

// fixture is what most tests work on.
type fixture = contenttest.Small

const tenant = contenttest.Tenant

var (
	newFixture = contenttest.NewSmall
	each       = contenttest.Each
	must       = contenttest.Must
	wantCode   = contenttest.WantCode
)

func errorOf[T any](_ T, err error) error { return err }
