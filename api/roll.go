package api

import (
	"net/http"
	"time"
)

// Depth is what a roll replaces; each depth includes the ones before it.
type Depth string

const (
	// DepthRoot re-wraps policy keys under newer customer key versions.
	DepthRoot Depth = "root"
	// DepthPolicy makes a new policy key and re-wraps container keys.
	DepthPolicy Depth = "policy"
	// DepthContainer makes new container keys and re-wraps blob keys.
	DepthContainer Depth = "container"
	// DepthContent makes new blob keys and re-encrypts content.
	DepthContent Depth = "content"
)

// RollState is the state of a roll.
type RollState string

const (
	RollRunning    RollState = "running"
	RollPaused     RollState = "paused"
	RollFinished   RollState = "finished"
	RollSuperseded RollState = "superseded"
	RollCancelled  RollState = "cancelled"
	RollFailed     RollState = "failed"
)

// RollStage is what a roll works on.
type RollStage string

const (
	// StagePolicy re-wraps container keys under the current policy key.
	StagePolicy RollStage = "policy"
	// StageContainer makes new container keys and re-wraps blob keys under them.
	StageContainer RollStage = "container"
	// StageContent re-encrypts content.
	StageContent RollStage = "content"
)

// Roll moves containers from older keys to newer ones, down to its depth.
type Roll struct {
	ID       string    `json:"id"`
	Policy   string    `json:"policy" doc:"name of the policy"`
	PolicyID string    `json:"policyId" doc:"GUID"`
	Source   string    `json:"source,omitempty" doc:"name of the policy whose containers are moved too"`
	Revision string    `json:"revision" doc:"GUID of the revision that the containers are moved to"`
	Depth    Depth     `json:"depth"`
	State    RollState `json:"state"`
	Stage    RollStage `json:"stage,omitempty" doc:"what the roll works on; absent once it has ended"`
	// Total is the number of containers to move when the roll began, Done the number
	// of those that are finished, Remaining the number of the others.
	Total     int64 `json:"total"`
	Done      int64 `json:"done"`
	Remaining int64 `json:"remaining"`
	// Blobs and bytes are counted when the roll begins, and in the transactions
	// that move them.
	BlobsTotal int64 `json:"blobsTotal,omitempty" doc:"depths container and content: blobs whose keys are re-wrapped or replaced"`
	BlobsDone  int64 `json:"blobsDone,omitempty"`
	BytesTotal int64 `json:"bytesTotal,omitempty" doc:"depth content: bytes of content to re-encrypt"`
	BytesDone  int64 `json:"bytesDone,omitempty"`
	// PercentComplete counts containers at depth policy, blobs at depth container,
	// bytes at depth content.
	PercentComplete float64 `json:"percentComplete"`
	// PerSecond is the rate over the last seconds in the unit that the stage counts,
	// and ETASeconds the time that the rest takes at that rate; both are absent while
	// the roll makes no progress.
	PerSecond  float64    `json:"perSecond,omitempty" doc:"stage policy: containers, stage container: blobs, stage content: bytes"`
	ETASeconds float64    `json:"etaSeconds,omitempty"`
	Started    time.Time  `json:"started"`
	Finished   *time.Time `json:"finished,omitempty"`
	Deadline   time.Time  `json:"deadline"`
	Late       bool       `json:"late,omitempty" doc:"whether it runs past its deadline, or will at this rate"`
	// ContainersPerSecond and BytesPerSecond are its rate limits, 0 for none.
	ContainersPerSecond int64    `json:"containersPerSecond,omitempty"`
	BytesPerSecond      int64    `json:"bytesPerSecond,omitempty"`
	Nodes               []string `json:"nodes,omitempty" doc:"names of the nodes that work on it"`
	Retries             int64    `json:"retries,omitempty" doc:"how often it waited for a vault or found that a page had been changed meanwhile"`
	// Skipped lists what could not be moved, and why.
	Skipped      []string `json:"skipped,omitempty" doc:"up to 20 of them"`
	SkippedCount int64    `json:"skippedCount,omitempty"`
	// Message says what a roll waits for or why it ended.
	Message string `json:"message,omitempty"`
}

// RollOptions are the options of a roll.
type RollOptions struct {
	IncludeInactive     bool   `json:"includeInactive,omitempty" doc:"also move the keys that a roll leaves out otherwise: those of inactive, disconnected and disabled mailboxes, and of backups"`
	ContainersPerSecond int64  `json:"containersPerSecond,omitempty" minimum:"0" doc:"maximum number of containers per second; default: no limit"`
	BytesPerSecond      int64  `json:"bytesPerSecond,omitempty" minimum:"0" doc:"depth content: maximum bytes of content per second; default: no limit"`
	Deadline            string `json:"deadline,omitempty" doc:"how long the roll may take before it is reported as late, for example 72h or 90m; default: 72h"`
	DryRunOption
}

// Estimate is what a roll would do.
type Estimate struct {
	PolicyKeys int64   `json:"policyKeys" doc:"policy keys to wrap by their root keys"`
	Containers int64   `json:"containers" doc:"container keys to re-wrap, including those of backups"`
	Stays      int64   `json:"stays,omitempty" doc:"container keys that would stay under older policy keys: of mailboxes that are not active, and of backups"`
	Blobs      int64   `json:"blobs,omitempty" doc:"blob keys to re-wrap or replace"`
	Bytes      int64   `json:"bytes,omitempty" doc:"bytes of content to re-encrypt"`
	Seconds    float64 `json:"seconds" doc:"estimated time, at the rate that basis names or at the given rate limits"`
	Basis      string  `json:"basis" doc:"where the rate comes from: a roll of this tenant, or the rates that keyroll's documentation states"`
}

// Refreshed is the outcome of a refresh or an update.
type Refreshed struct {
	Policy Policy `json:"policy"`
	// Rewrapped counts the policy keys that got new wraps (depth root).
	Rewrapped int `json:"rewrapped"`
	// Warnings are findings of the key checks that do not refuse the keys.
	Warnings []string `json:"warnings,omitempty"`
	// Limit says what a roll of this depth does not protect against; it is shown with the result.
	Limit string `json:"limit,omitempty"`
	// Estimate is the outcome of a dry run.
	Estimate *Estimate `json:"estimate,omitempty"`
}

// RollInput names a roll.
type RollInput struct {
	Roll string `path:"roll" doc:"id of the roll"`
}

// Operations on rolls.
var (
	ListRolls = define[ListInput, List[Roll]](Meta{Name: "ListRolls", Method: http.MethodGet, Path: "/v1/rolls",
		Summary: "List rolls, the newest first"})
	ShowRoll = define[RollInput, Roll](Meta{Name: "ShowRoll", Method: http.MethodGet, Path: "/v1/rolls/{roll}",
		Summary: "Show a roll and its progress"})
	PauseRoll = define[RollInput, Roll](Meta{Name: "PauseRoll", Method: http.MethodPost, Path: "/v1/rolls/{roll}/pause",
		Summary: "Pause a roll"})
	ResumeRoll = define[RollInput, Roll](Meta{Name: "ResumeRoll", Method: http.MethodPost, Path: "/v1/rolls/{roll}/resume",
		Summary: "Resume a paused or failed roll"})
	CancelRoll = define[RollInput, Roll](Meta{Name: "CancelRoll", Method: http.MethodPost, Path: "/v1/rolls/{roll}/cancel",
		Summary: "Cancel a roll that has moved nothing yet"})
)
