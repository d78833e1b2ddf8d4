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

// Kind is the kind of a container. The values are in stored data and never change.
type Kind string

// The kinds of containers that users know by a name.
const (
	Mailbox  Kind = "mailbox"
	Site     Kind = "site"
	Workload Kind = "workload"
)

// kindRule describes the names of containers of one kind and their initial class.
type kindRule struct {
	class  envelope.Class
	plural string
	// normal returns the exact form of a name, or why the name is not valid.
	normal func(name string) (normal, refusal string)
	// fold maps all exact forms that count as the same name to one form; nil: each
	// exact form is a different name.
	fold func(normal string) string
}

// rules has an entry for each kind that has names.
var rules = map[Kind]kindRule{
	Mailbox: {class: envelope.ClassActive, plural: "mailboxes", normal: normalMailbox},
	Site:    {class: envelope.ClassSite, plural: "sites", normal: normalSite, fold: foldSite},
	// The tenant's directory also has the kind Workload, but no name.
	Workload: {class: envelope.ClassWorkload, plural: "workload stores", normal: normalWorkload},
}

// workloadStores are the names of the workload stores.
var workloadStores = []string{"chat-messages", "sensitivity-labels"}

// mailboxStates are the possible states of a mailbox. follows means that its key is moved
// under its policy's current policy key at the next access rather than in the background.
var mailboxStates = map[envelope.Class]struct{ follows bool }{
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
// the folded form. A container that was named before names were folded, and whose
// folded form another one has, is found by the exact form.
type spelling struct{ exact, folded string }

// normalise returns the forms of a name by which it may be found.
func normalise(kind Kind, given string) (spelling, error) {
	r, err := ruleFor(kind)
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

// checkNew refuses names that are not allowed for new containers, although existing
// containers with such names are still found.
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

func ruleFor(kind Kind) (kindRule, error) {
	r, ok := rules[kind]
	if !ok {
		return kindRule{}, fail.New(api.InvalidArgument, "a container of kind %q has no name", string(kind))
	}
	return r, nil
}

func normalMailbox(name string) (normal, refusal string) {
	if why := textRefusal(name, maxMailboxName); why != "" {
		return "", "must be 1 to 256 bytes of text: it " + why
	}
	return strings.ToLower(name), ""
}

// normalSite maps two spellings of a URL to the same one if they differ only in
// the case of scheme and host, in the default port, or in slashes at the end (RFC
// 3986 section 6.2).
func normalSite(given string) (normal, refusal string) {
	if why := textRefusal(given, maxSiteURL); why != "" {
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

// foldSite maps all spellings of a path to the same one that SharePoint treats as
// equal: whatever their case and the encoding of their characters. An encoded slash
// is part of a name and does not end it.
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
	if !slices.Contains(workloadStores, name) {
		return "", "must be one of " + strings.Join(workloadStores, ", ")
	}
	return name, ""
}

// textRefusal returns why s is not 1 to limit bytes of text, and an empty string if it is.
func textRefusal(s string, limit int) (refusal string) {
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
