package cmdlet

import "strings"

// Table returns all cmdlets, in the order of the documentation page.
func Table() []*Cmdlet {
	var all []*Cmdlet
	for _, family := range Families() {
		all = append(all, family.Cmdlets...)
	}
	return all
}

// Family is a group of cmdlets that belong together.
type Family struct {
	Title   string
	Cmdlets []*Cmdlet
}

// Families returns the cmdlets by what they are about.
func Families() []Family {
	all := []Family{
		{"Key vaults", vaultCmdlets()},
		{"Keys", keyCmdlets()},
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

// generations are the names that a cmdlet of today's Az module had before.
func generations(az string) []string {
	verb, noun, _ := strings.Cut(az, "-Az")
	return []string{verb + "-Azure" + noun, verb + "-AzureRm" + noun}
}

// What every cmdlet takes that changes something.
var (
	whatIf       = Param{Name: "WhatIf", Type: Switch, Help: "Says what would be done, and changes nothing. The service refuses what it would refuse of the change; a vault is not asked."}
	confirmation = Param{Name: "Confirm", Type: Switch, Help: "Ask before acting; -Confirm:$false asks nothing."}
)

// domainController is of Exchange's own and names nothing here.
var domainController = Param{Name: "DomainController", Type: String, Help: "Taken, and not looked at."}

// reading are the parameters that Exchange's Get cmdlets document although
// they change nothing.
func reading(params ...Param) []Param { return append(params, domainController, whatIf, confirmation) }
