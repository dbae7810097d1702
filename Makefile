# launchgate: may this inference service launch?
# Needs Go and a C compiler (for go test -race); the rest comes as Go modules.

GO ?= go
GATE ?=

# What make release builds: launchgate for all of these, reference-server for Linux.
PLATFORMS ?= linux/amd64 linux/arm64 darwin/arm64 windows/amd64
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

.PHONY: help release build run test test-gpu images lab-up lab-down test-kubernetes lint bench clean

help: ## print this
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

build: ## build bin/launchgate and bin/reference-server
	$(GO) build -o bin/ ./cmd/launchgate ./cmd/reference-server

run: build ## the main job: the bundled service through the quick gate (or GATE=file.yaml)
	bin/launchgate run $(GATE)

# Their heavy tests are arithmetic of one goroutine: skipped under the race detector, which takes ten times as long.
COMPUTING = ./capacity/model ./checklist ./reference-server/engine
# These measure a service on this machine, so nothing else may run beside them.
MEASURING = ./chaos ./deploy/host ./reference-server/gateway ./internal/tokenizer ./cmd/launchgate ./cmd/reference-server
# So do these, and the race detector takes the time that is measured: with it they run in a short form.
TIMED = ./loadgen ./internal/run ./security

test: build ## every test, with the race detector
	$(GO) test -race -timeout 30m $$($(GO) list ./... | grep -vFx "$$($(GO) list $(COMPUTING) $(MEASURING) $(TIMED))")
	$(GO) test -race -short $(COMPUTING)
	$(GO) test $(COMPUTING)
	$(GO) test -race -p 1 -timeout 20m $(MEASURING)
	$(GO) test -race -short $(TIMED)
	$(GO) test -p 1 -timeout 20m $(TIMED)

test-gpu: ## the tests of the CUDA backend, where a GPU is: built here, run in place (bin/*.test need no Go there)
	$(GO) test -c -o bin/cuda.test ./reference-server/backend/cuda
	$(GO) test -c -o bin/engine.test ./reference-server/engine
	cd reference-server/backend/cuda && ../../../bin/cuda.test -test.v
	cd reference-server/engine && ../../bin/engine.test -test.v -test.run GPU

images: ## container images of both programs, in bin/images, without Docker
	$(GO) run ./deploy/kubernetes/images

release: build ## archives of both programs in bin/release with SBOM and SHA256SUMS (PLATFORMS, VERSION); the same source gives the same bytes
	@rm -rf bin/release && mkdir -p bin/release
	@# Without the folders, the identity and the state of the checkout of this build, two builds are equal.
	@# A program for another platform is built without C, so its CPU backend is slow: reference-server version says so.
	@set -e; for platform in $(PLATFORMS); do \
	  os=$${platform%/*}; arch=$${platform#*/}; name=launchgate_$(VERSION)_$${os}_$${arch}; dir=bin/release/$$name; mkdir $$dir; \
	  programs=./cmd/launchgate; if [ $$os = linux ]; then programs="$$programs ./cmd/reference-server"; fi; \
	  cgo=0; if [ $$platform = $$($(GO) env GOHOSTOS)/$$($(GO) env GOHOSTARCH) ]; then cgo=$$($(GO) env CGO_ENABLED); fi; \
	  echo "building $$name"; \
	  CGO_ENABLED=$$cgo GOOS=$$os GOARCH=$$arch $(GO) build -trimpath -buildvcs=false -ldflags "-s -w -buildid= -X github.com/launchgate/launchgate/internal/version.stamped=$(VERSION)" -o $$dir/ $$programs; \
	  bin/launchgate version --sbom $$(ls -d $$dir/launchgate* $$dir/reference-server 2>/dev/null) > $$dir/sbom.cdx.json; \
	  cp LICENSE README.md $$dir/; \
	  tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=go=rX,u+rw -C bin/release -cf - $$name | gzip -9n > bin/release/$$name.tar.gz; rm -r $$dir; \
	done; cd bin/release && sha256sum *.tar.gz > SHA256SUMS && cat SHA256SUMS

lab-up: ## a Kubernetes of one node on this machine, without Docker (root; docs/kubernetes.md)
	$(GO) run ./deploy/kubernetes/lab up

lab-down: ## stop it, and forget what it has stored
	$(GO) run ./deploy/kubernetes/lab down -wipe

test-kubernetes: ## the tests of target.kubernetes against the lab that make lab-up has started
	LAUNCHGATE_LAB=1 $(GO) test -count=1 -v -run Lab -timeout 10m ./deploy/kubernetes

lint: ## gofmt, go vet, staticcheck
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$unformatted" ]; then echo "gofmt -w these:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

bench: ## the benchmarks (docs/benchmarks.md says what each shows)
	$(GO) test -run '^$$' -bench . -benchmem ./...

clean: ## remove what was built and the runs
	rm -rf bin runs
