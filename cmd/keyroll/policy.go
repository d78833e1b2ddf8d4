package main

import (
	"fmt"
	"io"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/terminal"
)

type policyCommand struct {
	List    policyList    `cmd:"" help:"List policies."`
	Show    policyShow    `cmd:"" help:"Show a policy, its keys and its newest roll."`
	Refresh policyRefresh `cmd:"" help:"Adopt the newest versions of the keys of a mailbox or multi-workload policy, and roll."`
	Update  policyUpdate  `cmd:"" help:"Replace one key of a site policy, and roll."`
	Leave   policyLeave   `cmd:"" help:"Return everything under a policy to the policy that applies without it, and end the policy."`
	Recover policyRecover `cmd:"" help:"Make a site policy whose customer keys are lost usable through its availability key."`
}

type policyList struct{ connection }

func (c *policyList) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		return listPages(e, "name kind state complete revision id", func(p api.Policy) []any {
			return []any{p.Name, p.Kind, p.State, fmt.Sprintf("%.0f %%", p.PercentComplete), p.Revision, p.ID}
		}, func(page api.PageInput) (api.List[api.Policy], error) {
			return k.ListPolicies(e, api.ListInput{PageInput: page})
		})
	})
}

type policyShow struct {
	connection
	Name string `arg:"" help:"Policy: name, GUID, or GUID of any revision."`
}

func (c *policyShow) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		p, err := k.ShowPolicy(e, api.PolicyInput{Policy: c.Name})
		if err != nil {
			return err
		}
		return e.Object(p, func(w io.Writer) { showPolicy(w, p) })
	})
}

type policyRefresh struct {
	connection
	Name           string `arg:"" help:"Policy: name, GUID, or GUID of any revision."`
	Depth          string `name:"depth" enum:"root,policy,container,content" default:"policy" help:"What is replaced. root: re-wrap the policy key. policy: make a new policy key and move every active mailbox and workload store under it. container: also make new container keys and re-wrap the blob keys. content: also re-encrypt all content. (default: ${default})"`
	AllGenerations bool   `name:"all-generations" help:"With depth root, re-wrap the older policy keys too, so that inactive mailboxes need no old key version."`
	rollFlags
}

func (c *policyRefresh) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		in := api.RefreshPolicyInput{PolicyInput: api.PolicyInput{Policy: c.Name}}
		in.Body.Depth, in.Body.AllGenerations = api.Depth(c.Depth), c.AllGenerations
		in.Body.RollOptions = c.options()
		r, err := k.RefreshPolicy(e, in)
		if err != nil {
			return err
		}
		return e.printRefreshed(r)
	})
}

type policyUpdate struct {
	connection
	Name    string `arg:"" help:"Policy: name, GUID, or GUID of any revision."`
	KeyType string `name:"key-type" required:"" enum:"primary,secondary" help:"Which of the two keys: primary or secondary."`
	Key     string `name:"key" required:"" placeholder:"URI" help:"URI of the new key with its version: https://VAULT/keys/KEY/VERSION."`
	Depth   string `name:"depth" enum:"root,policy,container,content" default:"policy" help:"What is replaced. root: re-wrap the policy key. policy: make a new policy key and move every site under it. container: also make new container keys and re-wrap the blob keys. content: also re-encrypt all content. (default: ${default})"`
	rollFlags
}

func (c *policyUpdate) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		in := api.UpdatePolicyInput{PolicyInput: api.PolicyInput{Policy: c.Name}}
		in.Body.KeyType, in.Body.Key.URI, in.Body.Depth = c.KeyType, c.Key, api.Depth(c.Depth)
		in.Body.RollOptions = c.options()
		r, err := k.UpdatePolicy(e, in)
		if err != nil {
			return err
		}
		return e.printRefreshed(r)
	})
}

func (e *env) printWarnings(all []string) {
	for _, w := range all {
		fmt.Fprintf(e.ErrOut, "warning: %s\n", terminal.Escape(w))
	}
}

func (e *env) printRefreshed(r api.Refreshed) error {
	e.printWarnings(r.Warnings)
	return e.Object(r, func(w io.Writer) {
		if r.Estimate != nil {
			showEstimate(w, r.Policy.Name, *r.Estimate)
			return
		}
		showPolicy(w, r.Policy)
		if r.Rewrapped > 0 {
			fmt.Fprintf(w, "%s re-wrapped\n", terminal.Count(int64(r.Rewrapped), "policy key"))
		}
		if r.Limit != "" {
			fmt.Fprintf(w, "limit: %s\n", terminal.Escape(r.Limit))
		}
	})
}

func showPolicy(w io.Writer, p api.Policy) {
	pairs := []any{"name", p.Name, "id", p.ID, "kind", p.Kind, "description", p.Description, "enabled", p.Enabled, "assigned", p.Assigned, "state", p.State,
		"complete", fmt.Sprintf("%.1f %%", p.PercentComplete), "revision", p.Revision, "generation", p.Generation,
		"primary", p.Primary.URI, "primary health", p.PrimaryHealth.String(), "secondary", p.Secondary.URI, "secondary health", p.SecondaryHealth.String(),
		"availability key", fmt.Sprintf("%s version %d, used by this policy only", p.AvailabilityKey, p.AvailabilityVersion), "created", terminal.Time(p.Created), "refreshed", terminal.Time(p.Refreshed)}
	if p.Roll != nil {
		pairs = append(pairs, "roll", p.Roll.ID, "roll state", p.Roll.State)
	}
	if p.PendingApproval != "" {
		pairs = append(pairs, "waits", p.Notice())
	}
	terminal.Fields(w, pairs...)
}
