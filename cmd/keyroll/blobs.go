package main

import (
	"fmt"
	"io"
	"time"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/fail"
)

type blobsCommand struct {
	Collect blobsCollect `cmd:"" help:"Delete from the blob store what nothing names: the blobs of deleted and replaced content, and orphans."`
}

type blobsCollect struct {
	connection
	Grace  time.Duration `name:"grace" default:"24h" placeholder:"TIME" help:"How old an orphan has to be, as 24h. An upload that takes longer than this is refused at its end."`
	DryRun bool          `name:"dry-run" help:"Count alone."`
}

func (c *blobsCollect) Run(e *env) error {
	if c.Grace < time.Second {
		return fail.New(api.InvalidArgument, "a grace of %v is below a second", c.Grace)
	}
	return c.with(func(k *client.Client) error {
		var in api.CollectBlobsInput
		in.Body.GraceSeconds, in.Body.DryRun = int64(c.Grace/time.Second), c.DryRun
		bar := e.progress("collect", -1)
		found, err := k.CollectBlobs(e, in, func(p api.CollectedBlobs) {
			bar.note(fmt.Sprintf("%d orphans", p.Orphans))
			bar.Set(p.Blobs)
		})
		bar.End()
		if err != nil {
			return err
		}
		return e.object(found, func(w io.Writer) {
			fields(w, "blobs", fmt.Sprintf("%d, %s", found.Blobs, size(found.Bytes)), "orphans", fmt.Sprintf("%d, %s", found.Orphans, size(found.OrphanBytes)),
				"removed", found.Removed)
		})
	})
}

func (*blobsCollect) Help() string {
	return help("Keyroll collects by itself once a day; this does it at once. "+
		"Orphans are left by a process that died while it stored or deleted content. They cost space and nothing else: their keys are nowhere. "+
		"A collection goes through the whole store, all tenants of this database, beside everything else that runs, and never takes what is in use: "+
		"before anything is deleted the tables are compared with their indexes and read from end to end. Where they contradict each other nothing is deleted, and the exit status is 1. "+
		"Only a token of an operator collects.",
		"keyroll blobs collect --dry-run",
		"keyroll blobs collect --grace 72h")
}
