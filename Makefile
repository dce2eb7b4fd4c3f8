# Arborist. `make help` says what there is.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
RELEASE := target/release
DEMO := out/demo

.PHONY: help
help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: check-tools
check-tools:
	@hack/check-tools.sh

# Of what only some targets need: check-tools-images, check-tools-test.
check-tools-%:
	@hack/check-tools.sh $*

.PHONY: build
build: check-tools ## Build both programs, optimised, into target/release
	$(CARGO) build --release --locked -p arborist-operator -p arborist-worker

.PHONY: share
share: build ## Shell completions and man pages of both programs into out/share
	@for program in arborist arborist-worker; do \
	  mkdir -p out/share/bash-completion/completions out/share/zsh/site-functions out/share/fish/vendor_completions.d; \
	  $(RELEASE)/$$program completions bash > out/share/bash-completion/completions/$$program; \
	  $(RELEASE)/$$program completions zsh > out/share/zsh/site-functions/_$$program; \
	  $(RELEASE)/$$program completions fish > out/share/fish/vendor_completions.d/$$program.fish; \
	  $(RELEASE)/$$program man --dir out/share/man/man1; \
	done

.PHONY: demo
demo: build ## Prove a real block with 0, 1, 2 and 3 calls on this machine, then verify it
	@echo; echo '$$ arborist block new --transactions 4 --calls 0,1,2,3 --out $(DEMO)/block.json'
	@mkdir -p $(DEMO)
	@$(RELEASE)/arborist block new --transactions 4 --calls 0,1,2,3 --out $(DEMO)/block.json
	@echo; echo '$$ arborist prove --block $(DEMO)/block.json --workers 2 --prover demo --out $(DEMO)'
	@$(RELEASE)/arborist prove --block $(DEMO)/block.json --workers 2 --prover demo --out $(DEMO)
	@echo; echo '$$ arborist verify $(DEMO)'
	@$(RELEASE)/arborist verify $(DEMO)

.PHONY: test
test: check-tools-test tools-s3 ## All tests, with real worker processes, real proofs and a real S3 server
	$(CARGO) build --locked --workspace --all-targets
	$(CARGO) test --locked --workspace

.PHONY: tools-s3
tools-s3:
	@hack/install-weed.sh

.PHONY: soak
soak: check-tools ## Storms, hostile and random words, the simulated world, with 8,000 seeds each, some eight minutes
	ARBORIST_SEEDS=$(or $(SEEDS),8000) $(CARGO) test --release --locked -p arborist-core \
		--test engine_faults --test engine_fuzz --test engine_hostile --test sim_world

.PHONY: bench
bench: check-tools ## The numbers of docs/performance.md, as ratios to the targets
	@bench/run.sh

.PHONY: lint
lint: check-tools ## Formatting, clippy, documentation, generated files, dependencies
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' $(CARGO) doc --locked --workspace --no-deps --document-private-items
	$(CARGO) run --quiet --locked -p arborist-operator --bin arborist -- crds --check crds --docs docs/api.md
	@hack/check-docs.sh
	@HELM=$$(hack/tool.sh helm --built) hack/render-manifests.sh --check
	@if command -v cargo-deny >/dev/null; then cargo-deny --locked check licenses bans sources; \
	else echo 'cargo-deny is not installed: dependency rules (deny.toml) not checked; cargo install cargo-deny --locked'; fi

.PHONY: images
images: check-tools-images ## Build both images as OCI archives into out/images, on Linux, without Docker
	@hack/images.sh

.PHONY: manifests
manifests: crds ## Renew crds/, the chart with the CRDs, the chart's README and install.yaml
	@HELM=$$(hack/tool.sh helm) hack/render-manifests.sh

.PHONY: chart-lint
chart-lint: ## Charts: helm lint, many values rendered and checked against Kubernetes' schemas, generated files
	@HELM=$$(hack/tool.sh helm) KUBECONFORM=$$(hack/tool.sh kubeconform) KUBE_SWAGGER=$$(hack/tool.sh swagger) hack/chart-lint.sh

.PHONY: cluster-up cluster-down
cluster-up: ## Bring up a real cluster of three nodes on this machine, without Docker (root, Go)
	@e2e/cluster/cluster up

cluster-down: ## Remove every trace of it
	@e2e/cluster/cluster down

.PHONY: demo-cluster
demo-cluster: check-tools-images ## helm install and a sample job on a cluster of its own (kind, else as cluster-up), live, then verify
	@e2e/demo.sh

.PHONY: e2e
e2e: check-tools-images ## End-to-end tests on KUBECONFIG's cluster, on kind, or else as cluster-up
	@e2e/run.sh $(E2E)

.PHONY: e2e-scale
e2e-scale: check-tools-images ## 1,000 simulated nodes, 5,000 running worker pods, then 10,000 pods that need not run
	@e2e/run.sh --story scale --scale-nodes 1000 --scale-pods 5000
	@e2e/run.sh --story scale --scale-nodes 20 --scale-pods 200 --scale-pending 9800

.PHONY: fmt
fmt: ## Format the code
	$(CARGO) fmt --all

.PHONY: crds
crds: check-tools ## Write crds/ and docs/api.md from the types in operator/src/api
	$(CARGO) run --quiet --locked -p arborist-operator --bin arborist -- crds --dir crds --docs docs/api.md

.PHONY: clean
clean: ## Remove what was built and what the demo wrote
	$(CARGO) clean
	rm -rf out
