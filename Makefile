# Fairlead's build. `make demo` and `make test` set up what is missing on a bare
# machine; everything they fetch or build is kept in ~/.cache/fairlead.
SHELL     := /bin/bash
CACHE     := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/fairlead
TOOLS     := $(CACHE)/bin
VERSION   := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS   := -s -w -X github.com/fairlead/fairlead/cli.Version=$(VERSION)
GOFLAGS   += -trimpath
PKGS      := $(shell go list ./... 2>/dev/null | grep -v /integration)
GOLANGCI  := v2.15.0
GOTESTSUM := v1.13.0

export GOFLAGS

.PHONY: laws build demo demo-down setup traefik vault registry buildx debian engine static check fmt lint tidy unit integration integration-clusters current integration-current integration-etcd repeat test bench install clean help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  %-20s %s\n", $$1, $$2}'

build: ## build bin/fairlead, static and stripped
	CGO_ENABLED=0 go build -ldflags '$(LDFLAGS)' -o bin/fairlead ./cmd/fairlead

setup: ## find or install what Fairlead needs on this machine (asks first when a terminal is there)
	@scripts/setup

traefik: ## find, or build and cache, the Traefik that gateways run
	@scripts/traefik

vault: ## find, or build and cache, the Vault that tests keep secrets in
	@scripts/vault

registry: ## build and cache the registry of images that tests push to
	@scripts/registry

buildx: ## build and cache the buildx that tests build images with
	@scripts/buildx

debian: setup ## make and cache what tests use of Debian's packages
	@scripts/debian postgres redis >/dev/null
	@scripts/etcd-debian >/dev/null
	@scripts/sshd >/dev/null

engine: ## build and cache the current Docker engine that tests run on
	@scripts/engine

demo: ## set up, build, start a cluster of one, deploy the shop, show it working
	@scripts/demo up

demo-down: ## remove every trace of the demo
	@scripts/demo down

fmt: ## format the code
	gofmt -s -w $$(git ls-files '*.go')

lint: $(TOOLS)/golangci-lint
	$(TOOLS)/golangci-lint run --allow-parallel-runners ./...

$(TOOLS)/golangci-lint:
	@echo "building golangci-lint $(GOLANGCI) (about a minute, once)"
	GOFLAGS= GOBIN=$(TOOLS) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI)

$(TOOLS)/gotestsum:
	GOFLAGS= GOBIN=$(TOOLS) go install gotest.tools/gotestsum@$(GOTESTSUM)

tidy:
	@go mod tidy -diff

static: ## format, vet, lint, tidy
	@test -z "$$(gofmt -s -l $$(git ls-files '*.go'))" || { echo "not formatted:"; gofmt -s -l $$(git ls-files '*.go'); exit 1; }
	go vet ./...
	@$(MAKE) --no-print-directory tidy lint

check: static unit ## the quick gate: format, lint, vet, tidy, unit and property tests with the race detector

# A program with the race detector sleeps a second at its end; there are as many as packages.
unit: export GORACE := atexit_sleep_ms=50
# Tests run the program itself: what it is made of is compiled before their time counts.
unit: build ## unit and property tests
	@[ "$$(wc -c <bin/fairlead)" -lt 110000000 ] || { echo "bin/fairlead has 110 MB or more: a dependency brought in too much" >&2; exit 1; }
	go test -race -shuffle=on -timeout 5m $(PKGS)

# Twenty times what the unit tests draw, and every kill point; without the race detector.
LAWS := ./agent ./api/plan ./autoscaler ./control ./delivery/... ./dns ./mesh ./proxyconf ./registry ./rollout ./scheduler ./secrets/...
laws: ## the property tests with twenty times as many cases; minutes
	FAIRLEAD_LAWS=20 FAIRLEAD_KILL_POINTS=all RAPID_CHECKS=2000 go test -count=1 -timeout 30m $(LAWS)

# One package at a time, and without the tests' cache: they share the machine's
# Docker engine and kernel tables.
INTEGRATION := FAIRLEAD_MUST_RUN=1 go test -count=1 -timeout 40m -p 1
integration: setup vault engine registry buildx debian build ## tests on the real Docker, etcd, Traefik and Vault; needs root
	scripts/integration '$(CLUSTERS)'

