// Package archtest checks the architecture: which package may import which, which
// packages may use cryptography, and where kinds of policies may be compared. It has
// only tests. Start reading at packages.
package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
)

const module = "keyroll/"

// goPackage is the description of a package by go list.
type goPackage struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
	Imports                 []string // of files that are not tests
	Standard                bool
}

// modulePackages returns the packages of the module, and the export data of all packages that
// they depend on.
var modulePackages = sync.OnceValues(func() (ours []goPackage, all map[string]goPackage) {
	list := exec.Command("go", "list", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles,Imports,Standard", module+"...")
	var errOut bytes.Buffer
	list.Stderr = &errOut
	out, err := list.Output()
	if err != nil {
		panic("go list: " + err.Error() + "\n" + errOut.String())
	}
	all = map[string]goPackage{}
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return ours, all
		} else if err != nil {
			panic(err)
		}
		all[p.ImportPath] = p
		if strings.HasPrefix(p.ImportPath, module) {
			ours = append(ours, p)
		}
	}
})

// name is a package's path within the module.
func name(path string) string { return strings.TrimPrefix(path, module) }

// row is a package, the packages of the module that it may import, and the reason.
type row struct {
	name, uses, why string
}

// packages is in an order in which each package imports only earlier ones. An import that
// is not listed is forbidden; tests may import anything.
var packages = []row{
	{"api", "", "the contract depends on nothing"},
	{"client", "api", "uses only HTTP, like any other client"},
	{"internal/fail", "api", "errors have the contract's codes"},
	{"internal/name", "", "which texts are valid names and which names are equal; not what is named"},
	{"internal/terminal", "api internal/fail internal/name", "prints what it is given; knows no operation"},
	{"internal/fault", "", "named points, without cost in production"},
	{"internal/files", "", "files that survive a power cut; not their content"},
	{"internal/envelope", "api internal/fail", "pure functions: no database, no clock, no vault"},
	{"internal/together", "", "serves calls that arrive at the same time as one; not how"},
	{"internal/store", "api internal/fail internal/fault internal/together", "transactions, without domain concepts"},
	{"internal/blob", "api internal/fail internal/files", "stores bytes; no keys and no rows"},
	{"internal/httpcheck", "api internal/fail internal/name", "request checks that the service and the vaults share"},
	{"internal/admit", "", "which request goes first; not what it does"},
	{"internal/listen", "api internal/admit internal/fail", "connections and requests of any kind"},
	{"internal/retry", "", "when background work is repeated; not what blocks it"},
	{"internal/lease", "internal/store", "which node does a job, by the database's clock; not what the job is"},
	{"internal/seal", "api internal/fail internal/files", "keyroll's own secrets, in the transactions of its callers"},
	{"internal/audit", "internal/store", "writes entries in the transactions of its callers, who encrypt names"},
	{"internal/access", "api internal/admit internal/fail internal/httpcheck internal/seal internal/store", "principals in rows, their secrets under the seal"},
	{"internal/keypage", "api internal/envelope internal/fail internal/fault internal/store", "the table of key pages; keeps no key"},
	{"internal/rootkey", "api internal/envelope internal/fail", "accesses vaults only over HTTPS, keyroll's own too"},
	{"internal/availability", "api internal/envelope internal/fail internal/files internal/rootkey internal/store", "stores nothing in the database: it uses store only for ids; accesses a vault of the operator as rootkey does"},
	{"internal/keycache", "api internal/envelope internal/fail", "opened keys in memory, for a bounded time; opens none"},
	{"internal/keycheck", "api internal/envelope internal/fail internal/rootkey", "which customer keys a policy may use; changes nothing"},
	{"internal/keyhealth", "api internal/audit internal/envelope internal/fail internal/rootkey internal/store", "how the vaults of customer keys last answered, in rows with audit entries; calls no vault"},
	{"internal/profiles", "api internal/envelope internal/rootkey", "what distinguishes the kinds of policies, as values; does nothing"},
	{"internal/policy", "api internal/audit internal/envelope internal/fail internal/fault internal/keycache internal/keycheck internal/keyhealth internal/keypage internal/lease internal/profiles internal/rootkey internal/store",
		"wraps by root keys, with each use in the audit log; counts pages for the ledger"},
	{"internal/keywork", "api internal/audit internal/fail internal/lease internal/policy internal/retry internal/store", "when the daily work on root keys is done; not how"},
	{"internal/container", "api internal/envelope internal/fail internal/fault internal/keypage internal/lease internal/name internal/policy internal/store", "keys under policy keys; no content"},
	{"internal/mbox", "api internal/fail", "foreign bytes in, messages and header fields out; no storage"},
	{"internal/items", "api internal/blob internal/container internal/envelope internal/fail internal/keypage internal/mbox internal/name internal/store internal/together",
		"the one way to rows of items and to blobs in the blob store; not how messages and files come and go"},
	{"internal/content", "api internal/container internal/envelope internal/fail internal/fault internal/items internal/keypage internal/mbox internal/name internal/store",
		"gets keys from containers; no policy and no vault"},
	{"internal/backup", "api internal/container internal/fail internal/fault internal/items internal/keypage internal/lease internal/name internal/store",
		"copies items and keys between containers; reads no content"},
	{"internal/collect", "api internal/fail internal/fault internal/items internal/store", "deletes what no row references; reads no content and no key"},
	{"internal/compact", "api internal/fail internal/fault internal/items internal/store", "moves sealed blobs between objects; opens no key and deletes nothing that a row has referred to"},
	{"internal/renew", "api internal/container internal/envelope internal/fail internal/fault internal/items internal/keypage internal/store",
		"new keys for blobs and their pages; decides neither for which containers nor when"},
	{"internal/roll", "api internal/audit internal/envelope internal/fail internal/fault internal/keypage internal/lease internal/policy internal/profiles internal/retry internal/store",
		"moves pages; no container, no content, no vault"},
	{"internal/depth", "api internal/container internal/fail internal/fault internal/items internal/keypage internal/renew internal/roll internal/store",
		"the work of a roll below policy keys, on the data of several packages; unwraps no policy key and calls no vault"},
	{"internal/purge", "api internal/audit internal/container internal/fail internal/fault internal/keypage internal/lease internal/policy internal/retry internal/roll internal/store",
		"ends policies, rolls and containers in the documented order; unwraps no key"},
	{"internal/upkeep", "", "runs any job"},
	{"internal/verify", "api internal/container internal/content internal/envelope internal/fail internal/items internal/keypage internal/policy internal/roll internal/store",
		"decrypts what all packages store, and reads which rolls have finished"},
	{"internal/approval", "api internal/fail internal/lease internal/retry internal/store", "who may approve what; does no act itself"},
	{"internal/operation", "api internal/access internal/audit internal/fail internal/store", "the frame of every operation: roles and audit entries; not what it does"},
	{"internal/principals", "api internal/access internal/approval internal/audit internal/fail internal/operation internal/store", "operations on credentials; knows no policy and no content"},
	{"internal/service", "api internal/access internal/approval internal/audit internal/backup internal/collect internal/compact internal/container internal/content internal/depth internal/envelope internal/fail internal/fault internal/items internal/keypage internal/lease internal/operation internal/policy internal/principals internal/profiles " +
		"internal/purge internal/renew internal/roll internal/store internal/upkeep internal/verify", "the single entry point to the packages above; not to the vaults"},
	{"internal/server", "api internal/access internal/admit internal/audit internal/fail internal/httpcheck internal/service", "HTTP over the methods of the service; its table names each once"},
	{"internal/vault/azure", "api internal/admit internal/fail internal/httpcheck", "what Azure's REST interfaces prescribe for any service; no vault and no key"},
	{"internal/vault/material", "api internal/fail internal/vault/azure", "keys as bytes; stores none"},
	{"internal/vault", "api internal/access internal/admit internal/fail internal/httpcheck internal/seal internal/store internal/vault/azure internal/vault/material", "separate from the rest: the service accesses it over HTTPS"},
	{"internal/ca", "api internal/fail internal/seal internal/store", "its key is under the seal"},
	{"internal/cmdlet/syntax", "", "only the syntax of the language"},
	{"internal/cmdlet", "api internal/cmdlet/syntax internal/fail internal/files internal/name", "uses the client and the vaults through interfaces"},
	{"internal/cmdlet/vaults", "api internal/cmdlet internal/fail", "vaults through the official clients"},
	{"internal/node", "api internal/access internal/admit internal/audit internal/availability internal/backup internal/blob internal/ca internal/collect internal/compact internal/container internal/content internal/depth internal/envelope " +
		"internal/fail internal/files internal/items internal/keywork internal/lease internal/listen internal/policy internal/purge internal/renew internal/roll internal/rootkey internal/seal internal/server internal/service internal/store internal/upkeep internal/vault internal/verify",
		"connects all packages"},
	{"internal/connect", "api client internal/fail internal/node", "finds a server of this machine or another; changes nothing"},
	{"internal/demo", "api client internal/fail", "uses only public interfaces"},
	{"internal/bench", "api client internal/container internal/content internal/envelope internal/fail internal/items internal/keypage internal/node internal/policy internal/roll internal/store",
		"fills and reads pages in bulk, and omits the cryptography to measure the rest"},
	{"internal/tokenfile", "api internal/fail internal/files", "files that hold one token each"},
	{"internal/benchcommand", "api client internal/bench internal/fail internal/node internal/terminal", "flags and printing of the benchmarks"},
	{"cmd/keyroll", "api client internal/benchcommand internal/cmdlet internal/cmdlet/vaults internal/connect internal/container internal/demo internal/fail internal/files internal/listen internal/node internal/store internal/terminal internal/tokenfile",
		"flags and wiring; container for the kinds of names, store for offline use"},

	{"docs/scale", "", "the arithmetic of docs/scale.md: flags in, tables out"},

	{"internal/archtest", "", "only tests"},
	{"internal/crashtest", "", "only tests"},
	{"internal/doctest", "", "only tests"},
	{"internal/chaostest", "", "only tests"},
	{"internal/store/storetest", "api internal/fail internal/store", "databases for tests"},
	{"internal/mbox/mboxtest", "", "mailboxes for tests, and a second implementation of the format"},
	{"internal/longtest", "", "says how much a test does"},
	{"internal/files/filestest", "internal/files", "a file system that loses unsynced data"},
	{"internal/proxytest", "", "cuts, stalls and slows connections for tests"},
	{"internal/blob/blobtest", "api internal/blob internal/fail", "the suite that every blob store passes"},
	{"internal/servertest", "", "runs server programs for tests"},
	{"internal/blob/s3test", "internal/servertest", "a real S3 server for tests"},
	{"internal/blob/azuretest", "internal/servertest", "a real Azure Blob server for tests"},
	{"internal/availability/availabilitytest", "api internal/availability internal/envelope internal/fail internal/store", "the suite that both forms of the store pass"},
	{"internal/policy/policytest", "api internal/audit internal/availability internal/envelope internal/fail internal/keypage internal/policy internal/rootkey internal/store internal/store/storetest",
		"policies on fake vaults for tests"},
	{"internal/container/containertest", "api internal/container internal/envelope internal/fail internal/keypage internal/policy internal/store",
		"policies that need no vault, for tests of container and content"},
	{"internal/content/contenttest", "api internal/backup internal/blob internal/collect internal/compact internal/container internal/container/containertest internal/content internal/depth internal/envelope internal/fail internal/fault internal/items internal/policy internal/policy/policytest internal/renew internal/roll internal/store internal/store/storetest",
		"a tenant of policytest with containers, content and rolls, for tests of the packages above content, and a smaller one for those of content and the packages beside it"},
	{"internal/vault/vaulttest", "", "makes RSA keys for tests, of few primes"},
	{"internal/node/nodetest", "api client internal/access internal/cmdlet internal/cmdlet/vaults internal/container internal/node internal/policy internal/rootkey internal/seal internal/store internal/store/storetest internal/vault/vaulttest", "lends tests a whole keyroll"},
	{"internal/node/clustertest", "api client internal/fail internal/node internal/node/nodetest internal/store/storetest", "several real processes on one database, for tests"},
}

