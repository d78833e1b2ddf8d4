package main

import (
	"fmt"
	"io"
	"time"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/fail"
	"keyroll/internal/terminal"
)

type blobsCommand struct {
	Collect blobsCollect `cmd:"" help:"Delete blobs that the database does not reference: those of deleted and replaced content, and orphans."`
}

type blobsCollect struct {
	connection
	Grace  time.Duration `name:"grace" default:"24h" placeholder:"TIME" help:"Minimum age of an orphan (default: ${default}). An upload that takes longer than this is refused at its end."`
	DryRun bool          `name:"dry-run" help:"Report only; delete nothing."`
}

func (c *blobsCollect) Run(e *env) error {
	if c.Grace < time.Second {
		return fail.New(api.InvalidArgument, "grace period %v is shorter than a second", c.Grace)
	}
	return c.withClient(func(k *client.Client) error {
		var in api.CollectBlobsInput
		in.Body.GraceSeconds, in.Body.DryRun = int64(c.Grace/time.Second), c.DryRun
		bar := e.Progress("collect", -1)
		found, err := k.CollectBlobs(e, in, func(p api.CollectedBlobs) {
			bar.SetNote(fmt.Sprintf("%d orphans", p.Orphans))
			bar.Set(p.Blobs)
		})
		bar.End()
		if err != nil {
			return err
		}
		return e.Object(found, func(w io.Writer) {
			terminal.Fields(w, "blobs", fmt.Sprintf("%d, %s", found.Blobs, terminal.Size(found.Bytes)), "orphans", fmt.Sprintf("%d, %s", found.Orphans, terminal.Size(found.OrphanBytes)),
				"removed", found.Removed, "moved", found.Moved)
		})
	})
}

func (*blobsCollect) Help() string {
	return terminal.Help("keyroll does this automatically once a day; the command does it at once. "+
		"It deletes objects, each of which holds one or more blobs. Orphans are objects that remain when a process dies while it stores or deletes content. They only take up space: their keys are not stored anywhere. "+
		"The command goes through the whole store, for all tenants of this database, while everything else runs, and never deletes a blob that is in use: "+
		"before anything is deleted, the tables are compared with their indexes and read completely. If they contradict each other, nothing is deleted and the exit status is 1. "+
		"Afterwards blobs are moved from objects of which more than half was deleted, and from small ones, to other objects. The next collection deletes the old ones. "+
		"Only an operator may run this command.",
		"keyroll blobs collect --dry-run",
		"keyroll blobs collect --grace 72h")
}
