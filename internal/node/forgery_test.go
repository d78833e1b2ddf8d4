package node_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/node/nodetest"
)

// Queries for the forged rows, all of the first tenant.
const (
	currentKey  = `SELECT p.current FROM policy p WHERE p.tenant = ?1 AND p.name = 'USA_mailboxes'`
	olderKey    = `SELECT k.id FROM policy_key k JOIN policy p ON p.id = k.policy WHERE p.tenant = ?1 AND p.name = 'USA_mailboxes' AND k.generation = 1`
	managedKey  = `SELECT p.current FROM policy p WHERE p.tenant = ?1 AND p.kind = 'service-managed'`
	othersKey   = `SELECT p.current FROM policy p WHERE p.tenant <> ?1 AND p.name = 'USA_mailboxes'`
	othersPage  = `SELECT k.id FROM key_page k WHERE k.tenant <> ?1 AND k.class = 1`
	carolsPage  = `SELECT id FROM key_page WHERE tenant = ?1 AND class = 2`
	someonesNew = 1 << 40 // an id that nothing has
)

func (f forger) alicesPage() int64 { return f.mailOfGeneration1.ID }

// forgery is one forgery and its expected result.
type forgery struct {
	name  string
	forge func(f forger)
	// read must be refused as damaged; nil means that reading content does not detect the
	// forgery, and only verify can.
	read  func(w *nodetest.World) error
	kind  string // of verify's finding
	names func(c forgeryTest) string
	// noUnwrapOf, unless empty, selects a policy key that no vault may have been asked to
	// unwrap.
	noUnwrapOf string
}

func exporting(mailbox string) func(*nodetest.World) error {
	return func(w *nodetest.World) error {
		_, err := exportMail(context.Background(), w, mailbox)
		return err
	}
}

func getting(path string) func(*nodetest.World) error {
	return func(w *nodetest.World) error {
		_, err := getFile(context.Background(), w, api.FileInput{SiteInput: api.SiteInput{Site: site}, Path: path})
		return err
	}
}

func alicesPage(c forgeryTest) string { return fmt.Sprint(c.mailOfGeneration1.ID) }
func sitesPage(c forgeryTest) string  { return fmt.Sprint(c.siteOfGeneration1.ID) }

var pageForgeries = []forgery{
	{
		name: "page moved to another parent",
		forge: func(f forger) {
			f.exec(`UPDATE key_page SET parent = ?2, generation = 1 WHERE id = ?1`, f.alicesPage(), f.number(managedKey, f.tenant))
		},
		read: exporting(alice), kind: "key page", names: alicesPage,
	},
	{
		name: "page moved to the older generation of its parent",
		forge: func(f forger) {
			f.exec(`UPDATE key_page SET parent = ?2, generation = 1 WHERE id = ?1`, f.alicesPage(), f.number(olderKey, f.tenant))
		},
		read: exporting(alice), kind: "key page", names: alicesPage,
	},
	{
		name: "generation of the parent altered",
		forge: func(f forger) {
			f.exec(`UPDATE key_page SET generation = 1 WHERE id = ?1`, f.alicesPage())
		},
		read: exporting(alice), kind: "policy key",
	},
	{
		name: "page moved to another id",
		forge: func(f forger) {
			f.exec(`UPDATE key_page SET id = ?2 WHERE id = ?1`, f.alicesPage(), someonesNew)
			f.exec(`UPDATE container SET page = ?2 WHERE page = ?1`, f.alicesPage(), someonesNew)
		},
		read: exporting(alice), kind: "key page", names: func(forgeryTest) string { return fmt.Sprint(someonesNew) },
	},
	{
		name: "page moved to another class",
		forge: func(f forger) {
			page := f.number(carolsPage, f.tenant)
			f.exec(`UPDATE key_page SET class = 1 WHERE id = ?1`, page)
			f.exec(`UPDATE container SET class = 1 WHERE page = ?1`, page)
		},
		read: exporting(carol), kind: "key page",
	},
	{
		name: "container of another class than its page",
		forge: func(f forger) {
			f.exec(`UPDATE container SET class = 1 WHERE page = ?1`, f.number(carolsPage, f.tenant))
		},
		read: exporting(carol), kind: "container",
	},
	{
		name: "page of another tenant under this tenant's policy key",
		forge: func(f forger) {
			page := f.number(othersPage, f.tenant)
			f.exec(`UPDATE key_page SET tenant = ?2, parent = ?3, generation = 2 WHERE id = ?1`, page, f.tenant, f.number(currentKey, f.tenant))
			f.exec(`UPDATE container SET page = ?2 WHERE page = ?1`, f.alicesPage(), page)
		},
		read: exporting(alice), kind: "key page",
	},
	{
		name: "page of another tenant with its own parent",
		forge: func(f forger) {
			page := f.number(othersPage, f.tenant)
			f.exec(`UPDATE key_page SET tenant = ?2 WHERE id = ?1`, page, f.tenant)
			f.exec(`UPDATE container SET page = ?2 WHERE page = ?1`, f.alicesPage(), page)
		},
		read: exporting(alice), kind: "container",
	},
	{
		name: "page left in another tenant",
		forge: func(f forger) {
			f.exec(`UPDATE key_page SET tenant = (SELECT tenant FROM key_page WHERE id = ?2) WHERE id = ?1`, f.alicesPage(), f.number(othersPage, f.tenant))
		},
		read: exporting(alice), kind: "container",
	},
	{
		name: "body of an older version",
		forge: func(f forger) {
			f.exec(`UPDATE key_page SET body = ?2 WHERE id = ?1`, f.alicesPage(), f.mailOfVersion2.Body)
		},
		read: exporting(alice), kind: "key page", names: alicesPage,
	},
	{
		name:  "row of an older version, whose policy key is still kept",
		forge: func(f forger) { f.putBack(f.mailOfVersion2) },
		kind:  "key page", names: alicesPage,
	},
	{
		name:  "row of an older generation, whose policy key is still kept",
		forge: func(f forger) { f.putBack(f.mailOfGeneration1) },
		kind:  "key page", names: alicesPage,
	},
	{
		name:  "row of an older generation, whose policy key is retired",
		forge: func(f forger) { f.putBack(f.siteOfGeneration1) },
		read:  getting(sitePlace), kind: "container",
	},
	{
		name: "body of an older generation",
		forge: func(f forger) {
			f.exec(`UPDATE key_page SET body = ?2 WHERE id = ?1`, f.siteOfGeneration1.ID, f.siteOfGeneration1.Body)
		},
		read: getting(sitePlace), kind: "key page", names: sitesPage,
	},
	{
		name: "number of slots altered",
		forge: func(f forger) {
			f.exec(`UPDATE key_page SET count = count + 1 WHERE id = ?1`, f.alicesPage())
		},
		read: exporting(alice), kind: "key page", names: alicesPage,
	},
	{
		name: "container pointing to another's page",
		forge: func(f forger) {
			f.exec(`UPDATE container SET page = ?2 WHERE page = ?1`, f.alicesPage(), f.siteOfGeneration1.ID)
		},
		read: exporting(alice), kind: "container",
	},
	{
		name: "page of blob keys moved to another container",
		forge: func(f forger) {
			f.exec(`UPDATE key_page SET parent = (SELECT id FROM container WHERE page = ?1) WHERE class = 8 AND parent IN (SELECT id FROM container WHERE kind = 'site')`,
				f.number(carolsPage, f.tenant))
		},
		read: getting(sitePlace), kind: "item",
	},
}

