# Few targets, the same for people and for CI.

GO ?= go
FUZZTIME ?= 10s

# The checkers are in a module of their own: nothing of them is in keyroll's.
TOOL = $(GO) tool -modfile=tools/go.mod

# No test is about speed: the time-outs end what hangs, on machines far slower
# than those that the tests were written on. Many tests wait for time-outs of
# keyroll, so more of them run at once than there are processors.
TEST = $(GO) test -timeout 20m -parallel 4
LONG = KEYROLL_TEST_LONG=1 $(GO) test -timeout 3h

# Packages that hold or handle keys: they pass under FIPS 140 enforcement too.
# The small ones do so in make test.
CRYPTO = ./internal/envelope ./internal/seal ./internal/access ./internal/availability
CRYPTO_LARGE = ./internal/backup ./internal/container ./internal/content ./internal/items ./internal/keypage ./internal/policy ./internal/renew

# Packages whose tests take one database, SQLite above, and run on PostgreSQL too.
# Those of most other packages take both each time.
EITHER = ./internal/audit ./internal/ca ./internal/vault ./internal/verify

# Packages whose tests ask again where the answer of a commit was lost, as a seed
# draws it (storetest.Ask).
LOST = ./internal/backup ./internal/collect ./internal/container ./internal/content ./internal/items ./internal/policy ./internal/renew ./internal/roll ./internal/vault

# Packages with goroutines of their own and without SQL: the race detector
# watches them in make test, and all others in make test-long.
CONCURRENT = ./internal/admit ./internal/listen ./internal/rootkey ./internal/upkeep

# The SQLite engine is C made into Go, and a connection has one goroutine at a
# time: watching it took half of the time of most packages.
RACE = -race -gcflags=github.com/ncruces/go-sqlite3-wasm/v6=-race=false

# Tests kill processes, they cut no power: where memory has a file system with
# 6 GB free that programs may be run from, what they write is stored there, and no
# test waits for a disk. go test runs its programs, and testing makes its folders,
# in GOTMPDIR.
MEMORY = /dev/shm/keyroll
FREE = $(shell df -k --output=avail /dev/shm 2>/dev/null | tail -n 1)
ifeq ($(shell test "$(FREE)" -gt 6000000 2>/dev/null && mkdir -p -m 1777 $(MEMORY) && \
  p=$$(mktemp -p $(MEMORY)) && printf '\043!/bin/sh\necho yes\n' >$$p && chmod 700 $$p && $$p 2>/dev/null; rm -f "$$p"),yes)
quick test test-long model: export TMPDIR = $(MEMORY)
quick test test-long model: export GOTMPDIR = $(MEMORY)
endif

.PHONY: all build quick test test-long check fuzz soak chaos model bench bench-nodes bench-vault vulnerabilities clean

all: build

build: ## the one binary
	$(GO) build -o bin/keyroll ./cmd/keyroll

# Packages whose tests take seconds; go test ./internal/NAME runs those of another one.
QUICK = $$($(GO) list ./... | grep -v -E '/(node|crashtest|chaostest|service|doctest|cmd|blob|vault|client|availability|container|content|demo|depth|keypage|policy|roll|store)(/|$$)')

quick: check ## what to run after each edit: under two minutes, on SQLite
	KEYROLL_TEST_DATABASE=sqlite $(TEST) -p 2 $(QUICK)

test: postgres s3 azurite check ## everything that has to hold
	$(TEST) -p 2 ./...
	$(TEST) -race $(CONCURRENT)
	KEYROLL_TEST_DATABASE=postgres $(TEST) -p 2 $(EITHER)
	KEYROLL_TEST_DATABASE=sqlite KEYROLL_TEST_LOST=1 $(TEST) -p 2 $(LOST)
	KEYROLL_TEST_DATABASE=sqlite KEYROLL_TEST_LOST=1 $(TEST) -run Purge ./internal/service
	GODEBUG=fips140=only $(TEST) $(CRYPTO)

# Whole models, a death at every point, minutes of chaos and soak, the race
# detector over all packages, every test on PostgreSQL, FIPS 140 over all of CRYPTO.
test-long: postgres s3 azurite check ## everything at full length; docs/testing.md
	$(LONG) -p 2 ./...
	KEYROLL_TEST_DATABASE=postgres $(LONG) -p 2 ./internal/...
	for seed in 1 2 3 4; do KEYROLL_TEST_LOST=$$seed $(TEST) -p 2 $(LOST) || exit 1; done
	for seed in 1 2 3 4; do KEYROLL_TEST_LOST=$$seed $(TEST) -run Purge ./internal/service || exit 1; done
	KEYROLL_TEST_DATABASE=postgres GODEBUG=fips140=only $(TEST) -p 2 $(CRYPTO) $(CRYPTO_LARGE)
	$(GO) test -timeout 2h $(RACE) -p 2 ./...

check:
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "gofmt: the files above need it"; exit 1; }
	$(GO) vet ./...
	$(TOOL) staticcheck ./...
	$(TOOL) revive -config revive.toml ./...

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

MODELCHECKS ?= 300
model: postgres ## everything that a tenant may do, in many more orders; docs/testing.md
	$(GO) test ./internal/service -run '^TestAnySequenceOfOperationsMatchesTheModel' -rapid.checks $(MODELCHECKS) -rapid.steps 80 -timeout 3h -v

chaos: postgres s3 ## ten minutes of nodes killed, paused and cut off under load
	$(GO) test ./internal/chaostest -run '^TestChaos$$' -chaos 10m -timeout 30m -v

soak: ## ten minutes of mixed load while vaults go away and come back
	$(GO) test ./internal/node -run '^TestSoak$$' -soak 10m -timeout 20m -v

bench: build ## the roll beside its limits; bin/keyroll bench --help names the other benchmarks
	bin/keyroll bench roll

bench-nodes: postgres ## two nodes against one on PostgreSQL and S3
	$(GO) test ./internal/node/clustertest -run '^$$' -bench '^BenchmarkTwoNodesAgainstOne$$' -benchtime 1x -timeout 1h

bench-vault: postgres ## the processor time of unwrapping through a vault against RSA alone
	$(GO) test ./internal/node/clustertest -run '^$$' -bench '^BenchmarkUnwrapAgainstBareRSA$$' -benchtime 1x -rounds 20 -timeout 1h

vulnerabilities: ## known ones in what is used; needs the vulnerability database
	$(TOOL) govulncheck ./...

clean:
	rm -rf bin
