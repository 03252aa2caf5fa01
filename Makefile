# The two that a newcomer needs are `make run` and `make test`. Both install what is missing (as root, through apt).

JOBS := $(shell nproc)
# For `make run`: `make run ARGS='--config my.yaml --listen 127.0.0.1:9102'`
ARGS ?=
PAGES := metrics events config

.PHONY: run build test test-kernels lint docs docs-check manifests image deb bench clean

## Builds netsonde and runs it: http://localhost:9102/metrics. Root sees every namespace, others only their own.
run: packages-run build
	exec target/release/netsonde run $(ARGS)

build: packages-run
	cargo build --release --locked -j $(JOBS) -p netsonde

## Every check there is; the last line counts them.
test: packages-test
	tests/setup/run.sh

## The lab on Debian's kernels 6.1 and 6.12, each in a VM; writes docs/reference/kernels.md.
test-kernels: packages-kernels
	tests/kernels/run.sh

lint: packages-run
	tests/setup/run.sh format clippy

## Writes docs/reference from the program.
docs: packages-run
	cargo build --locked -j $(JOBS) --workspace --bins
	mkdir -p docs/reference
	for page in $(PAGES); do target/debug/netsonde docs $$page > docs/reference/$$page.md || exit 1; done
	target/debug/netsonde docs example > config/netsonde.yaml

## Whether docs/reference is what the program says.
docs-check: packages-run
	cargo build --locked -j $(JOBS) --workspace --bins
	for page in $(PAGES); do target/debug/netsonde docs $$page | diff -u docs/reference/$$page.md - || \
	    { echo "docs/reference/$$page.md is out of date: run make docs"; exit 1; }; done
	target/debug/netsonde docs example | diff -u config/netsonde.yaml - || \
	    { echo "config/netsonde.yaml is out of date: run make docs"; exit 1; }

## Writes what is made in deploy/: the chart's copies of what the program says, and the manifests for kustomize.
manifests: packages-test
	cargo build --locked -j $(JOBS) --workspace --bins
	tests/setup/tools.sh
	deploy/render.sh

## target/image/netsonde-ARCH.tar, for `docker load` and `ctr image import`: a static release build.
image: packages-run
	deploy/image/build.sh

## target/debian/netsonde_VERSION_ARCH.deb.
deb: packages-run
	deploy/debian/build.sh

## What netsonde costs: scrapes at 1 to 500 namespaces, each eBPF program, events, traffic with and without. Needs root.
bench: packages-test build
	cargo run --release --locked -j $(JOBS) -p netsonde-tests --bin bench

clean:
	cargo clean

.PHONY: packages-run packages-test packages-kernels
packages-run:
	@tests/setup/packages.sh run
packages-test:
	@tests/setup/packages.sh test
packages-kernels:
	@tests/setup/packages.sh kernels
