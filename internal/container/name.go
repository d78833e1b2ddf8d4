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
	"keyroll/internal/name"
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
	// normal returns a name in its exact form, or why it is no name.
	normal func(name string) (normal, refusal string)
	// fold makes one of all exact forms that count as one; nil: each counts alone.
	fold func(normal string) string
}

// rules has a row for each kind that has names.
var rules = map[Kind]rule{
	Mailbox: {class: envelope.ClassActive, plural: "mailboxes", normal: normalMailbox},
	Site:    {class: envelope.ClassSite, plural: "sites", normal: normalSite, fold: foldSite},
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

// spelling is a name in the forms by which it is found. A container is found by
// the folded one; one that was named before names were folded, and whose folded
// form would be that of another, by its exact one.
type spelling struct{ exact, folded string }

// normalise returns the forms of a name by which it may be found.
func normalise(kind Kind, given string) (spelling, error) {
	r, err := ruleOf(kind)
	if err != nil {
		return spelling{}, err
	}
	exact, refusal := r.normal(given)
	if refusal != "" {
		return spelling{}, fail.New(api.InvalidArgument, "%s %.300q %s", kind, given, refusal)
	}
	if r.fold == nil {
		return spelling{exact, exact}, nil
	}
	return spelling{exact, r.fold(exact)}, nil
}

// checkNew refuses a name that nothing new may have, though what has it already
// is found.
func checkNew(kind Kind, given string) error {
	if kind == Site {
		if decoded, err := url.PathUnescape(given); err == nil {
			given = decoded
		}
	}
	if refusal := name.Refusal(given); refusal != "" {
		return fail.New(api.InvalidArgument, "%s %.300q %s", kind, given, refusal)
	}
	return nil
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
		return "", "must be 1 to 256 bytes of text: it " + why
	}
	return strings.ToLower(name), ""
}

// normalSite takes two spellings of a URL for the same one when they differ in
// the case of scheme and host, in the default port, or in slashes at the end (RFC
// 3986 section 6.2).
func normalSite(given string) (normal, refusal string) {
	if why := plain(given, maxSiteURL); why != "" {
		return "", "is not a valid site URL: it " + why
	}
	u, err := url.Parse(given)
	switch {
	case err != nil:
		return "", "is not a valid site URL: it is not a valid URL"
	case u.Scheme != "https":
		return "", "is not a valid site URL: it does not begin with https://"
	case u.Hostname() == "":
		return "", "is not a valid site URL: it contains no host"
	case u.User != nil:
		return "", "is not a valid site URL: it contains a user name"
	case strings.ContainsAny(given, "?#"):
		return "", "is not a valid site URL: it has a query or a fragment"
	}
	host := strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(u.Host), ":443"), ":")
	return "https://" + host + strings.TrimRight(u.EscapedPath(), "/"), ""
}

// foldSite takes all spellings of a path for the same one that SharePoint does: in
// either case, and however a character of it is encoded. An encoded slash is part
// of a name, and no end of one.
func foldSite(normal string) string {
	parts := strings.Split(normal, "/")
	for i := 3; i < len(parts); i++ { // https://HOST/PATH
		if decoded, err := url.PathUnescape(parts[i]); err == nil {
			parts[i] = url.PathEscape(name.Fold(decoded))
		}
	}
	return strings.Join(parts, "/")
}

func normalWorkload(name string) (normal, refusal string) {
	if !slices.Contains(Stores, name) {
		return "", "must be one of " + strings.Join(Stores, ", ")
	}
	return name, ""
}

// plain says why s is not 1 to limit bytes of text.
func plain(s string, limit int) (refusal string) {
	switch {
	case s == "":
		return "is empty"
	case len(s) > limit:
		return "is too long"
	case !utf8.ValidString(s):
		return "is not UTF-8"
	case strings.ContainsFunc(s, unicode.IsControl):
		return "has a control character"
	case strings.TrimSpace(s) != s:
		return "begins or ends with a space"
	}
	return ""
}
