package main

import (
	"errors"
	"fmt"
	"io"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/container"
	"keyroll/internal/terminal"
)

type abandonCommand struct {
	connection
	Mailbox  string `name:"mailbox" xor:"container" placeholder:"NAME" help:"Mailbox to delete. One of --mailbox, --site and --workload is required."`
	Site     string `name:"site" xor:"container" placeholder:"URL" help:"Site to delete."`
	Workload string `name:"workload" xor:"container" placeholder:"NAME" help:"Workload store to delete: chat-messages or sensitivity-labels."`
}

func (*abandonCommand) Help() string {
	return terminal.Help("Deletes a container whose key page cannot be decrypted and of which there is no copy: its keys are lost, and everything that is encrypted with them is deleted. "+
		"Name it with one of --mailbox, --site and --workload. Afterwards a backup can be restored under the name, and the container needs no key version any more. "+
		"A container whose key page can be decrypted is refused. docs/damage.md describes what to try first; backups are kept.",
		"keyroll abandon --mailbox alice@contoso.com",
		"keyroll abandon --site https://contoso.sharepoint.com/sites/legal")
}

// Validate checks that a container is named. The tag required would list all three flags
// as required in the usage line.
func (c *abandonCommand) Validate() error {
	if c.Mailbox == "" && c.Site == "" && c.Workload == "" {
		return errors.New("one of --mailbox, --site and --workload is required")
	}
	return nil
}

func (c *abandonCommand) Run(e *env) error {
	var in api.AbandonInput
	switch {
	case c.Mailbox != "":
		in.Body.Kind, in.Body.Container = string(container.Mailbox), c.Mailbox
	case c.Site != "":
		in.Body.Kind, in.Body.Container = string(container.Site), c.Site
	default:
		in.Body.Kind, in.Body.Container = string(container.Workload), c.Workload
	}
	return c.withClient(func(k *client.Client) error {
		deleted, err := k.AbandonContainer(e, in)
		if err != nil {
			return err
		}
		return e.Object(deleted, func(w io.Writer) {
			fmt.Fprintf(w, "%s %s is abandoned: %s, %s, which no key can decrypt, were deleted\n", deleted.Kind, terminal.Escape(deleted.Container), terminal.Count(deleted.Items, "item"), terminal.Size(deleted.Bytes))
		})
	})
}
