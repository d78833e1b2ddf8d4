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
	return []Family{
		{"Key vaults", vaultCmdlets()},
		{"Keys", keyCmdlets()},
		{"Mailbox policies", policyCmdlets()},
		{"Mailboxes", mailboxCmdlets()},
		{"Sites", siteCmdlets()},
		{"The pipeline", pipeCmdlets()},
		{"The shell", append(dateCmdlets(), helpCmdlets()...)},
	}
}

// generations are the names that a cmdlet of today's Az module had before.
func generations(az string) []string {
	verb, noun, _ := strings.Cut(az, "-Az")
	return []string{verb + "-Azure" + noun, verb + "-AzureRm" + noun}
}

// confirmParam lets every cmdlet that changes something take -Confirm.
var confirmParam = Param{Name: "Confirm", Type: Switch,
	Help: "Ask before acting; -Confirm:$false asks nothing."}
