package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/client"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
)

// connect returns a client of the server that the environment names.
func connect() *client.Client {
	ca, err := os.ReadFile(os.Getenv("KEYROLL_CA_FILE"))
	if err != nil {
		log.Fatal(err)
	}
	token, err := os.ReadFile(os.Getenv("KEYROLL_TOKEN_FILE"))
	if err != nil {
		log.Fatal(err)
	}
	k, err := client.New(client.Options{URL: os.Getenv("KEYROLL_SERVER"), Token: strings.TrimSpace(string(token)), CA: ca})
	if err != nil {
		log.Fatal(err)
	}
	return k
}

// Store a file and read a part of it. The policy that covers the site decides
// which keys protect it.
func ExampleClient_PutFile() {
	k, ctx := connect(), context.Background()
	defer k.Close()

	var in api.CreateSiteInput
	in.Body.URL = "https://contoso.sharepoint.com/sites/examples"
	site, err := k.CreateSite(ctx, in)
	if err != nil {
		log.Fatal(err)
	}
	file := api.FileInput{SiteInput: api.SiteInput{Site: site.URL}, Path: "reports/2026.txt"}
	const text = "revenue: 42"
	if _, err := k.PutFile(ctx, file, int64(len(text)), strings.NewReader(text)); err != nil {
		log.Fatal(err)
	}
	r, err := k.GetFile(ctx, file, 9, -1) // from byte 9 to the end
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	part, err := io.ReadAll(r)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(site.Protection.Policy, string(part))
	// Service-managed 42
}

// Rotate the keys of a policy and wait for the roll to end.
func ExampleClient_RefreshPolicy() {
	k, ctx := connect(), context.Background()
	defer k.Close()

	refreshed, err := k.RefreshPolicy(ctx, api.RefreshPolicyInput{PolicyInput: api.PolicyInput{Policy: "USA_mailboxes"}})
	if err != nil {
		log.Fatal(err)
	}
	for range time.Tick(100 * time.Millisecond) {
		roll, err := k.ShowRoll(ctx, api.RollInput{Roll: refreshed.Policy.Roll.ID})
		if err != nil {
			log.Fatal(err)
		}
		if roll.State != api.RollRunning {
			fmt.Printf("%s: %d of %d\n", roll.State, roll.Done, roll.Total)
			break
		}
	}
	// finished: 1 of 1
}

// A failure is an *api.Problem: its code is for programs, its detail and its hint
// are for people.
func ExampleClient_ShowMailbox() {
	k, ctx := connect(), context.Background()
	defer k.Close()

	_, err := k.ShowMailbox(ctx, api.MailboxInput{Mailbox: "unknown@contoso.com"})
	var p *api.Problem
	if errors.As(err, &p) && p.Code == api.NotFound {
		fmt.Println(p.Detail)
	}
	// mailbox "unknown@contoso.com" does not exist
}

// Which versions of a key does anything still depend on?
func ExampleClient_ListKeyUsage() {
	k, ctx := connect(), context.Background()
	defer k.Close()

	usage, err := k.ListKeyUsage(ctx, api.KeyUsageInput{Vault: "Contoso-O365EX-NA-VaultA1"})
	if err != nil {
		log.Fatal(err)
	}
	for _, u := range usage.Items {
		if u.Active > 0 {
			fmt.Printf("%s, %d active mailboxes: %s\n", u.Policy, u.Active, u.Verdict)
		}
	}
	// USA_mailboxes, 1 active mailboxes: in use
}

// The examples need a server, so they have no output that go test compares by
// itself; this runs them on one, and compares.
func TestExamplesPrintTheirOutput(t *testing.T) {
	w := nodetest.Start(t, node.Options{})
	w.StageMail()
	w.Mailbox("alice@contoso.com", nodetest.MailboxPolicy)
	w.AddKey(nodetest.VaultA1)
	t.Setenv("KEYROLL_SERVER", w.Info.URL)
	t.Setenv("KEYROLL_CA_FILE", w.Info.CAFile)
	t.Setenv("KEYROLL_TOKEN_FILE", w.Info.AdminTokenFile)
	source, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, example := range []struct {
		name string
		run  func()
	}{
		{"PutFile", ExampleClient_PutFile}, {"RefreshPolicy", ExampleClient_RefreshPolicy},
		{"ShowMailbox", ExampleClient_ShowMailbox}, {"ListKeyUsage", ExampleClient_ListKeyUsage},
	} {
		if got, want := runExample(t, example.run), documentedOutput(string(source), example.name); got != want {
			t.Errorf("%s prints\n%swant\n%s", example.name, got, want)
		}
	}
}

// documentedOutput returns the comment that ends an example.
func documentedOutput(source, name string) (lines string) {
	_, body, _ := strings.Cut(source, "func ExampleClient_"+name+"()")
	body, _, _ = strings.Cut(body, "\n}\n")
	for line := range strings.Lines(body + "\n") {
		text, is := strings.CutPrefix(strings.TrimSpace(line), "// ")
		if is {
			lines += text + "\n"
		} else {
			lines = ""
		}
	}
	return lines
}

// runExample returns what f writes to standard output.
func runExample(t *testing.T, f func()) string {
	t.Helper()
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	out := os.Stdout
	os.Stdout = file
	defer func() { os.Stdout = out }()
	f()
	text, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
