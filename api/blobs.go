package api

import "net/http"

// CollectBlobsInput says which orphans a collection deletes.
type CollectBlobsInput struct {
	Body struct {
		GraceSeconds int64 `json:"graceSeconds,omitempty" doc:"minimum age of an orphan; default: 86400, one day. An upload that takes longer is refused at its end"`
		DryRun       bool  `json:"dryRun,omitempty" doc:"report only, delete nothing; an upload in progress may still reference what is counted"`
	}
}

// CollectedBlobs counts the objects that a collection has found in the blob store: those
// of all tenants, in their encrypted size. An object holds one or more blobs.
type CollectedBlobs struct {
	Blobs       int64 `json:"blobs"`
	Bytes       int64 `json:"bytes"`
	Orphans     int64 `json:"orphans" doc:"unreferenced objects older than graceSeconds that were never referenced"`
	OrphanBytes int64 `json:"orphanBytes"`
	Removed     int64 `json:"removed" doc:"objects that were deleted: orphans, and those of deleted and replaced content"`
	Moved       int64 `json:"moved" doc:"blobs that were copied, from objects of which more than half was deleted and from small ones, to other objects; the next collection deletes the old ones"`
}

// CollectBlobsEvent is one line of a running collection: progress, or the report
// that ends it.
type CollectBlobsEvent struct {
	Progress *CollectedBlobs `json:"progress,omitempty"`
	Report   *CollectedBlobs `json:"report,omitempty"`
	Problem  *Problem        `json:"problem,omitempty"`
}

// CollectBlobs acts on the whole service, not on one tenant.
var CollectBlobs = define[CollectBlobsInput, CollectBlobsEvent](Meta{Name: "CollectBlobs", Method: http.MethodPost, Path: "/v1/blobs/collect",
	Summary: "Delete blobs that the database does not reference: those of deleted and replaced content, and orphans; the last line is the report", Returns: Lines})
