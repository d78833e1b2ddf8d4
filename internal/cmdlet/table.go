package cmdlet

import "strings"

// Table returns all cmdlets, in the order of the documentation page.
func Table() []*Cmdlet {
	var all []*Cmdlet
	for _, family := range families() {
		all = append(all, family.Cmdlets...)
	}
	return all
}

// family is a group of cmdlets that belong together.
type family struct {
	Title   string
	Cmdlets []*Cmdlet
}

// families returns the cmdlets grouped by subject.
func families() []family {
	all := []family{
		{"Key vaults", vaultCmdlets()},
		{"Keys", keyCmdlets()},
		{"Applications", applicationCmdlets()},
		{"Subscriptions", subscriptionCmdlets()},
		{"Mailbox policies", policyCmdlets()},
		{"Multi-workload policies", workloadCmdlets()},
		{"Mailboxes, groups and mail users", append(mailboxCmdlets(), recipientCmdlets()...)},
		{"Sites", siteCmdlets()},
		{"Onboarding", onboardingCmdlets()},
		{"The pipeline", pipeCmdlets()},
		{"The shell", append(append(dateCmdlets(), helpCmdlets()...), connectionCmdlets()...)},
	}
	for _, family := range all {
		for _, c := range family.Cmdlets {
			if c.Changes {
				c.Params = append(c.Params, whatIf, confirmation)
			}
		}
	}
	return all
}

// olderNames returns the older names of a cmdlet of the Az module.
func olderNames(az string) []string {
	verb, noun, _ := strings.Cut(az, "-Az")
	return []string{verb + "-Azure" + noun, verb + "-AzureRm" + noun}
}

// Parameters of every cmdlet that changes something.
var (
	whatIf       = Param{Name: "WhatIf", Type: Switch, Help: "Show what would be done, and change nothing. The service checks whether it would refuse the change; vaults are not called."}
	confirmation = Param{Name: "Confirm", Type: Switch, Help: "Ask for a confirmation first; -Confirm:$false never asks."}
)

// domainController is a parameter of Exchange that has no meaning here.
var domainController = Param{Name: "DomainController", Type: String, Help: "Accepted and ignored."}

// withGetParameters adds the parameters that Exchange documents for its Get cmdlets although
// they change nothing.
func withGetParameters(params ...Param) []Param {
	return append(params, domainController, whatIf, confirmation)
}
