// Package archtest holds the shape of the house: which room may use which, who
// touches cryptography, and where kinds of policies may be told apart. It has
// tests alone. Start reading at rooms.
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

// goPackage is what go list tells of a package.
type goPackage struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
	Imports                 []string // of what is not a test
	Standard                bool
}

// house returns the packages of the module, and where the compiler left what
// it knows of all packages that they need.
var house = sync.OnceValues(func() (ours []goPackage, all map[string]goPackage) {
	list := exec.Command("go", "list", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles,Imports,Standard", module+"...")
	var complaint bytes.Buffer
	list.Stderr = &complaint
	out, err := list.Output()
	if err != nil {
		panic("go list: " + err.Error() + "\n" + complaint.String())
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

// room is a package and all that it may import of the module, and why.
type room struct {
	name, uses, why string
}

// rooms stand in an order in which each uses only what stands before it. An
// import that is not named is forbidden; tests may import what they like.
var rooms = []room{
	{"api", "", "the contract stands on nothing"},
	{"client", "api", "speaks HTTP, like anybody else's client"},
	{"internal/fail", "api", "errors have the contract's codes"},
	{"internal/name", "", "which texts may be names and which count as one; whose names they are, its callers know"},
	{"internal/fault", "", "named points, free in production"},
	{"internal/files", "", "files that survive a power cut; what they hold, its callers know"},
	{"internal/envelope", "api internal/fail", "pure functions: no database, no clock, no vault"},
	{"internal/store", "api internal/fail internal/fault", "transactions without a domain word"},
	{"internal/blob", "api internal/fail internal/files", "stores bytes, and knows neither keys nor rows"},
	{"internal/httpcheck", "api internal/fail internal/name", "what the service and the vaults check of a request alike"},
	{"internal/admit", "", "who goes first; not what it is that goes"},
	{"internal/listen", "api internal/admit internal/fail", "connections and requests, whatever they are for"},
	{"internal/lease", "internal/store", "who does what, by the database's clock; what it is that is done, its callers know"},
	{"internal/seal", "api internal/fail internal/files", "keyroll's own secrets; its callers give it the transaction"},
	{"internal/audit", "internal/store", "writes entries in its callers' transactions; names are sealed by who calls"},
	{"internal/access", "api internal/admit internal/fail internal/httpcheck internal/seal internal/store", "principals in rows, their secrets under the seal"},
	{"internal/keypage", "api internal/envelope internal/fail internal/fault internal/store", "the page table; holds no key of its own"},
	{"internal/rootkey", "api internal/envelope internal/fail", "reaches vaults over HTTPS alone, keyroll's own too"},
	{"internal/availability", "api internal/envelope internal/fail internal/files internal/rootkey internal/store", "never in the database: of store it takes ids; a vault of the operator's it reaches as rootkey does"},
	{"internal/policy", "api internal/audit internal/envelope internal/fail internal/fault internal/keypage internal/lease internal/rootkey internal/store",
		"wraps by root keys, each use in the log; pages are counted for the ledger"},
	{"internal/container", "api internal/envelope internal/fail internal/fault internal/keypage internal/lease internal/name internal/policy internal/store", "keys under policy keys; never content"},
	{"internal/content", "api internal/blob internal/container internal/envelope internal/fail internal/fault internal/keypage internal/lease internal/name internal/store",
		"asks containers for keys, and never a policy or a vault"},
	{"internal/roll", "api internal/audit internal/envelope internal/fail internal/fault internal/keypage internal/lease internal/policy internal/store",
		"moves pages: knows no container, no content, no vault"},
	{"internal/depth", "api internal/container internal/content internal/fail internal/fault internal/keypage internal/roll internal/store",
		"what a roll does below policy keys, between the rooms that own them; opens no policy key and reaches no vault"},
	{"internal/purge", "api internal/audit internal/container internal/fail internal/fault internal/keypage internal/lease internal/policy internal/roll internal/store",
		"ends policies, rolls and containers in the documented order; opens no key"},
	{"internal/upkeep", "", "runs whatever it is given"},
	{"internal/verify", "api internal/container internal/content internal/envelope internal/fail internal/keypage internal/policy internal/roll internal/store",
		"opens what all rooms keep, and reads which rolls have finished"},
	{"internal/service", "api internal/access internal/audit internal/container internal/content internal/depth internal/envelope internal/fail internal/fault internal/keypage internal/policy " +
		"internal/purge internal/roll internal/store internal/upkeep internal/verify", "the only door to the rooms; never the vaults"},
	{"internal/server", "api internal/access internal/admit internal/audit internal/fail internal/httpcheck", "HTTP over an interface that the service fits; no room"},
	{"internal/vault", "api internal/access internal/admit internal/fail internal/httpcheck internal/seal internal/store", "apart from the rest: the service meets it over HTTPS"},
	{"internal/ca", "api internal/fail internal/seal internal/store", "its key stands under the seal"},
	{"internal/cmdlet/syntax", "", "a language without a meaning"},
	{"internal/cmdlet", "api internal/cmdlet/syntax internal/fail internal/files internal/name", "asks the client and the vaults through interfaces; no room"},
	{"internal/cmdlet/vaults", "api internal/cmdlet internal/fail", "vaults by the official clients"},
	{"internal/node", "api internal/access internal/admit internal/audit internal/availability internal/blob internal/ca internal/container internal/content internal/depth internal/envelope " +
		"internal/fail internal/files internal/lease internal/listen internal/policy internal/purge internal/roll internal/rootkey internal/seal internal/server internal/service internal/store internal/upkeep internal/vault internal/verify",
		"wires all rooms to a whole"},
	{"internal/demo", "api client internal/fail", "a user of the interfaces, and no more"},
	{"internal/bench", "api client internal/container internal/content internal/envelope internal/fail internal/keypage internal/node internal/policy internal/roll internal/store",
		"fills and walks pages in bulk, and leaves the cryptography out to measure the rest"},
	{"cmd/keyroll", "api client internal/bench internal/cmdlet internal/cmdlet/vaults internal/container internal/demo internal/fail internal/files internal/listen internal/name internal/node internal/store",
		"flags and wiring; container for the kinds of names, store for offline use"},

	{"docs/scale", "", "the arithmetic of docs/scale.md: flags in, tables out"},

	{"internal/archtest", "", "tests alone"},
	{"internal/crashtest", "", "tests alone"},
	{"internal/doctest", "", "tests alone"},
	{"internal/chaostest", "", "tests alone"},
	{"internal/store/storetest", "api internal/fail internal/store", "lends tests databases"},
	{"internal/longtest", "", "says how much a test does"},
	{"internal/files/filestest", "internal/files", "a file system that loses what was not synced"},
	{"internal/proxytest", "", "cuts, stalls and slows connections for tests"},
	{"internal/blob/blobtest", "api internal/blob internal/fail", "the suite that every blob store passes"},
	{"internal/servertest", "", "runs server programs for tests"},
	{"internal/blob/s3test", "internal/servertest", "lends tests a real S3 server"},
	{"internal/blob/azuretest", "internal/servertest", "lends tests a real Azure Blob server"},
	{"internal/availability/availabilitytest", "api internal/availability internal/envelope internal/fail internal/store", "the suite that both forms of the store pass"},
	{"internal/policy/policytest", "api internal/audit internal/availability internal/envelope internal/fail internal/keypage internal/policy internal/rootkey internal/store internal/store/storetest",
		"lends tests policies, on fake vaults"},
	{"internal/vault/vaulttest", "", "makes RSA keys for tests, of few primes"},
	{"internal/node/nodetest", "api client internal/access internal/cmdlet internal/cmdlet/vaults internal/container internal/node internal/policy internal/rootkey internal/seal internal/store internal/store/storetest internal/vault/vaulttest", "lends tests a whole keyroll"},
	{"internal/node/clustertest", "api client internal/fail internal/node internal/node/nodetest internal/store/storetest", "lends tests several real processes on one database"},
}

func TestRoomsUseOnlyWhatTheTableAllows(t *testing.T) {
	ours, _ := house()
	before := map[string]bool{}
	table := map[string][]string{}
	for _, r := range rooms {
		if _, twice := table[r.name]; twice || r.why == "" {
			t.Errorf("%s stands in the table twice, or without a reason", r.name)
		}
		for _, use := range strings.Fields(r.uses) {
			if !before[use] {
				t.Errorf("%s may use %s, which does not stand before it", r.name, use)
			}
		}
		table[r.name] = strings.Fields(r.uses)
		before[r.name] = true
	}
	for _, p := range ours {
		allowed, ok := table[name(p.ImportPath)]
		if !ok {
			t.Errorf("%s is not in the table of rooms", name(p.ImportPath))
			continue
		}
		for _, use := range p.Imports {
			if strings.HasPrefix(use, module) && !slices.Contains(allowed, name(use)) {
				t.Errorf("%s imports %s, which the table does not allow", name(p.ImportPath), name(use))
			}
		}
		for _, use := range allowed {
			if !slices.Contains(p.Imports, module+use) {
				t.Errorf("%s no longer imports %s: take it out of the table", name(p.ImportPath), use)
			}
		}
		delete(table, name(p.ImportPath))
	}
	for gone := range table {
		t.Errorf("%s is in the table, and not in the house", gone)
	}
}

// Helpers of tests are packages because several rooms' tests share them; the
// product never links them.
func TestProductImportsNoHelperOfTests(t *testing.T) {
	ours, _ := house()
	for _, p := range ours {
		for _, use := range p.Imports {
			if use == "testing" && !strings.HasSuffix(p.ImportPath, "test") {
				t.Errorf("%s imports testing, and is no helper of tests", name(p.ImportPath))
			}
			if strings.HasPrefix(use, module) && strings.HasSuffix(use, "test") && !strings.HasSuffix(p.ImportPath, "test") {
				t.Errorf("%s imports %s, a helper of tests", name(p.ImportPath), name(use))
			}
		}
	}
}

// secretPrimitives encrypt, sign, or derive keys. Hashes, random numbers and
// TLS are for everybody.
var secretPrimitives = []string{"crypto/aes", "crypto/cipher", "crypto/rsa", "crypto/hkdf", "crypto/pbkdf2", "crypto/ecdh", "crypto/ecdsa", "crypto/ed25519",
	"crypto/elliptic", "crypto/hmac", "crypto/mlkem", "crypto/hpke", "crypto/des", "crypto/dsa", "crypto/rc4", "crypto/md5", "crypto/sha1"}

// cryptographers are the rooms that may import such packages, which, and why.
// The names keep rows; everybody else asks envelope.
var cryptographers = []room{
	{"internal/envelope", "crypto/aes crypto/cipher crypto/hkdf crypto/hmac", "every seal of customers' keys and content"},
	{"internal/seal", "crypto/aes crypto/cipher crypto/hkdf", "seals keyroll's own secrets, below envelope's keys"},
	{"internal/access", "crypto/ed25519", "signs tokens"},
	{"internal/ca", "crypto/ecdsa crypto/elliptic", "certifies the listener"},
	{"internal/vault", "crypto/rsa crypto/ecdsa crypto/elliptic crypto/sha1", "is a key vault: RSA keys, EC keys that are refused as customer keys, RSA-OAEP"},
	{"internal/rootkey", "crypto/rsa", "encrypts to the public key of a customer key, so that no vault makes a wrap that is stored"},
	{"internal/cmdlet", "crypto/rsa crypto/ecdsa", "reads a private key from a file, and says when it is an EC key"},
	{"internal/cmdlet/vaults", "crypto/rsa", "imports a private key into a vault"},
	{"internal/bench", "crypto/aes crypto/cipher", "re-wraps row by row, as the peer that it measures against does"},
	{"internal/policy/policytest", "crypto/rsa", "the fake vaults of tests"},
	{"internal/vault/vaulttest", "crypto/rsa", "makes keys for tests, of few primes"},
}

func TestOnlyCryptographersTouchCryptography(t *testing.T) {
	ours, _ := house()
	for _, p := range ours {
		var allowed []string
		for _, c := range cryptographers {
			if c.name == name(p.ImportPath) {
				allowed = strings.Fields(c.uses)
			}
		}
		for _, use := range p.Imports {
			if slices.Contains(secretPrimitives, use) && !slices.Contains(allowed, use) || strings.HasPrefix(use, "golang.org/x/crypto") {
				t.Errorf("%s imports %s; use internal/envelope, or say in the table why not", name(p.ImportPath), use)
			}
		}
		for _, use := range allowed {
			if !slices.Contains(p.Imports, use) {
				t.Errorf("%s no longer imports %s: take it out of the table", name(p.ImportPath), use)
			}
		}
	}
}
