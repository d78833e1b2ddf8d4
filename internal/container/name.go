package container

import (
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
)

// Kind is what a container is. The values stand in stored data and never change.
type Kind string

const (
	Mailbox  Kind = "mailbox"
	Site     Kind = "site"
	Workload Kind = "workload"
)

// rule is how containers of one kind are named and what class they begin in.
type rule struct {
	class  envelope.Class
	plural string
	// normal returns the form under which a name is found, or why it is no name.
	normal func(name string) (normal, refusal string)
}

// rules has a row for each kind that has names.
var rules = map[Kind]rule{
	Mailbox: {class: envelope.ClassActive, plural: "mailboxes", normal: normalMailbox},
	Site:    {class: envelope.ClassSite, plural: "sites", normal: normalSite},
	// The tenant's directory is of kind Workload too and has no name.
	Workload: {class: envelope.ClassWorkload, plural: "workload stores", normal: normalWorkload},
}

// Stores are the names of the workload stores.
var Stores = []string{"chat-messages", "sensitivity-labels"}

// states are the classes that a mailbox may change between, and whether its key
// then follows its policy at the next access rather than in the background.
var states = map[envelope.Class]struct{ follows bool }{
	envelope.ClassActive:       {},
	envelope.ClassInactive:     {follows: true},
	envelope.ClassDisconnected: {follows: true},
	envelope.ClassDisabled:     {follows: true},
}

const (
	maxMailboxName = 256  // bytes
	maxSiteURL     = 2048 // bytes
)

// normalise returns the form under which a name is found.
func normalise(kind Kind, name string) (string, error) {
	r, err := ruleOf(kind)
	if err != nil {
		return "", err
	}
	normal, refusal := r.normal(name)
	if refusal != "" {
		return "", fail.New(api.InvalidArgument, "%s %.300q %s", kind, name, refusal)
	}
	return normal, nil
}

func ruleOf(kind Kind) (rule, error) {
	r, ok := rules[kind]
	if !ok {
		return rule{}, fail.New(api.InvalidArgument, "a container of kind %q has no name", string(kind))
	}
	return r, nil
}

func normalMailbox(name string) (normal, refusal string) {
	if why := plain(name, maxMailboxName); why != "" {
		return "", "is not 1 to 256 bytes of text: it " + why
	}
	return strings.ToLower(name), ""
}

// normalSite takes two spellings of a URL for the same site when they differ
// in the case of scheme and host, in the default port, or in slashes at the
// end (RFC 3986 section 6.2). The path's case counts.
func normalSite(name string) (normal, refusal string) {
	if why := plain(name, maxSiteURL); why != "" {
		return "", "is not the URL of a site: it " + why
	}
	u, err := url.Parse(name)
	switch {
	case err != nil:
		return "", "is not the URL of a site: it is no URL"
	case u.Scheme != "https":
		return "", "is not the URL of a site: it does not begin with https://"
	case u.Hostname() == "":
		return "", "is not the URL of a site: it names no host"
	case u.User != nil:
		return "", "is not the URL of a site: it names a user"
	case strings.ContainsAny(name, "?#"):
		return "", "is not the URL of a site: it goes on after the path"
	}
	host := strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(u.Host), ":443"), ":")
	return "https://" + host + strings.TrimRight(u.EscapedPath(), "/"), ""
}

func normalWorkload(name string) (normal, refusal string) {
	if !slices.Contains(Stores, name) {
		return "", "is none of " + strings.Join(Stores, ", ")
	}
	return name, ""
}

// plain says why s is not 1 to limit bytes of text.
func plain(s string, limit int) (refusal string) {
	switch {
	case s == "":
		return "is empty"
	case len(s) > limit:
		return "is longer"
	case !utf8.ValidString(s):
		return "is not UTF-8"
	case strings.ContainsFunc(s, unicode.IsControl):
		return "has a control character"
	case strings.TrimSpace(s) != s:
		return "has a space at an end"
	}
	return ""
}