var blobForgeries = []forgery{
	{name: "chunks swapped", forge: func(f forger) {
		f.blob(0, func(c []byte) []byte {
			first := bytes.Clone(segment(c, 0))
			copy(segment(c, 0), segment(c, 1))
			copy(segment(c, 1), first)
			return c
		})
	}},
	{name: "chunk repeated", forge: func(f forger) {
		f.blob(0, func(c []byte) []byte { copy(segment(c, 2), segment(c, 1)); return c })
	}},
	{name: "cut between chunks", forge: func(f forger) {
		f.blob(0, func(c []byte) []byte { return c[:header(c)+3*sealedSegment] })
	}},
	{name: "last chunk cut out and the end put in its place", forge: func(f forger) {
		f.blob(0, func(c []byte) []byte {
			return append(c[:header(c)+2*sealedSegment:header(c)+2*sealedSegment], segment(c, 3)...)
		})
	}},
	{name: "cut within a chunk", forge: func(f forger) {
		f.blob(0, func(c []byte) []byte { return c[:len(c)-1] })
	}},
	{name: "something appended", forge: func(f forger) {
		f.blob(0, func(c []byte) []byte { return append(c, 0) })
	}},
	{name: "one bit flipped", forge: func(f forger) {
		f.blob(0, func(c []byte) []byte { c[len(c)/2] ^= 1; return c })
	}},
	{name: "chunk of another blob", forge: func(f forger) {
		f.blob(1, func(other []byte) []byte {
			f.blob(0, func(c []byte) []byte { copy(segment(c, 1), segment(other, 1)); return c })
			return other
		})
	}},
	{name: "another blob's file", forge: func(f forger) {
		f.blob(1, func(other []byte) []byte {
			f.blob(0, func([]byte) []byte { return other })
			return other
		})
	}},
	{name: "file gone", forge: func(f forger) {
		if err := os.Remove(filepath.Join(f.data, f.blobs[0])); err != nil {
			f.t.Fatal(err)
		}
	}},
	{name: "blobs exchanged between items", forge: func(f forger) {
		f.exchange("blob", "item", `sequence = 0 AND item IN (SELECT id FROM item WHERE path_hash IS NOT NULL)`)
	}},
	{name: "metadata exchanged", forge: func(f forger) { f.exchange("item", "metadata", `path_hash IS NOT NULL`) }},
	{name: "paths exchanged", forge: func(f forger) { f.exchange("item", "path_hash", `path_hash IS NOT NULL`) }},
}

