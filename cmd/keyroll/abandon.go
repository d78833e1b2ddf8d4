package main

import (
	"fmt"
	"io"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/container"
)

type abandonCommand struct {
	connection
	Mailbox  string `name:"mailbox" xor:"container" required:"" placeholder:"NAME" help:"The mailbox."`
	Site     string `name:"site" xor:"container" required:"" placeholder:"URL" help:"The site."`
	Workload string `name:"workload" xor:"container" required:"" placeholder:"NAME" help:"The workload store."`
}

func (*abandonCommand) Help() string {
	return help("For a key page that does not open and of which there is no copy: what stood in it is lost, and what was encrypted with it goes. "+
		"Then the name is free for a backup to be restored to, and no key version is needed for it any more. "+
		"A page that opens is refused. docs/damage.md says what else may bring it back; backups stay.",
		"keyroll abandon --mailbox alice@contoso.com",
		"keyroll abandon --site https://contoso.sharepoint.com/sites/legal")
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
	return c.with(func(k *client.Client) error {
		gone, err := k.AbandonContainer(e, in)
		if err != nil {
			return err
		}
		return e.object(gone, func(w io.Writer) {
			fmt.Fprintf(w, "%s %s is abandoned, with %d items, %s, that nothing opens any more\n", gone.Kind, clean(gone.Container), gone.Items, size(gone.Bytes))
		})
	})
}
