package api

import "net/http"

// AbandonInput names a mailbox, a site or a workload store.
type AbandonInput struct {
	Body struct {
		Kind      string `json:"kind" enum:"mailbox,site,workload"`
		Container string `json:"container" doc:"name of the mailbox or of the store, URL of the site"`
	}
}

// Abandoned counts what was deleted with a damaged container.
type Abandoned struct {
	Kind      string `json:"kind"`
	Container string `json:"container"`
	Items     int64  `json:"items" doc:"items that were deleted; no key could decrypt them"`
	Bytes     int64  `json:"bytes"`
}

// AbandonContainer is for a container whose key page is damaged and has no copy.
var AbandonContainer = define[AbandonInput, Abandoned](Meta{Name: "AbandonContainer", Method: http.MethodPost, Path: "/v1/abandon",
	Summary: "Delete a mailbox, a site or a workload store whose key page is damaged beyond repair; its name is free again, and it needs no key version any more"})
