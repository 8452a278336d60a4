# What the README and CI call; "make help" lists it.

GO      ?= go
# The race detector needs a C compiler.
RACE    := $(if $(shell command -v gcc || command -v clang),-race)
BENCH   ?= .
# The examples are modules of their own, as the plugins of others are.
EXAMPLES = $(patsubst %/go.mod,%,$(wildcard examples/*/go.mod))

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## run the demo: a page at http://127.0.0.1:8875
	$(GO) run ./cmd/mzd demo

.PHONY: build
build: ## build ./mzd
	CGO_ENABLED=0 $(GO) build -trimpath -o mzd ./cmd/mzd

.PHONY: check
check: lint test ## what CI runs: lint and test

.PHONY: lint
lint: ## formatting, vet, a tidy go.mod
	@files=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$files" || { echo "gofmt would change: $$files"; exit 1; }
	$(GO) vet ./...
	$(GO) mod tidy -diff
	@set -e; for m in $(EXAMPLES); do (set -x; cd $$m; $(GO) vet ./...; $(GO) mod tidy -diff); done

.PHONY: tidy
tidy: ## tidy the go.mod of the module and of the examples, which depend on it
	$(GO) mod tidy
	@set -e; for m in $(EXAMPLES); do (set -x; cd $$m; $(GO) mod tidy); done

.PHONY: test
test: ## all tests, under the race detector where there is a C compiler
	$(GO) test $(RACE) -timeout 20m ./...
	@set -e; for m in $(EXAMPLES); do (set -x; cd $$m; $(GO) test $(RACE) ./...); done

.PHONY: update
update: ## rewrite the goldens and generated documents; read the diff
	$(GO) test ./config/... ./engine/... ./plugins/sinks/stdout ./cmd/mzd -update

.PHONY: generate
generate: ## generate the Go code of the protocol of plugins; needs buf (npm's @bufbuild/buf)
	cd plugins/proto && buf generate

.PHONY: bench
bench: ## benchmarks, each beside its limit
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem ./...

.PHONY: bench-fanout
bench-fanout: ## what the websocket sink costs with 1,000 and 10,000 clients, beside a bare writer (Linux; FANOUT=flags)
	$(GO) run ./plugins/sinks/websocket/fanout $(FANOUT)

.PHONY: fuzz
fuzz: ## every fuzzer for 30 s
	@for p in $$($(GO) list ./...); do \
		for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz'); do \
			echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime 30s $$p || exit 1; \
		done; \
	done

.PHONY: soak
soak: ## the long tests in full
	$(GO) test $(RACE) -timeout 60m ./core/viewlog -run 'TestModel|TestInspectHistory' -seeds 500
	$(GO) test $(RACE) -timeout 60m ./core/hub -run TestModel -seeds 1000
	$(GO) test $(RACE) -timeout 60m ./core/mz -run TestRestarts -seeds 1000 -parallel 24
	$(GO) test $(RACE) -timeout 60m ./plugins/sinks/websocket -run 'TestEveryState|TestTwoViews|TestNothingIsLeft|TestStalledClients' -seeds 50 -soak
	$(GO) test $(RACE) -timeout 60m ./plugins/plugintest -run 'TestBrokenSinks|TestCorrectSinks' -soak
	$(GO) test $(RACE) -timeout 60m ./cmd/mzd -run 'TestClients|TestFlood' -soak
	$(GO) test $(RACE) -timeout 90m ./cmd/mzd -run 'TestCrash|TestWebhook|TestLanding|TestPostgresMirror' -soak -v
	$(GO) test $(RACE) -timeout 60m ./engine/plan -run 'TestOracle|TestQueriesPostgres|TestIncremental' -queries 5000 -seeds 50
