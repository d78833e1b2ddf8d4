package api

import "net/http"

// AbandonInput names a mailbox, a site or a workload store.
type AbandonInput struct {
	Body struct {
		Kind      string `json:"kind" enum:"mailbox,site,workload"`
		Container string `json:"container" doc:"name of the mailbox or of the store, URL of the site"`
	}
}

// Abandoned is what went with a container whose key page is lost.
type Abandoned struct {
	Kind      string `json:"kind"`
	Container string `json:"container"`
	Items     int64  `json:"items" doc:"items that nothing opens any more"`
	Bytes     int64  `json:"bytes"`
}

// AbandonContainer is the way on where a key page is lost and no copy of it is left.
var AbandonContainer = define[AbandonInput, Abandoned](Meta{Name: "AbandonContainer", Method: http.MethodPost, Path: "/v1/abandon",
	Summary: "Take away a mailbox, a site or a workload store whose key page is lost, so that its name is free and no key version is needed for it"})
