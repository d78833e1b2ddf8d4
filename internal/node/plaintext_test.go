package node_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"keyroll/api"
	"keyroll/internal/access"
	"keyroll/internal/container"
	"keyroll/internal/envelope"
	"keyroll/internal/keypage"
	"keyroll/internal/node"
	"keyroll/internal/node/nodetest"
	"keyroll/internal/policy"
	"keyroll/internal/seal"
	"keyroll/internal/store"
)

// needle is a value that must not be stored in the clear, or only in one file.
type needle struct {
	what string
	home string // file in the data folder that exists to hold it; empty for none
	text []byte
}

// haystack searches for needles in every form that would show them.
type haystack struct {
	needles []needle
	forms   map[uint64][]form // by their first eight bytes
}

type form struct {
	needle int
	name   string
	bytes  []byte
}

// add adds a needle as it is, in hexadecimal, and in base64 in each of its three
// alignments in a longer text. A needle has at least 12 bytes.
func (h *haystack) add(t *testing.T, n needle) {
	t.Helper()
	if len(n.text) < 12 {
		t.Fatalf("%s is too short to be searched for", n.what)
	}
	if h.forms == nil {
		h.forms = map[uint64][]form{}
	}
	i := len(h.needles)
	h.needles = append(h.needles, n)
	put := func(name string, b []byte) {
		key := binary.LittleEndian.Uint64(b)
		h.forms[key] = append(h.forms[key], form{i, name, b})
	}
	put("as it is", n.text)
	put("in hex", []byte(hex.EncodeToString(n.text)))
	put("in hex", []byte(strings.ToUpper(hex.EncodeToString(n.text))))
	for shift := range 3 {
		whole := append(make([]byte, shift), n.text...)
		for name, encoding := range map[string]*base64.Encoding{"in base64": base64.RawStdEncoding, "in base64url": base64.RawURLEncoding} {
			text := encoding.EncodeToString(whole)
			// Without the characters that also depend on the bytes before or after it.
			begin, end := []int{0, 2, 3}[shift], len(whole)/3*4
			put(name, []byte(text[begin:end]))
		}
	}
}

// found is a needle in a haystack.
type found struct {
	needle int
	form   string
	at     int
}

func (h *haystack) search(content []byte) (all []found) {
	for at := 0; at+8 <= len(content); at++ {
		for _, f := range h.forms[binary.LittleEndian.Uint64(content[at:])] {
			if bytes.HasPrefix(content[at:], f.bytes) {
				all = append(all, found{f.needle, f.name, at})
			}
		}
	}
	return all
}

func TestSearchFindsEveryEncodingOfAText(t *testing.T) {
	var h haystack
	secret := []byte("a secret of 23 bytes ok")
	h.add(t, needle{what: "secret", text: secret})
	for before := range 4 {
		for after := range 4 {
			text := append(append(bytes.Repeat([]byte{0xfb}, before), secret...), bytes.Repeat([]byte{0xff}, after)...)
			for name, form := range map[string]string{
				"raw": string(text), "hex": fmt.Sprintf("%x", text), "HEX": fmt.Sprintf("%X", text),
				"base64": base64.StdEncoding.EncodeToString(text), "base64url": base64.RawURLEncoding.EncodeToString(text),
			} {
				if len(h.search([]byte("##"+form))) == 0 {
					t.Errorf("not found in %s between %d and %d bytes", name, before, after)
				}
			}
		}
	}
}

// record records what a node logs, at every level.
type record struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *record) bytes() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Clone(r.text.Bytes())
}