func TestPackagesImportOnlyWhatTheTableAllows(t *testing.T) {
	ours, _ := modulePackages()
	before := map[string]bool{}
	table := map[string][]string{}
	for _, r := range packages {
		if _, twice := table[r.name]; twice || r.why == "" {
			t.Errorf("%s is in the table twice, or without a reason", r.name)
		}
		for _, use := range strings.Fields(r.uses) {
			if !before[use] {
				t.Errorf("%s may use %s, which is not before it in the table", r.name, use)
			}
		}
		table[r.name] = strings.Fields(r.uses)
		before[r.name] = true
	}
	for _, p := range ours {
		allowed, ok := table[name(p.ImportPath)]
		if !ok {
			t.Errorf("%s is not in the table of packages", name(p.ImportPath))
			continue
		}
		for _, use := range p.Imports {
			if strings.HasPrefix(use, module) && !slices.Contains(allowed, name(use)) {
				t.Errorf("%s imports %s, which the table does not allow", name(p.ImportPath), name(use))
			}
		}
		for _, use := range allowed {
			if !slices.Contains(p.Imports, module+use) {
				t.Errorf("%s no longer imports %s: remove it from the table", name(p.ImportPath), use)
			}
		}
		delete(table, name(p.ImportPath))
	}
	for gone := range table {
		t.Errorf("%s is in the table, but not in the module", gone)
	}
}

