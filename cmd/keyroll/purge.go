package main

import (
	"fmt"
	"io"
	"time"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/terminal"
)

type purgeCommand struct {
	Request  purgeRequest         `cmd:"" help:"Request the purge of a policy and of all that it protects."`
	Approver purgeApproverCommand `cmd:"" help:"The same as keyroll approval approver: add, list."`
	Approve  purgeApprove         `cmd:"" help:"Approve a purge with an approver's token; the second approval carries it out."`
	Status   purgeStatus          `cmd:"" help:"Show the progress of one purge, or of all."`
}

type purgeRequest struct {
	connection
	Policy  string `arg:"" help:"Policy: name, GUID, or GUID of any revision."`
	Reason  string `required:"" placeholder:"TEXT" help:"Reason for the purge."`
	Contact string `required:"" placeholder:"TEXT" help:"Person to contact about it."`
	Force   bool   `help:"Accept that a vault of the policy, or a key in it, has been deleted already."`
	Yes     bool   `short:"y" help:"Do not ask for confirmation."`
}

func (c *purgeRequest) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		if !c.Yes {
			question := fmt.Sprintf("Once two approvers have approved it, the purge of policy %q destroys all that it protects, irreversibly. Request it?", c.Policy)
			if err := e.Confirm(question); err != nil {
				return err
			}
		}
		in := api.RequestPurgeInput{PolicyInput: api.PolicyInput{Policy: c.Policy}}
		in.Body.Reason, in.Body.Contact, in.Body.Force = c.Reason, c.Contact, c.Force
		p, err := k.RequestPurge(e, in)
		if err != nil {
			return err
		}
		e.printWarnings(p.Warnings)
		return e.printPurge(p)
	})
}

// purgeApproverCommand has the names that two commands had before other acts than purges were
// approved.
type purgeApproverCommand struct {
	Add  purgeApproverAdd  `cmd:"" help:"The same as keyroll approval approver add."`
	List purgeApproverList `cmd:"" help:"The same as keyroll approval approver list."`
}

type (
	purgeApproverAdd  struct{ approverAdd }
	purgeApproverList struct{ approverList }
)

func (*purgeApproverAdd) Help() string {
	return terminal.Help("", "keyroll purge approver add dana --for contoso --new-code-file dana.code")
}

func (*purgeApproverList) Help() string { return terminal.Help("", "keyroll purge approver list") }

type purgeApprove struct {
	connection
	Policy string `arg:"" help:"Policy: name, GUID, or GUID of any revision."`
}

func (c *purgeApprove) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		p, err := k.ApprovePurge(e, api.PolicyInput{Policy: c.Policy})
		if err != nil {
			return err
		}
		return e.printPurge(p)
	})
}

type purgeStatus struct {
	connection
	Policy string `arg:"" optional:"" help:"Name, GUID, or GUID of any revision of the policy (default: all purges)."`
}

func (c *purgeStatus) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		if c.Policy == "" {
			return listPages(e, "policy state approvals containers requested done id", func(p api.Purge) []any {
				return []any{p.Policy, p.State, len(p.Approvals), p.Containers, terminal.Time(p.Requested), formatOptionalTime(p.AvailabilityKeyDestroyed), p.PolicyID}
			}, func(page api.PageInput) (api.List[api.Purge], error) {
				return k.ListPurges(e, api.ListInput{PageInput: page})
			})
		}
		p, err := k.ShowPurge(e, api.PolicyInput{Policy: c.Policy})
		if err != nil {
			return err
		}
		return e.printPurge(p)
	})
}

// printPurge prints one purge, with the key versions that only the customer can destroy.
func (e *env) printPurge(p api.Purge) error {
	return e.Object(p, func(w io.Writer) {
		pairs := []any{"policy", p.Policy, "id", p.PolicyID, "state", p.State, "reason", p.Reason, "contact", p.Contact, "containers", p.Containers,
			"requested", terminal.Time(p.Requested)}
		for _, a := range p.Approvals {
			pairs = append(pairs, "approved", fmt.Sprintf("%s by %s", terminal.Time(a.At), a.Approver))
		}
		pairs = append(pairs, "policy deleted", formatOptionalTime(p.PolicyDeleted), "containers marked", formatOptionalTime(p.ContainersMarked),
			"availability key destroyed", formatOptionalTime(p.AvailabilityKeyDestroyed))
		if p.Message != "" {
			pairs = append(pairs, "message", p.Message)
		}
		for _, kv := range p.Destroy {
			pairs = append(pairs, "still to be destroyed by you", kv.URI)
		}
		if p.Limit != "" {
			pairs = append(pairs, "limit", p.Limit)
		}
		terminal.Fields(w, pairs...)
	})
}

func formatOptionalTime(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return terminal.Time(*t)
}

type policyRecover struct {
	connection
	Name string `arg:"" help:"Policy: name, GUID, or GUID of any revision."`
}

func (c *policyRecover) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		p, err := k.RecoverPolicy(e, api.PolicyInput{Policy: c.Name})
		if err != nil {
			return err
		}
		return e.Object(p, func(w io.Writer) { showPolicy(w, p) })
	})
}

func (*purgeRequest) Help() string {
	return terminal.Help("First remove the service's permission in both vaults with Remove-AzKeyVaultAccessPolicy. From the request on the policy accepts no new containers, until the request is withdrawn or rejected (keyroll approval). "+
		"Two approvers who enrolled before the request, with codes that the requester did not issue, then approve it; the second approval deletes the policy, marks everything that it protects as purged, and destroys the availability key.",
		"keyroll purge request USA_mailboxes --reason leaving --contact security@contoso.com")
}

func (*purgeApprove) Help() string {
	return terminal.Help("", "keyroll purge approve USA_mailboxes --token-file dana.token")
}

func (*purgeStatus) Help() string {
	return terminal.Help("Use the policy's GUID if another policy has been given its name. Only you can destroy the key versions that are listed.",
		"keyroll purge status", "keyroll purge status USA_mailboxes -o json")
}

func (*policyRecover) Help() string {
	return terminal.Help("For a site policy whose two customer keys are both lost. Its availability key decrypts the sites until Restore-SPODataEncryptionPolicy has put the policy under two new keys.",
		"keyroll policy recover Sites")
}
