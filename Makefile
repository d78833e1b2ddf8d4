# Few targets, the same for people and for CI.

GO ?= go
# Packages that hold or handle keys: they pass under FIPS 140 enforcement too.
CRYPTO = ./internal/envelope ./internal/seal ./internal/access ./internal/availability ./internal/container ./internal/content ./internal/keypage ./internal/policy
FUZZTIME ?= 10s

# Tests kill processes, they cut no power: where there is room, what they write
# stands in memory, and no test waits for a disk.
ROOM = $(shell df -k --output=avail /dev/shm 2>/dev/null | tail -n 1)
ifeq ($(shell test "$(ROOM)" -gt 6000000 2>/dev/null && mkdir -p -m 1777 /dev/shm/keyroll && echo yes),yes)
race children procedures other fips model: export TMPDIR = /dev/shm/keyroll
race children procedures other fips model: export GOTMPDIR = /tmp
endif

.PHONY: all build test check race fips fuzz soak bench clean

all: build

build: ## the one binary
	$(GO) build -o bin/keyroll ./cmd/keyroll

test: postgres s3 azurite check race ## everything that has to hold
	$(MAKE) --output-sync=target -j 2 children procedures other fips

check:
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "gofmt: the files above need it"; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

# The packages that start keyroll as child processes over and over, or whole
# nodes, run without the race detector: it would watch the test, not the children.
CHILDREN = ./cmd/keyroll ./internal/crashtest ./internal/node ./internal/node/clustertest
BESIDE = ^(TestSoak|TestReadsAndWritesGoOnWhileRollsRun|TestWhatADeadNodeHeldIsFreedAndItsWorkIsTakenUp)$$

# Whole procedures and sequences, one request after the other: the race detector
# would only slow them. What runs side by side is in the other tests.
PROCEDURES = ^(TestChecklist|TestDocumented|TestDecisionTable|TestAfterAPurge|TestAThousandTenants|TestAnySequence|TestLedgerIs|TestEveryVersion|TestNoCollectionEver|TestASiteIs|TestDamageIs|TestABackupThatDies|TestMoveThat|TestMoveRefuses|TestRefusalsOfAServer)
MODEL = TestAnySequenceOfActsKeepsToTheModel
PROCEDURAL = $$(grep -rlE '^func $(subst ^,,$(PROCEDURES))' --include='*_test.go' client docs internal | xargs -n 1 dirname | grep -v /node$$ | sort -u | sed 's|^|./|')
PACKAGES = $$($(GO) list ./... | grep -v -e /cmd/keyroll$$ -e /internal/crashtest$$ -e /internal/node$$ -e /clustertest$$)

# The SQLite engine is C made into Go, and a connection has one goroutine at a
# time: watching it took half of the time of most packages.
RACE = -race -gcflags=github.com/ncruces/go-sqlite3-wasm/v6=-race=false

# Tests wait for disks and databases more than for processors: packages run
# several at a time.
race:
	$(GO) test $(RACE) -p 4 -skip '$(PROCEDURES)' $(PACKAGES)
	$(GO) test $(RACE) -run '$(BESIDE)' ./internal/node

.PHONY: children procedures other
children:
	$(GO) test -p 4 $(CHILDREN)

procedures:
	$(GO) test -p 2 -run '$(PROCEDURES)' $(PROCEDURAL)

# Tests that do not care which database they run on took SQLite above; here and
# under FIPS 140 they take PostgreSQL.
other: postgres ## once more, on PostgreSQL
	KEYROLL_TEST_DATABASE=postgres $(GO) test -p 2 ./internal/audit ./internal/ca ./internal/vault ./internal/verify
	KEYROLL_TEST_DATABASE=postgres $(GO) test -run '^TestChecklist' ./internal/node

fips: postgres
	KEYROLL_TEST_DATABASE=postgres GODEBUG=fips140=only $(GO) test -p 2 -skip '$(PROCEDURES)' $(CRYPTO)

# A real PostgreSQL: the tests start and stop one themselves from these programs.
.PHONY: postgres
postgres:
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { \
	  test "$$(id -u)" = 0 || { echo "the tests need PostgreSQL: install Debian's package postgresql"; exit 1; }; \
	  apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends postgresql; }

# A real S3 server: a module of its own says which; its tests build it too.
.PHONY: s3
s3:
	@$(GO) -C internal/blob/s3test/versitygw tool -n versitygw >/dev/null

# A real Azure Blob server, of the versions that its lock file names.
AZURITE = internal/blob/azuretest/testdata
.PHONY: azurite
azurite: $(AZURITE)/node_modules/.package-lock.json
$(AZURITE)/node_modules/.package-lock.json: $(AZURITE)/package-lock.json
	@command -v npm >/dev/null || { \
	  test "$$(id -u)" = 0 || { echo "the tests need Azurite: install Debian's packages nodejs and npm"; exit 1; }; \
	  apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends nodejs npm; }
	npm --prefix $(AZURITE) ci --ignore-scripts --no-audit --no-fund --loglevel=error

fuzz: ## each fuzz target for a short time
	@for package in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
	    $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$package || exit 1; \
	  done; \
	done

.PHONY: model
MODELCHECKS ?= 300
model: postgres ## everything that a tenant may do, in many more orders; docs/testing.md
	$(GO) test ./internal/service -run '^$(MODEL)' -rapid.checks $(MODELCHECKS) -rapid.steps 80 -timeout 3h -v

.PHONY: chaos
chaos: postgres s3 ## ten minutes of nodes killed, paused and cut off under load
	$(GO) test ./internal/chaostest -run '^TestChaos$$' -chaos 10m -timeout 30m -v

soak: ## ten minutes of mixed load while vaults go away and come back
	$(GO) test ./internal/node -run '^TestSoak$$' -soak 10m -timeout 20m -v

bench: build ## the roll beside its limits; bin/keyroll bench --help names the other benchmarks
	bin/keyroll bench roll

.PHONY: bench-nodes
bench-nodes: postgres ## two nodes against one on PostgreSQL and S3
	$(GO) test ./internal/node/clustertest -run '^$$' -bench '^BenchmarkTwoNodesAgainstOne$$' -benchtime 1x -timeout 1h

vulnerabilities: ## known ones in what is used; needs the vulnerability database
	$(GO) tool govulncheck ./...

clean:
	rm -rf bin