# The long tests of several servers, of labs, of etcds that are an operator's own, and
# of a machine with systemd (the package must be there).
EMPTY    :=
CLUSTERS := ^($(subst $(EMPTY) ,|,$(strip TestThreeServers TestTwoWholeServers TestServerJoinInterrupted TestServerDiesAsItIsLetVote TestLeaderKilledWhileAServerJoins TestTwoNodes TestTwoGateways \
	TestOperatorsEtcd TestOperatorsEtcdProxied TestNodesOnOperatorsEtcd TestServersOnOperatorsEtcd \
	TestSlowLink TestTwoLabs TestLabIsKept TestInterrupted TestMachineIsLeftAlone TestServersAndGateways TestDocumentedFirewall \
	TestShopOnThreeNodes TestNodesUnderLoad TestAcrossNodes TestAcrossServers TestLeadersUnderLoad TestDeliveryOnThreeNodes TestSystemd TestSystemdMachinesJoin)))$$

integration-clusters: setup vault engine registry buildx debian build ## the long tests of several servers, labs and external etcds; needs root
	$(INTEGRATION) -run '$(CLUSTERS)' ./integration/...

# What engines differ in, on a current one: networks, names, ports, builds, control
# groups, streams, errors. About three minutes, on an engine of their own.
CURRENT := TestShop TestRollingUpdateLosesNoRequest TestAppsAreApart TestNetworksOfAnApp TestPublishedPorts TestTwoNodes \
	TestMeshIsolation TestMeshInternalNetwork TestMeshSeveralNetworks TestMeshNamesInsideContainers TestMeshHairpin \
	TestMetricsOfRealContainers TestAgentHonoursTheSpec TestAgentStreams TestAgentSaysWhyATaskFailed \
	TestAgentAdoptsItsContainersWithoutTouchingThem TestAgentStartsACrashedContainerAgainInPlace \
	TestAgentContainersKeepTheirAddresses TestOwnDNSServers TestNamesOutliveTheServer TestUsersOfARoute \
	TestImagePush TestImageWhoseLayersAreGone TestBuildx
ON_CURRENT := FAIRLEAD_MUST_RUN=1 scripts/apart current go test -count=1 -timeout 40m -p 1

current: setup vault engine registry buildx debian build ## the integration tests that engines can differ in, on a current Docker engine; needs root
	$(ON_CURRENT) -run "^($$(echo $(CURRENT) | tr ' ' '|'))$$" ./integration/...

integration-current: setup vault engine registry buildx debian build ## the integration tests on a current Docker engine; needs root
	$(ON_CURRENT) -skip '$(CLUSTERS)' ./integration/...

# A test that sometimes fails is broken: ten runs of those of whole clusters, on both
# engines; hours. What failed how often is written to bench/results/repeats.tsv.
RUN ?= ^(TestThreeNodes|TestShopOnThreeNodes|TestNodesUnderLoad|TestServersAndGateways|TestThreeServers|TestTwoNodes|TestTwoGateways|TestSecretsInVault|TestOperatorsEtcd|TestNodesOnOperatorsEtcd|TestServersOnOperatorsEtcd|TestAcrossNodes|TestAcrossServers|TestLeadersUnderLoad|TestDeliveryOnThreeNodes|TestStolenCertificates|TestDocumentedFirewall|TestLeaderKilledWhileAServerJoins)$$
IN  ?= ./integration/lab ./integration/e2e
N   ?= 10
repeat: setup vault engine registry buildx debian build ## the tests that match RUN, in the packages IN, N times (10); needs root
	scripts/repeat $(N) '$(RUN)' $(IN)

# Those that are about the embedded etcd, or begin without the common start, say nothing here.
integration-etcd: setup vault registry buildx debian build ## the end-to-end tests on external etcds, of Debian and current; needs root
	for etcd in debian current; do \
		echo "on an external etcd: $$etcd"; \
		FAIRLEAD_TEST_ETCD=$$etcd FAIRLEAD_MUST_RUN=1 go test -count=1 -timeout 40m -p 1 \
			-skip '^(TestLeaderKilledWhileAServerJoins|TestFullDisk|TestExternalEtcd|TestOperatorsEtcd|TestOperatorsEtcdHasUsers|TestOperatorsEtcdIsPutBack|TestNodesOnOperatorsEtcd|TestServersOnOperatorsEtcd|TestThreeServers|TestTwoWholeServers|TestServerJoinInterrupted|TestServerDiesAsItIsLetVote)$$' ./integration/e2e || exit; \
	done

test: setup unit integration ## unit, property and integration tests; the longest have targets of their own

bench: setup build ## measure every figure into bench/results/latest.json
	go run ./bench

install: build traefik ## install the binary into /usr/local/bin
	install -m 0755 bin/fairlead /usr/local/bin/fairlead

clean: ## remove what was built here (the cache stays)
	rm -rf bin examples/*/bin