// TestDataFolderAndLogContainNoUserDataAndNoKey acts as a tenant, then searches
// every byte of the data folder and the log.
func TestDataFolderAndLogContainNoUserDataAndNoKey(t *testing.T) {
	t.Parallel()
	var log record
	w := nodetest.Start(t, node.Options{Data: nodetest.Folder(t), PageSlots: 4, Logger: slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	var h haystack
	useTenant(t, w, &h)
	addTokens(t, w, &h)
	addKeys(t, w, &h) // before the last roll: keys of older generations too
	w.RefreshMail()
	w.FinishRoll(nodetest.MailboxPolicy)
	w.UpdateSites()
	w.FinishRoll(nodetest.SitePolicy)
	refusals(t, w)
	w.Verify()
	w.Node.Upkeep.Wait()
	addKeys(t, w, &h)
	addFiles(t, w, &h)

	searchFolder(t, w.Data, &h, "while the node runs")
	w.Stop()
	searchFolder(t, w.Data, &h, "after the node has stopped")
	w.Restart(nil)
	searchFolder(t, w.Data, &h, "after another start")
	text := log.bytes()
	if !bytes.Contains(text, []byte(`"msg":"request"`)) {
		t.Errorf("nothing was logged")
	}
	for _, f := range h.search(text) {
		line := text[bytes.LastIndexByte(text[:f.at], '\n')+1:]
		t.Errorf("%s is in the log, %s: %.300s", h.needles[f.needle].what, f.form, line)
	}
}

// useTenant acts as a tenant, with words that occur nowhere else.
func useTenant(t *testing.T, w *nodetest.World, h *haystack) {
	const (
		person   = "Hildegard.Zwickelberger@quittenbaum.example"
		other    = "Ottokar.Wurzelsepp@quittenbaum.example"
		subject  = "Zitronenfalter faltet Zitronen"
		body     = "Der Kaktus auf der Fensterbank singt leise Moritaten."
		team     = "https://quittenbaum.sharepoint.com/sites/Geheimrezepte"
		fileName = "Pflaumenmus/Lagerliste Winterkeller.txt"
		content  = "Neunundneunzig Einweckglaeser hinter der dritten Tuer."
	)
	w.StageMail()
	w.StageSites()
	w.Mailbox(person, nodetest.MailboxPolicy)
	w.Mailbox(other, "")
	w.Site(team)
	encoded := "=?utf-8?B?" + base64.StdEncoding.EncodeToString([]byte(subject+" und Äpfel")) + "?="
	w.Import(person, "From "+other+" Thu Jan  1 00:00:00 2026\nFrom: "+other+"\nTo: "+person+"\nSubject: "+subject+"\nStatus: RO\n\n"+body+"\n\n"+
		"From "+other+" Thu Jan  1 00:00:01 2026\nFrom: Ottokar <"+other+">\nSubject: "+encoded+"\n\n"+strings.Repeat(body+"\n", 5000))
	w.Import(other, "From "+person+" Thu Jan  1 00:00:02 2026\nSubject: Re: "+subject+"\n\n"+body+"\n")
	w.Put(team, fileName, []byte(strings.Repeat(content+"\n", 3000)))
	w.Backup("mailbox", person)
	w.Backup("site", team)
	w.Put(team, fileName, []byte(strings.Repeat(content+"\n", 2000)))
	w.Restore("mailbox", person, "Kopie."+person)
	w.Restore("site", team, team+"-Kopie")
	w.Expire("site", team)
	w.SetState(other, api.Inactive)
	w.Export(person)
	w.Export(other)
	w.Get(team, fileName)
	for _, n := range []needle{
		{what: "a mailbox name", text: []byte(person)},
		{what: "a mailbox name in lower case", text: []byte(strings.ToLower(person))},
		{what: "another mailbox name", text: []byte(other)},
		{what: "another mailbox name in lower case", text: []byte(strings.ToLower(other))},
		{what: "the domain of an address", text: []byte("quittenbaum.example")},
		{what: "a subject", text: []byte(subject)},
		{what: "an encoded subject", text: []byte(encoded)},
		{what: "a body", text: []byte(body)},
		{what: "a site's host", text: []byte("quittenbaum.sharepoint")},
		{what: "a site's path", text: []byte("Geheimrezepte")},
		{what: "a site's path in lower case", text: []byte("geheimrezepte")},
		{what: "a folder's name", text: []byte("Pflaumenmus/")},
		{what: "a file's name", text: []byte("Winterkeller.txt")},
		{what: "a file's content", text: []byte(content)},
	} {
		h.add(t, n)
	}
}

// refusals makes requests that are refused, so that failures are logged too.
func refusals(t *testing.T, w *nodetest.World) {
	t.Helper()
	ctx := t.Context()
	if _, err := w.Client.ShowMailbox(ctx, api.MailboxInput{Mailbox: "Unknown.Zwickelberger@quittenbaum.example"}); err == nil {
		t.Error("a mailbox that is not there was shown")
	}
	if _, err := w.Client.ImportMail(ctx, api.ImportMailInput{MailboxInput: api.MailboxInput{Mailbox: "Hildegard.Zwickelberger@quittenbaum.example"}}, -1, strings.NewReader("Der Kaktus auf der Fensterbank singt leise Moritaten.")); err == nil {
		t.Error("what is no mbox was imported")
	}
	in := api.FileInput{SiteInput: api.SiteInput{Site: "https://quittenbaum.sharepoint.com/sites/Geheimrezepte"}, Path: "Pflaumenmus/../Winterkeller.txt"}
	if _, err := w.Client.PutFile(ctx, in, -1, strings.NewReader("x")); err == nil {
		t.Error("a path that is none was taken")
	}
	if _, err := w.TryScript("New-Mailbox -Name Hildegard.Zwickelberger@quittenbaum.example"); err == nil {
		t.Error("a mailbox was made twice")
	}
}

// sealerOf opens the seal of a data folder.
func sealerOf(t *testing.T, data string) *seal.Seal {
	t.Helper()
	s, err := seal.Open(t.Context(), "file://"+filepath.Join(data, "seal"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// addTokens adds every token and secret that authenticates anyone.
func addTokens(t *testing.T, w *nodetest.World, h *haystack) {
	t.Helper()
	ctx := t.Context()
	h.add(t, needle{"the admin's token", "admin.token", []byte(w.Token)})
	directory, err := access.Open(ctx, access.Config{DB: w.Node.DB, Seal: sealerOf(t, w.Data), VaultDomain: w.Info.VaultDomain, Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []struct {
		fmt.Stringer
		secret func() (string, error)
	}{
		{access.Exchange, func() (string, error) { return directory.ClientSecret(ctx, w.Node.Tenant.ID, access.Exchange) }},
		{access.SharePoint, func() (string, error) { return directory.ClientSecret(ctx, w.Node.Tenant.ID, access.SharePoint) }},
		{access.DataAtRestEncryption, func() (string, error) {
			return directory.ClientSecret(ctx, w.Node.Tenant.ID, access.DataAtRestEncryption)
		}},
	} {
		secret, err := id.secret()
		if err != nil {
			t.Fatal(err)
		}
		h.add(t, needle{what: "the client secret of " + id.String(), text: []byte(secret)})
	}
	var create api.CreateApplicationInput
	create.Body.Name = "Payroll"
	application, err := w.Client.CreateApplication(ctx, create)
	if err != nil {
		t.Fatal(err)
	}
	h.add(t, needle{what: "the secret of an application", text: []byte(application.Secret)})
	secret, err := directory.ClientSecret(ctx, w.Node.Tenant.ID, access.Exchange)
	if err != nil {
		t.Fatal(err)
	}
	token := logIn(t, w, access.Exchange.String(), secret)
	parts := strings.Split(token, ".")
	h.add(t, needle{what: "the signature of an access token", text: []byte(parts[len(parts)-1])})
	h.add(t, needle{what: "an access token", text: []byte(token)})
}

// logIn gets an access token for a vault.
func logIn(t *testing.T, w *nodetest.World, id, secret string) string {
	t.Helper()
	ca, err := os.ReadFile(w.Info.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).PostForm(w.Info.URL+"/"+w.Info.TenantID+"/oauth2/v2.0/token", url.Values{
		"grant_type": {"client_credentials"}, "client_id": {id}, "client_secret": {secret}, "scope": {"https://" + w.Info.VaultDomain + "/.default"}})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct {
		Token string `json:"access_token"`
	}
	if text, err := io.ReadAll(resp.Body); err != nil || json.Unmarshal(text, &answer) != nil || answer.Token == "" {
		t.Fatalf("log in: %s %s %v", resp.Status, text, err)
	}
	return answer.Token
}

// addKeys adds every key that exists at this moment: policy keys, container keys, blob
// keys, and the secrets under the seal.
func addKeys(t *testing.T, w *nodetest.World, h *haystack) {
	t.Helper()
	ctx, n := t.Context(), w.Node
	count := map[string]int{}
	key := func(kind string, k *envelope.Key) {
		count[kind]++
		h.add(t, needle{what: "a " + kind, text: k.Bytes()})
	}
	var policyKeys []policy.KeyRow
	var containers []container.Container
	sealed := map[string][]byte{}
	err := n.DB.ViewOnce(ctx, func(tx *store.Tx) error {
		all, err := n.Policies.List(ctx, tx, n.Tenant.ID)
		if err != nil {
			return err
		}
		for _, p := range all {
			keys, err := n.Policies.Keys(ctx, tx, n.Tenant.ID, p.ID)
			if err != nil {
				return err
			}
			policyKeys = append(policyKeys, keys...)
		}
		if containers, err = n.Containers.All(ctx, tx, n.Tenant.ID, 0, 1000); err != nil {
			return err
		}
		for _, name := range []string{"revision key", "token signing key", "certificate authority"} {
			if sealed[name], err = seal.Secret(ctx, tx, sealerOf(t, w.Data), name, nil); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range policyKeys {
		opened, err := n.Policies.Open(ctx, n.Tenant.ID, k.ID, api.ByUser)
		if err != nil {
			continue // retired: it was taken in before
		}
		key("policy key", opened)
	}
	for _, c := range containers {
		opened, err := n.Containers.OpenKey(ctx, c, api.ByUser)
		if err != nil {
			t.Fatal(err)
		}
		key("container key", opened.Key)
		pages := ask(t, n.DB, func(tx *store.Tx) ([]keypage.Row, error) {
			return keypage.Under(ctx, tx, keypage.Set{Tenant: c.Tenant, Parents: []keypage.Parent{{ID: c.ID, Generation: opened.Container.Generation}}, Classes: []envelope.Class{envelope.ClassBlob}}, 0, 1000)
		})
		for _, row := range pages {
			page, err := envelope.OpenPage(opened.Key, row.EncryptionContext(), row.Body)
			if err != nil {
				t.Fatal(err)
			}
			for _, slot := range page.Slots() {
				key("blob key", &slot.Key)
			}
		}
	}
	for name, secret := range sealed {
		if bytes.HasPrefix(secret, []byte("-----BEGIN")) { // the certificate before it is public
			secret = secret[bytes.LastIndex(secret, []byte("-----BEGIN")):]
			secret = secret[bytes.IndexByte(secret, '\n')+1:]
			secret = secret[:bytes.IndexByte(secret, '\n')]
		}
		h.add(t, needle{what: "the " + name, text: secret})
	}
	for kind, least := range map[string]int{"policy key": 3, "container key": 4, "blob key": 4} {
		if count[kind] < least {
			t.Errorf("only %d of kind %s were found to search for", count[kind], kind)
		}
	}
}

// addFiles adds the secrets that have a file of their own, and the first bytes of any
// private key.
func addFiles(t *testing.T, w *nodetest.World, h *haystack) {
	t.Helper()
	read := func(name string) []byte {
		content, err := os.ReadFile(filepath.Join(w.Data, name))
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	h.add(t, needle{"the seal", "seal", bytes.TrimSpace(read("seal"))})
	keys, err := filepath.Glob(filepath.Join(w.Data, "availability", "*"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, path := range keys {
		name := filepath.Join("availability", filepath.Base(path))
		if content := read(name); len(content) > 53 { // format, tenant, id and version, key, checksum
			n++
			h.add(t, needle{"an availability key", name, content[21:53]})
		}
	}
	if n < 3 {
		t.Errorf("only %d availability keys were found", n)
	}
	h.add(t, needle{what: "a private key", text: []byte("PRIVATE KEY-----")})
	// PKCS #8 (RFC 5208): version 0, rsaEncryption, and the key as octets.
	h.add(t, needle{what: "an RSA private key", text: []byte("\x02\x01\x00\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00\x04\x82")})
}

// searchFolder searches every byte of every file, and every name, and checks that only
// the owner can access them.
func searchFolder(t *testing.T, data string, h *haystack, when string) {
	t.Helper()
	at := map[int]bool{} // needles that were found at home
	files := 0
	err := filepath.WalkDir(data, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if entry.IsDir() {
			want = fs.ModeDir | 0o700
		}
		if info.Mode() != want {
			t.Errorf("%s: %s has mode %v, not %v", when, path, info.Mode(), want)
		}
		name, err := filepath.Rel(data, path)
		if err != nil || entry.IsDir() {
			return err
		}
		files++
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, f := range h.search(append([]byte(name+"\n"), content...)) {
			n := h.needles[f.needle]
			if n.home == name {
				at[f.needle] = true
				continue
			}
			t.Errorf("%s: %s is in %s, %s", when, n.what, name, f.form)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range h.needles {
		if n.home != "" && !at[i] {
			t.Errorf("%s: %s was not found in its own file %s: the search does not work", when, n.what, n.home)
		}
	}
	if files < 10 {
		t.Errorf("%s: only %d files were searched", when, files)
	}
}
