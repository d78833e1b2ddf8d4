package main

import (
	"context"
	"fmt"
	"io"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/terminal"
	"keyroll/internal/tokenfile"
)

type approvalCommand struct {
	List     approvalList     `cmd:"" help:"List the acts that wait for a second person."`
	Show     approvalShow     `cmd:"" help:"Show an act."`
	Approve  approvalApprove  `cmd:"" help:"Approve an act, which is then done."`
	Reject   approvalReject   `cmd:"" help:"Reject an act."`
	Withdraw approvalWithdraw `cmd:"" help:"Withdraw an act: the requester, or any approver."`
	Approver approverCommand  `cmd:"" help:"Who may approve: add, enrol, list, remove."`
}

type approvalList struct {
	connection
	All bool `help:"Also those that wait for no decision any more."`
}

func (c *approvalList) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		return listPages(e, "id state act requester requested decisions", func(a api.Approval) []any {
			return []any{a.ID, a.State, a.Act, a.Requester, terminal.Time(a.Requested), fmt.Sprintf("%d of %d", len(a.Decisions), a.Needed)}
		}, func(page api.PageInput) (api.List[api.Approval], error) {
			return k.ListApprovals(e, api.ListApprovalsInput{PageInput: page, All: c.All})
		})
	})
}

// oneApproval names an act.
type oneApproval struct {
	connection
	ID string `arg:"" help:"Id of the act, as the list shows it."`
}

// run calls an operation on the act, and prints the act afterwards.
func (c *oneApproval) run(e *env, call func(*client.Client, context.Context, api.ApprovalInput) (api.Approval, error)) error {
	return c.withClient(func(k *client.Client) error {
		a, err := call(k, e, api.ApprovalInput{Approval: c.ID})
		if err != nil {
			return err
		}
		return e.Object(a, func(w io.Writer) {
			pairs := []any{"id", a.ID, "act", a.Act, "state", a.State, "requester", a.Requester, "requested", terminal.Time(a.Requested), "expires", terminal.Time(a.Expires), "approvals needed", a.Needed}
			for _, d := range a.Decisions {
				said := "rejected"
				if d.Approves {
					said = "approved"
				}
				pairs = append(pairs, said, fmt.Sprintf("%s by %s", terminal.Time(d.At), d.Approver))
			}
			if a.Outcome != "" {
				pairs = append(pairs, "outcome", a.Outcome)
			}
			terminal.Fields(w, pairs...)
		})
	})
}

type (
	approvalShow     struct{ oneApproval }
	approvalApprove  struct{ oneApproval }
	approvalReject   struct{ oneApproval }
	approvalWithdraw struct{ oneApproval }
)

func (c *approvalShow) Run(e *env) error     { return c.run(e, (*client.Client).ShowApproval) }
func (c *approvalApprove) Run(e *env) error  { return c.run(e, (*client.Client).ApproveAct) }
func (c *approvalReject) Run(e *env) error   { return c.run(e, (*client.Client).RejectAct) }
func (c *approvalWithdraw) Run(e *env) error { return c.run(e, (*client.Client).WithdrawAct) }

func (*approvalList) Help() string {
	return terminal.Help("These acts need a second person in a tenant that has approvers: a purge, and, while both keys of a policy are refused, assigning another policy to what it protects, leaving it, and its recovery.",
		"keyroll approval list")
}

func (*approvalShow) Help() string { return terminal.Help("", "keyroll approval show 1892734") }

func (*approvalApprove) Help() string {
	return terminal.Help("", "keyroll approval approve 1892734 --token-file dana.token")
}

func (*approvalReject) Help() string {
	return terminal.Help("", "keyroll approval reject 1892734 --token-file dana.token")
}

func (*approvalWithdraw) Help() string { return terminal.Help("", "keyroll approval withdraw 1892734") }

type approverCommand struct {
	Add    approverAdd    `cmd:"" help:"Register an approver, and write the one-time code with which that person enrols to a file."`
	Enrol  approverEnrol  `cmd:"" help:"Exchange a one-time code for a token that only you have seen."`
	List   approverList   `cmd:"" help:"List the approvers."`
	Remove approverRemove `cmd:"" help:"Remove an approver: another approver does, for the last one the operator."`
}

// approverTenant names the tenant of an approver, for an operator.
type approverTenant struct {
	For string `name:"for" placeholder:"TENANT" help:"Name or GUID of the tenant of the approver, for an operator (default: the tenant of the token)."`
}

func (t approverTenant) input() api.ApproverTenant { return api.ApproverTenant{Tenant: t.For} }

type approverAdd struct {
	connection
	approverTenant
	Name        string `arg:"" help:"Name of the person."`
	NewCodeFile string `name:"new-code-file" aliases:"new-token-file" type:"path" required:"" placeholder:"FILE" help:"File that the one-time code is written to, readable only by you. Hand it over and keep no copy: what you request yourself is not approved with this code."`
}

func (c *approverAdd) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		in := api.AddApproverInput{ApproverTenant: c.input()}
		in.Body.Name = c.Name
		var made api.InvitedApprover
		err := tokenfile.Store(c.NewCodeFile, func() (_ string, err error) {
			made, err = k.AddApprover(e, in)
			return made.Code, err
		})
		if err != nil {
			return err
		}
		return e.Object(made.ApproverInfo, func(w io.Writer) {
			terminal.Fields(w, "name", made.Name, "state", made.State, "code expires", formatOptionalTime(made.Expires), "code file", c.NewCodeFile)
		})
	})
}

type approverEnrol struct {
	connection
	NewTokenFile string `name:"new-token-file" type:"path" required:"" placeholder:"FILE" help:"File that your token is written to, readable only by you."`
}

func (c *approverEnrol) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		var made api.CreatedToken
		err := tokenfile.Store(c.NewTokenFile, func() (_ string, err error) {
			made, err = k.EnrolApprover(e, api.None{})
			return made.Secret, err
		})
		if err != nil {
			return err
		}
		return e.printToken(shownToken{Token: made.Token, File: c.NewTokenFile})
	})
}

type approverList struct {
	connection
	approverTenant
}

func (c *approverList) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		l, err := k.ListApprovers(e, c.input())
		if err != nil {
			return err
		}
		return list(e, l.Items, "name state since issuer last-used", func(p api.ApproverInfo) []any {
			return []any{p.Name, p.State, terminal.Time(p.Since), p.Issuer, formatOptionalTime(p.LastUsed)}
		})
	})
}

type approverRemove struct {
	connection
	approverTenant
	Name string `arg:"" help:"Name of the approver, or GUID."`
}

func (c *approverRemove) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		_, err := k.RemoveApprover(e, api.RemoveApproverInput{ApproverTenant: c.input(), Approver: c.Name})
		return err
	})
}

func (*approverAdd) Help() string {
	return terminal.Help("The person enrols with the code within a week and then has a token that no other person has seen. An approval counts only if the approver had enrolled before the act was requested, "+
		"and if the requester did not issue the code: neither with the same token nor with one that the same person made. Let the operator, or another admin, register approvers.",
		"keyroll approval approver add dana --for contoso --new-code-file dana.code")
}

func (*approverEnrol) Help() string {
	return terminal.Help("Run it with the code in place of a token.", "keyroll approval approver enrol --token-file dana.code --new-token-file dana.token")
}

func (*approverList) Help() string { return terminal.Help("", "keyroll approval approver list") }

func (*approverRemove) Help() string {
	return terminal.Help("", "keyroll approval approver remove dana --token-file erin.token")
}
