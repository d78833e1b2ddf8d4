package main

import (
	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/terminal"
)

type policyLeave struct {
	connection
	Name string `arg:"" help:"Policy: name, GUID, or GUID of any revision."`
}

func (c *policyLeave) Run(e *env) error {
	return c.withClient(func(k *client.Client) error {
		r, err := k.LeavePolicy(e, api.LeavePolicyInput{PolicyInput: api.PolicyInput{Policy: c.Name}})
		if err != nil {
			return err
		}
		return e.printRefreshed(r)
	})
}

func (*policyLeave) Help() string {
	return terminal.Help("Mailboxes and workload stores move to the multi-workload policy that is assigned or else to service-managed keys, sites move to service-managed keys; "+
		"inactive mailboxes and backups move too. The roll that moves them still needs the policy's keys: keep them until keyroll key usage "+
		"reports that they are safe to retire. A policy that was left cannot be enabled again.",
		"keyroll policy leave USA_mailboxes")
}