var revisionForgeries = []forgery{
	{name: "made with public keys alone", forge: forgeRevision},
	{name: "made with public keys alone, under a MAC of the forger's own", forge: func(f forger) {
		forgeRevision(f)
		f.exec(`UPDATE revision SET mac = ?2 WHERE policy_key = ?1 AND erased = 0`, f.number(currentKey, f.tenant), envelope.NewKey().MAC([]byte("mine")))
	}},
	{name: "made with public keys alone, without a MAC", forge: func(f forger) {
		forgeRevision(f)
		f.exec(`UPDATE revision SET mac = ?2 WHERE policy_key = ?1 AND erased = 0`, f.number(currentKey, f.tenant), []byte{})
	}},
	{name: "made with public keys alone for a policy key of the forger's own", forge: func(f forger) {
		f.exec(`INSERT INTO policy_key SELECT ?2, tenant, policy, generation + 1, created FROM policy_key WHERE id = ?1`, f.number(currentKey, f.tenant), someonesNew)
		f.exec(`INSERT INTO revision SELECT ?2, tenant, '11111111-2222-3333-4444-555555555555', policy, ?2, primary_vault, primary_key_name, primary_version,
			secondary_vault, secondary_key_name, secondary_version, availability, availability_version, wrap_primary, wrap_secondary, wrap_availability, mac, created, 0, primary_local, secondary_local
			FROM revision WHERE policy_key = ?1 AND erased = 0`, f.number(currentKey, f.tenant), someonesNew)
		f.exec(`UPDATE policy SET current = ?2 WHERE current = ?1`, f.number(currentKey, f.tenant), someonesNew)
		forgeRevision(f)
	}, read: func(w *nodetest.World) error {
		var in api.CreateMailboxInput
		in.Body.Name, in.Body.Policy = "new@contoso.com", nodetest.MailboxPolicy
		_, err := w.Client.CreateMailbox(context.Background(), in)
		return err
	}},
	{name: "wraps of an older generation", forge: func(f forger) {
		f.exec(`UPDATE revision SET (wrap_primary, wrap_secondary, wrap_availability, mac) =
			(SELECT wrap_primary, wrap_secondary, wrap_availability, mac FROM revision WHERE policy_key = ?2 AND erased = 0)
			WHERE policy_key = ?1 AND erased = 0`, f.number(currentKey, f.tenant), f.number(olderKey, f.tenant))
	}},
	{name: "another tenant's wraps", forge: func(f forger) {
		f.exec(`UPDATE revision SET (primary_vault, primary_key_name, primary_version, secondary_vault, secondary_key_name, secondary_version,
				availability, availability_version, wrap_primary, wrap_secondary, wrap_availability, mac) =
			(SELECT primary_vault, primary_key_name, primary_version, secondary_vault, secondary_key_name, secondary_version,
				availability, availability_version, wrap_primary, wrap_secondary, wrap_availability, mac FROM revision WHERE policy_key = ?2 AND erased = 0)
			WHERE policy_key = ?1 AND erased = 0`, f.number(currentKey, f.tenant), f.number(othersKey, f.tenant))
	}},
	{name: "one wrap of another tenant", forge: func(f forger) {
		f.exec(`UPDATE revision SET wrap_availability = (SELECT wrap_availability FROM revision WHERE policy_key = ?2 AND erased = 0)
			WHERE policy_key = ?1 AND erased = 0`, f.number(currentKey, f.tenant), f.number(othersKey, f.tenant))
	}},
	{name: "another key version named", forge: func(f forger) {
		f.exec(`UPDATE revision SET primary_version = (SELECT primary_version FROM revision WHERE policy_key = ?2) WHERE policy_key = ?1 AND erased = 0`,
			f.number(currentKey, f.tenant), f.number(olderKey, f.tenant))
	}},
}

func TestForgedKeyPagesAreRefusedAndNamed(t *testing.T) { tryAll(t, newForgeryTest(t), pageForgeries) }

func TestForgedBlobsAreRefusedAndNamed(t *testing.T) {
	t.Parallel()
	c := newForgeryTest(t)
	forgeries := append([]forgery(nil), blobForgeries...)
	for i := range forgeries {
		forgeries[i].kind = "item"
		if forgeries[i].read == nil {
			forgeries[i].read = getting(sitePlace)
		}
	}
	tryAll(t, c, forgeries)
}

// A revision that is not authentic is refused before any root key is asked to unwrap it.
func TestForgedRevisionsAreRefusedBeforeAnyUnwrapAndNamed(t *testing.T) {
	t.Parallel()
	c := newForgeryTest(t)
	forgeries := append([]forgery(nil), revisionForgeries...)
	for i := range forgeries {
		forgeries[i].kind = "revision"
		if forgeries[i].read == nil {
			forgeries[i].read = exporting(alice)
		}
		forgeries[i].noUnwrapOf = currentKey
	}
	tryAll(t, c, forgeries)
}
