package cmdlet

import (
	"context"

	"keyroll/api"
	"keyroll/internal/fail"
)

func workloadCmdlets() []*Cmdlet {
	const noun = "M365DataAtRestEncryptionPolicy"
	all := policyFamily(api.MultiWorkloadPolicy, noun, "multi-workload", "Contoso_Global")
	all[2].Params = append(all[2].Params, Param{Name: "Force", Type: Switch, Help: "Accepted and ignored."})
	anyPolicy := optional(policyIdentity)
	anyPolicy.Null = true
	return append(all,
		&Cmdlet{
			Name: "Set-" + noun + "Assignment", Run: assignTenant, Changes: true,
			Synopsis: "Assigns a multi-workload policy to the tenant, replacing the one before. $null ends the assigned policy: all that it protects returns to service-managed keys.",
			Example:  "Set-" + noun + `Assignment -DataEncryptionPolicy "Contoso_Global"`,
			Params: []Param{{Name: "DataEncryptionPolicy", Type: String, Position: 1, Mandatory: true, Null: true, Piped: false,
				Help: "Name, DistinguishedName or GUID of a multi-workload policy, or $null."}, domainController},
		},
		&Cmdlet{
			Name: "Get-" + noun + "Assignment", Run: getAssignment, Emits: policyObject(api.Policy{}).names(),
			Synopsis: "Shows the policy that is assigned to the tenant, if there is one.",
			Example:  "Get-" + noun + "Assignment",
			Params:   withGetParameters(),
		},
		&Cmdlet{
			Name: "Test-" + noun, Run: testPolicy, Emits: probeObject(api.Policy{}, api.Probe{}).names(),
			Synopsis: "Tests the root keys of a policy, both customer keys and the availability key, by wrapping and unwrapping with each. Without a name it tests every multi-workload policy.",
			Example:  "Test-" + noun + " Contoso_Global",
			Params:   withGetParameters(anyPolicy),
		})
}

func assignTenant(ctx context.Context, c *Call) error {
	name := policyName(c.text("DataEncryptionPolicy"))
	if name == "" {
		p, assigned, err := c.assignment(ctx)
		if err != nil || !assigned {
			return err
		}
		return c.change(ctx, func() (*Object, error) {
			done, err := c.Service.LeavePolicy(ctx, api.LeavePolicyInput{PolicyInput: api.PolicyInput{Policy: p.ID}, DryRun: c.flag("WhatIf")})
			c.printWarnings(done.Warnings, done.Limit)
			c.printPending(done.Policy.Pending)
			return nil, err
		}, "End policy %s, and return all that it protects to service-managed keys", p.Name)
	}
	var in api.AssignPolicyInput
	in.Body.Policy, in.Body.DryRunOption = name, c.dryRun()
	return c.change(ctx, func() (*Object, error) {
		p, err := c.Service.AssignPolicy(ctx, in)
		c.printWarnings(p.Warnings, "")
		c.printPending(p.Pending)
		return nil, err
	}, "Assign policy %s to the tenant", name)
}

// assignment returns the policy that is assigned to the tenant, if one is.
func (c *Call) assignment(ctx context.Context) (api.Policy, bool, error) {
	p, err := c.Service.ShowAssignment(ctx, api.None{})
	if fail.Is(public(err), api.NotFound) {
		return p, false, nil
	}
	return p, err == nil && p.ID != "", err
}

func getAssignment(ctx context.Context, c *Call) error {
	p, assigned, err := c.assignment(ctx)
	if err != nil || !assigned {
		return err
	}
	return c.emit(policyObject(p))
}

var probeView = &View{Columns: []Column{{"Policy", "Policy"}, {"Root", "Root"}, {"Wraps", "Wraps"}, {"Unwraps", "Unwraps"}, {"Milliseconds", "Milliseconds"}, {"Detail", "Detail"}}}

func probeObject(p api.Policy, probe api.Probe) *Object {
	var detail any
	if probe.Detail != "" {
		detail = probe.Detail
	}
	return &Object{View: probeView, Properties: []Property{
		{"Policy", p.Name}, {"Root", probe.Root}, {"Key", probe.Key}, {"Wraps", probe.Wraps}, {"Unwraps", probe.Unwraps},
		{"Milliseconds", probe.Milliseconds}, {"Detail", detail},
	}}
}

func testPolicy(ctx context.Context, c *Call) error {
	var all []api.Policy
	var err error
	if identity := policyName(c.text("Identity")); identity != "" {
		var p api.Policy
		p, err = c.Service.ShowPolicy(ctx, api.PolicyInput{Policy: identity})
		all = []api.Policy{p}
	} else {
		all, err = c.policies(ctx, api.MultiWorkloadPolicy)
	}
	if err != nil {
		return err
	}
	for _, p := range all {
		probes, err := c.Service.TestPolicy(ctx, api.PolicyInput{Policy: p.ID})
		if err != nil {
			return err
		}
		for _, probe := range probes.Items {
			if err := c.emit(probeObject(p, probe)); err != nil {
				return err
			}
		}
	}
	return nil
}
