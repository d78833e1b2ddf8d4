package api

import "net/http"

// CollectBlobsInput says which orphans a collection takes.
type CollectBlobsInput struct {
	Body struct {
		GraceSeconds int64 `json:"graceSeconds,omitempty" doc:"how old an orphan has to be; 86400, a day, unless given. An upload that takes longer is refused at its end"`
		DryRun       bool  `json:"dryRun,omitempty" doc:"count alone; what is counted may yet be named by an upload under way"`
	}
}

// CollectedBlobs counts what a collection has come across: blobs of all tenants
// in the blob store, sealed.
type CollectedBlobs struct {
	Blobs       int64 `json:"blobs"`
	Bytes       int64 `json:"bytes"`
	Orphans     int64 `json:"orphans" doc:"blobs older than the grace that nothing names and nothing named"`
	OrphanBytes int64 `json:"orphanBytes"`
	Removed     int64 `json:"removed" doc:"blobs that were deleted: orphans, and those of deleted and replaced content"`
}

// CollectBlobsEvent is one line of a running collection: progress, or the report
// that ends it.
type CollectBlobsEvent struct {
	Progress *CollectedBlobs `json:"progress,omitempty"`
	Report   *CollectedBlobs `json:"report,omitempty"`
	Problem  *Problem        `json:"problem,omitempty"`
}

// CollectBlobs is an act on the whole service.
var CollectBlobs = define[CollectBlobsInput, CollectBlobsEvent](Meta{Name: "CollectBlobs", Method: http.MethodPost, Path: "/v1/blobs/collect", Role: Operator,
	Summary: "Delete from the blob store what nothing names: the blobs of deleted and replaced content, and orphans; the last line is the report", Returns: Lines})
