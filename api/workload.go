package api

import (
	"net/http"
	"time"
)

// Workload is the store of one workload. A multi-workload policy covers these
// stores in addition to mailboxes.
type Workload struct {
	Name       string     `json:"name" doc:"chat-messages or sensitivity-labels"`
	Created    time.Time  `json:"created"`
	Protection Protection `json:"protection"`
	Items      int64      `json:"items"`
	Bytes      int64      `json:"bytes"`
}

// WorkloadInput names a workload store.
type WorkloadInput struct {
	Workload string `path:"workload" enum:"chat-messages,sensitivity-labels"`
}

// WorkloadItemInput names an item of a workload store.
type WorkloadItemInput struct {
	WorkloadInput
	Item string `query:"item" doc:"name of the item" required:"true"`
}

// ListStoreItems selects a page of the items of a workload store.
type ListStoreItems struct {
	WorkloadInput
	PageInput
}

// Workload stores. An item is shown as a file is.
var (
	ListWorkloads = define[ListInput, List[Workload]](Meta{Name: "ListWorkloads", Method: http.MethodGet, Path: "/v1/workloads",
		Summary: "List the workload stores and what they are encrypted with"})
	ListWorkloadItems = define[ListStoreItems, List[File]](Meta{Name: "ListWorkloadItems", Method: http.MethodGet, Path: "/v1/workloads/{workload}/items",
		Summary: "List the items of a workload store in the order in which they were stored; those of one page by name"})
	PutWorkloadItem = define[WorkloadItemInput, File](Meta{Name: "PutWorkloadItem", Method: http.MethodPut, Path: "/v1/workloads/{workload}/item",
		Summary: "Store an item, all of it or nothing; an item of the same name is replaced", Sends: Bytes})
	GetWorkloadItem = define[WorkloadItemInput, None](Meta{Name: "GetWorkloadItem", Method: http.MethodGet, Path: "/v1/workloads/{workload}/item",
		Summary: "Read an item", Returns: Bytes})
)
