package demo_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keyroll/api"
	"keyroll/internal/container"
	"keyroll/internal/demo"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
)

const mbox = "From ann@contoso.com Mon Nov  2 09:00:00 2026\nSubject: one\n\n1\n\n" +
	"From ann@contoso.com Mon Nov  2 09:00:01 2026\nSubject: two\n\n2\n\n" +
	"From ann@contoso.com Mon Nov  2 09:00:02 2026\nSubject: three\n\n3\n"

// run runs the demo on a node. Once a roll has been followed it calls after with
// how many have been.
func run(t *testing.T, after func(w *nodetest.World, rolls int)) (printed string, err error) {
	t.Helper()
	w := nodetest.Start(t, node.Options{})
	w.AnswerYes()
	folder := t.TempDir()
	for name, text := range map[string]string{"mail.mbox": mbox, "tree/a.txt": "first", "tree/b/c.txt": "second"} {
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mail, err := demo.ReadMail(filepath.Join(folder, "mail.mbox"))
	if err != nil {
		t.Fatal(err)
	}
	files, err := demo.Tree(t.Context(), filepath.Join(folder, "tree"), "")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	rolls := 0
	err = demo.Run(t.Context(), demo.Options{
		Client: w.Client,
		Script: func(_ context.Context, text string) error {
			printed, err := w.TryScript(text)
			out.WriteString(printed)
			return err
		},
		Fill: func(_ context.Context, policy string, n int) error {
			var names []string
			for i := range n {
				names = append(names, fmt.Sprintf("user%d@contoso.com", i))
			}
			w.CreateMany(container.Mailbox, names, policy)
			return nil
		},
		Watch: func(ctx context.Context, id string) (api.Roll, error) {
			r, err := w.Client.ShowRoll(ctx, api.RollInput{Roll: id})
			if err != nil {
				return r, err
			}
			r = w.WaitRoll(r.Policy)
			rolls++
			after(w, rolls)
			return r, nil
		},
		Progress: func(string, int64) demo.Bar { return noBar{} },
		Domain:   w.Info.VaultDomain, Mail: mail, Files: files, Out: &out,
	})
	return out.String(), err
}

type noBar struct{}

func (noBar) Set(int64) {}
func (noBar) End()      {}

func TestDemoProvesThatAllContentIsUnchanged(t *testing.T) {
	printed, err := run(t, func(*nodetest.World, int) {})
	if err != nil {
		t.Fatalf("%v\n%s", err, printed)
	}
	for _, want := range []string{"mailboxes equal to what was imported, by SHA-256: 3 of 3", "files equal to what was stored, by SHA-256: 2 of 2", "safe to retire"} {
		if !strings.Contains(printed, want) {
			t.Errorf("the demo does not print %q:\n%s", want, printed)
		}
	}
}

// The proof would be worth nothing if it could not fail.
func TestDemoNamesContentThatDiffers(t *testing.T) {
	printed, err := run(t, func(w *nodetest.World, rolls int) {
		if rolls != 4 { // the last one
			return
		}
		in := api.FileInput{SiteInput: api.SiteInput{Site: "https://contoso.sharepoint.com/sites/source"}, Path: "b/c.txt"}
		if _, err := w.Client.PutFile(t.Context(), in, -1, strings.NewReader("another")); err != nil {
			t.Error(err)
		}
		if _, err := w.Client.ImportMail(t.Context(), api.ImportMailInput{MailboxInput: api.MailboxInput{Mailbox: "alice@contoso.com"}}, -1,
			strings.NewReader("From x@contoso.com Mon Nov  2 09:00:00 2026\n\nmore\n")); err != nil {
			t.Error(err)
		}
	})
	for _, want := range []string{"DIFFERS: mailbox alice@contoso.com: ", "DIFFERS: file b/c.txt: "} {
		if err == nil || !strings.Contains(printed, want) {
			t.Errorf("%v; the demo does not print %q:\n%s", err, want, printed)
		}
	}
}

// A checkout has more below it than its files: programs that were built, packages that
// were installed.
func TestTreeLeavesOutWhatGitIgnores(t *testing.T) {
	folder := t.TempDir()
	for name, text := range map[string]string{".gitignore": "/bin/\n*.out\n", "bin/program": "x", "a/b.txt": "b", "a/c.out": "c", ".hidden/d": "d"} {
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("git", "-C", folder, "init", "-q").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	files, err := demo.Tree(t.Context(), folder, "")
	if want := []string{".gitignore", "a/b.txt"}; err != nil || !slices.Equal(files.Paths, want) {
		t.Errorf("%q, %v, want %q", files.Paths, err, want)
	}
}