// Helpers of tests are packages because the tests of several packages share them; the
// product never imports them.
func TestProductImportsNoTestHelper(t *testing.T) {
	ours, _ := modulePackages()
	for _, p := range ours {
		for _, use := range p.Imports {
			if use == "testing" && !strings.HasSuffix(p.ImportPath, "test") {
				t.Errorf("%s imports testing, but is not a helper of tests", name(p.ImportPath))
			}
			if strings.HasPrefix(use, module) && strings.HasSuffix(use, "test") && !strings.HasSuffix(p.ImportPath, "test") {
				t.Errorf("%s imports %s, a helper of tests", name(p.ImportPath), name(use))
			}
		}
	}
}

// secretPrimitives encrypt, sign, or derive keys. Every package may use hashes, random
// numbers and TLS.
var secretPrimitives = []string{"crypto/aes", "crypto/cipher", "crypto/rsa", "crypto/hkdf", "crypto/pbkdf2", "crypto/ecdh", "crypto/ecdsa", "crypto/ed25519",
	"crypto/elliptic", "crypto/hmac", "crypto/mlkem", "crypto/hpke", "crypto/des", "crypto/dsa", "crypto/rc4", "crypto/md5", "crypto/sha1"}

// cryptographers are the packages that may import such packages, which, and why. All
// others use envelope.
var cryptographers = []row{
	{"internal/envelope", "crypto/aes crypto/cipher crypto/hkdf crypto/hmac", "all encryption of customers' keys and content"},
	{"internal/seal", "crypto/aes crypto/cipher crypto/hkdf", "encrypts keyroll's own secrets, below envelope's keys"},
	{"internal/access", "crypto/ed25519", "signs tokens"},
	{"internal/ca", "crypto/ecdsa crypto/elliptic", "certificates for the listener"},
	{"internal/vault", "crypto/rsa", "makes RSA keys, and keeps those that were used last"},
	{"internal/vault/material", "crypto/rsa crypto/ecdsa crypto/elliptic crypto/sha1", "implements the keys of a vault: RSA keys, EC keys (refused as customer keys), RSA-OAEP"},
	{"internal/rootkey", "crypto/rsa", "encrypts with the public key of a customer key, so that no stored wrap is made by a vault"},
	{"internal/cmdlet", "crypto/rsa crypto/ecdsa", "reads a private key from a file, and recognises EC keys"},
	{"internal/cmdlet/vaults", "crypto/rsa", "imports a private key into a vault"},
	{"internal/bench", "crypto/aes crypto/cipher", "re-wraps row by row, the design that it compares with"},
	{"internal/policy/policytest", "crypto/rsa", "the fake vaults of tests"},
	{"internal/vault/vaulttest", "crypto/rsa", "makes keys for tests, of few primes"},
}

func TestOnlyListedPackagesImportCryptography(t *testing.T) {
	ours, _ := modulePackages()
	for _, p := range ours {
		var allowed []string
		for _, c := range cryptographers {
			if c.name == name(p.ImportPath) {
				allowed = strings.Fields(c.uses)
			}
		}
		for _, use := range p.Imports {
			if slices.Contains(secretPrimitives, use) && !slices.Contains(allowed, use) || strings.HasPrefix(use, "golang.org/x/crypto") {
				t.Errorf("%s imports %s; use internal/envelope, or give a reason in the table", name(p.ImportPath), use)
			}
		}
		for _, use := range allowed {
			if !slices.Contains(p.Imports, use) {
				t.Errorf("%s no longer imports %s: remove it from the table", name(p.ImportPath), use)
			}
		}
	}
}
