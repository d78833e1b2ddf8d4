package main

import (
	"fmt"
	"io"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/terminal"
)

type workloadCommand struct {
	Put  workloadPut  `cmd:"" help:"Store an item; an item of the same name is replaced."`
	Get  workloadGet  `cmd:"" help:"Write an item to standard output."`
	List workloadList `cmd:"" help:"List the workload stores, or the items of one."`
}

type workloadPut struct {
	connection
	Name string `arg:"" enum:"chat-messages,sensitivity-labels" help:"Workload store: chat-messages or sensitivity-labels."`
	Item string `arg:"" help:"Name of the item."`
	File string `arg:"" type:"path" help:"The file to store, or - for standard input."`
}

func (c *workloadPut) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		in, total, done, err := e.open(c.File)
		if err != nil {
			return err
		}
		defer done()
		bar := e.Progress("put", total)
		f, err := k.PutWorkloadItem(e, workloadItem(c.Name, c.Item), total, bar.Reader(in))
		bar.End()
		if err != nil {
			return err
		}
		return e.Object(f, func(w io.Writer) {
			fmt.Fprintf(w, "%s stored as %s\n", terminal.Size(f.Bytes), terminal.Escape(f.Path))
		})
	})
}

type workloadGet struct {
	connection
	Name string `arg:"" enum:"chat-messages,sensitivity-labels" help:"Workload store: chat-messages or sensitivity-labels."`
	Item string `arg:"" help:"Name of the item."`
}

func (c *workloadGet) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		return e.copy(k.GetWorkloadItem(e, workloadItem(c.Name, c.Item)))
	})
}

type workloadList struct {
	connection
	Name string `arg:"" optional:"" help:"Store whose items are listed: chat-messages or sensitivity-labels (default: list the stores)."`
}

func (c *workloadList) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		if c.Name != "" {
			return listPages(e, "bytes modified item", func(f api.File) []any { return []any{f.Bytes, terminal.Time(f.Modified), f.Path} },
				func(page api.PageInput) (api.List[api.File], error) {
					return k.ListWorkloadItems(e, api.ListStoreItems{WorkloadInput: api.WorkloadInput{Workload: c.Name}, PageInput: page})
				})
		}
		return listPages(e, "name items bytes policy dataEncryptionPolicyID", func(w api.Workload) []any {
			return []any{w.Name, w.Items, terminal.Size(w.Bytes), w.Protection.Policy, w.Protection.DataEncryptionPolicyID}
		}, func(page api.PageInput) (api.List[api.Workload], error) {
			return k.ListWorkloads(e, api.ListInput{PageInput: page})
		})
	})
}

func workloadItem(name, item string) api.WorkloadItemInput {
	return api.WorkloadItemInput{WorkloadInput: api.WorkloadInput{Workload: name}, Item: item}
}

func (*workloadPut) Help() string {
	return terminal.Help("An item of any size is stored whole or not at all. The multi-workload policy that is assigned to the tenant protects the stores, "+
		"otherwise the service-managed policy.",
		"keyroll workload put chat-messages 2026/thread-17.json thread.json",
		"keyroll workload put sensitivity-labels labels.xml -")
}

func (*workloadGet) Help() string {
	return terminal.Help("", "keyroll workload get chat-messages 2026/thread-17.json")
}

func (*workloadList) Help() string {
	return terminal.Help("A store is created with its first item.", "keyroll workload list", "keyroll workload list chat-messages -o json")
}
