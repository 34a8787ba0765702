# Two commands for users, demo and test; verify, fix and bench for whoever changes the code. All set-up happens below this
# folder, in target/.

PYTHON ?= python3
CARGO ?= cargo
MINUTES ?= 10
CYCLES ?= 200
ROUNDS ?= 50
SECONDS ?= 60
GIB ?= 4
ENTRIES ?= 1000000
ANCHORS ?= 256
ROWS ?= 0
# A folder on another disk than this one.
SPOOL ?= /dev/shm
SIZES ?= 65536 100000
CHURN_ENTRIES ?= 100000

TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
REPORTS := $(abspath target/reports)
VENV := target/venv
PEERS_VENV := target/venv-peers
PY := $(VENV)/bin/python
PINNED := -c python/constraints.txt
TOOLS := target/tools
WHEELS := target/wheels
# The package's profile: `release`, as users get it, or `dev`, which shares what the tests are built of (.ci/run). There is one at a time.
WHEEL ?= release
PACKAGE := $(VENV)/package$(filter-out -release,-$(WHEEL))
GRPCURL_VERSION := v1.9.3
HELM_VERSION := v3.19.2
OPERATOR_VERSION := v0.85.0
DENY_VERSION := 0.20.2
FUZZ_VERSION := 0.13.2
CYCLONEDX_VERSION := 0.5.9

PYTHON_SOURCES := $(shell find python -name '*.rs' -o -name '*.toml' -o -path 'python/package/*.py*' | grep -v __pycache__)
CLIENT_SOURCES := $(shell find proto src/client src/proto.rs build.rs Cargo.toml Cargo.lock -type f)

.PHONY: demo test ready test-binaries verify fix crash-test overload-test drain-test bench bench-index bench-kernels bench-python bench-durability bench-graph bench-growth bench-telemetry bench-peers methods soak sanitize fuzz fuzz-seeds audit sbom

# The main job on real input: trains through the service and ends with a table and a picture.
demo: $(VENV)/demo
	$(CARGO) build --release --locked --bin negbank
	cd python && ../$(PY) -m demo --server-binary $(TARGET)/release/negbank --reports $(REPORTS)

# Everything: Rust unit, property and service tests, then the Python package against the real server. What can't be tested here is told;
# with NEGBANK_REQUIRE_ALL=1 in the environment, as CI sets it, it fails.
test: $(TOOLS)/bin/grpcurl $(TOOLS)/bin/cargo-cyclonedx $(TOOLS)/bin/helm $(TOOLS)/crds $(VENV)/test
	$(CARGO) test --locked --package negbank
	cd python && NEGBANK_SERVER=$(TARGET)/debug/negbank ../$(PY) -m pytest -q -rs --no-fold-skipped

# A server that is killed while it writes and while it recovers, 200 times; writes target/reports/crash.json. CYCLES sets another number.
crash-test:
	NEGBANK_CRASH_CYCLES=$(CYCLES) NEGBANK_CRASH_REPORT=$(REPORTS)/crash.json \
		$(CARGO) test --locked --package negbank --test service -- crash::a_killed_server --nocapture

# What verify and test install and build. With --jobs side by side, as much of it is one thread, or the network. The package is built first:
# Cargo locks target/debug, and what else goes into the environment waits for it.
ready: test-binaries $(VENV)/test $(TOOLS)/bin/cargo-deny $(TOOLS)/bin/cargo-cyclonedx $(TOOLS)/bin/grpcurl $(TOOLS)/bin/helm $(TOOLS)/crds

test-binaries: | $(PACKAGE)
	$(CARGO) test --locked --package negbank --no-run

# Read-only: what CI runs before the tests. Clippy sees what only the fuzzers' build has, too.
verify: $(TOOLS)/bin/cargo-deny $(VENV)/test
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --locked --workspace --all-targets --features negbank/fuzzing -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --package negbank --lib --examples
	$(TOOLS)/bin/cargo-deny --log-level error check bans licenses sources
	$(CARGO) test --locked --package negbank --test architecture
	cd python && ../$(PY) -m ruff check . ../examples && ../$(PY) -m ruff format --check . ../examples
	cd python && ../$(PY) -m mypy && ../$(PY) -m mypy.stubtest negbank._negbank

# Changes the tree.
fix: $(VENV)/test
	$(CARGO) fmt --all
	$(CARGO) clippy --fix --allow-dirty --allow-staged --workspace --all-targets --features negbank/fuzzing
	cd python && ../$(PY) -m ruff check --fix . ../examples && ../$(PY) -m ruff format . ../examples

# Throughput and latency of the parts and of the whole; shared machines are noisy, so compare within one run.
bench: $(PACKAGE)
	$(CARGO) bench --locked --bench engine
	$(CARGO) bench --locked --bench index
	$(CARGO) bench --locked --bench service
	$(MAKE) bench-python

# Finding the nearest, beside what the machine could do at best.
bench-index:
	$(CARGO) bench --locked --bench index

# The scan's tile beside a library's, on the same rows: writes target/reports/kernels.json. It needs a C compiler and builds for minutes.
bench-kernels:
	$(CARGO) run --release --locked --manifest-path benches/numkong/Cargo.toml --target-dir target/numkong

# Ten times more than a real server can do, for SECONDS, ROUNDS (3) times; writes target/reports/overload.json and fails where it does worse
# than it promises. Then a hundred thousand tiny requests. That 0.8 of the capacity is answered is promised of the default load alone, 256 anchors a
# request and no rows. Other loads, in reports of their own, tell what they reach and are held to the rest: ANCHORS=64 has smaller requests
# and more refusals (decision 0015 has its figure), ROWS=16 answers of 2 MiB.
overload-test:
	SECONDS=$(SECONDS) ROUNDS=$(if $(filter file,$(origin ROUNDS)),3,$(ROUNDS)) ANCHORS=$(ANCHORS) ROWS=$(ROWS) $(CARGO) bench --locked --bench overload
	NEGBANK_TINY_REQUESTS=100000 $(CARGO) test --locked --package negbank --test service -- hostile::very_many --nocapture

# A server that is stopped under load, ROUNDS times; writes target/reports/drain.json.
drain-test:
	NEGBANK_DRAIN_ROUNDS=$(ROUNDS) NEGBANK_DRAIN_REPORT=$(REPORTS)/drain.json \
		$(CARGO) test --locked --package negbank --test service -- drain::a_server --nocapture

# Ten minutes of mixed load on a real server: does anything grow?
soak:
	MINUTES=$(MINUTES) $(CARGO) bench --locked --bench soak

# What reaches a Python trainer: rows a second into numpy, and what of this process's CPU a call takes.
bench-python: $(PACKAGE)
	$(CARGO) build --release --locked --bin negbank
	cd python && NEGBANK_SERVER=$(TARGET)/release/negbank ../$(PY) bench.py --reports $(REPORTS)

# What metrics, logs and traces cost sampling: four servers in turns of milliseconds, until it is known, twelve minutes at most; writes
# telemetry.json, and fails above 3 %, or where it can't be told on this machine. How: python/telemetry_bench/__main__.py.
bench-telemetry: $(VENV)/test
	$(CARGO) build --release --locked --bin negbank
	cd python && NEGBANK_SERVER=$(TARGET)/release/negbank ../$(PY) -m telemetry_bench --reports $(REPORTS)

# What durability costs on the disk below this folder; writes 130 GiB in all, and durability.json; fails below its bars. A
# quarter of an hour. GIB and ENTRIES make it smaller.
bench-durability: $(PACKAGE)
	$(CARGO) build --release --locked --bin negbank
	cd python && NEGBANK_SERVER=$(TARGET)/release/negbank ../$(PY) bench_durability.py --reports $(REPORTS) --gib $(GIB) --entries $(ENTRIES) --spool $(SPOOL)

# Large keyed banks: scan, graph and what the server chooses by size, filters, and recall and latency while rows move and graphs are
# built; writes graph.json and graph-growth.png, and fails below its bars. Ten minutes or so on two quiet cores. ENTRIES="1000000" measures
# another size, or several up to that, which takes longer; CHURN_ENTRIES is that of the bank that moves, 0: none does.
bench-graph: $(VENV)/demo
	$(CARGO) build --release --locked --bin negbank
	cd python && NEGBANK_SERVER=$(TARGET)/release/negbank ../$(PY) -m graph_bench --reports $(REPORTS) \
		--entries $(if $(filter file,$(origin ENTRIES)),10000 30000 100000,$(ENTRIES)) --churn-entries $(CHURN_ENTRIES)

# How time and memory grow from ten thousand entries to a million, and scans to ten million; writes docs/growth.md with its picture,
# and graph.json. Long: most of it builds the graph of a million.
bench-growth: $(VENV)/demo
	$(CARGO) build --release --locked --bin negbank
	cd python && NEGBANK_SERVER=$(TARGET)/release/negbank ../$(PY) -m graph_bench --reports $(REPORTS) --page ../docs/growth.md \
		--entries 10000 30000 100000 300000 1000000 --scan-entries 10000000 --churn-entries 0

# negbank beside libraries, a database and a replay server on the same data; writes docs/benchmarks.md and peers.json. Quiet, ten
# minutes or so on a machine that does nothing else. SIZES="65536" measures less.
bench-peers: $(PEERS_VENV)/ready
	$(CARGO) build --release --locked --bin negbank
	cd python && ../$(PEERS_VENV)/bin/python -m peers --server-binary $(TARGET)/release/negbank --reports $(REPORTS) --sizes $(SIZES)

# What the service does for training and costs a step; writes docs/training.md and methods.json. Half an hour on two cores.
methods: $(VENV)/demo $(VENV)/torch
	$(CARGO) build --release --locked --bin negbank
	cd python && ../$(PY) -m trials --server-binary $(TARGET)/release/negbank --reports $(REPORTS)

# The unsafe kernels under AddressSanitizer. Needs a nightly toolchain, which is why CI does not run it.
sanitize:
	RUSTFLAGS="-Zsanitizer=address" $(CARGO) +nightly test --locked --package negbank --lib \
		--target $$(rustc -vV | sed -n 's/^host: //p') kernels

# Outside input against the code that reads it (fuzz/), SECONDS each target; writes target/reports/fuzz.json. Stable Rust and a C++ compiler
# do. It begins with what the real encoders make, what it learned before (target/fuzz/corpus), and fuzz/seeds. `make test` has a short form:
# the same targets on the encoders' inputs, fuzz/seeds, and mutations of both.
fuzz: $(TOOLS)/bin/cargo-fuzz
	$(FUZZ) --seconds $(SECONDS)

# Chooses fuzz/seeds anew, 8 KiB a target: the smallest of the inputs by which all is reached that the known ones reach. An input that
# breaks a promise is added by hand, as fuzz/seeds/TARGET/found-NAME, and stays.
fuzz-seeds: $(TOOLS)/bin/cargo-fuzz
	$(FUZZ) --keep

FUZZ = $(PYTHON) fuzz/run.py --cargo-fuzz $(abspath $(TOOLS)/bin/cargo-fuzz) --work $(TARGET)/fuzz --report $(REPORTS)/fuzz.json

# The dependencies against RustSec's advisories, which are on GitHub; where that can't be reached, nothing is known and this fails.
audit: $(TOOLS)/bin/cargo-deny
	$(TOOLS)/bin/cargo-deny fetch db || { \
		echo "*** NOT AUDITED: the advisories can't be fetched (see above). Whether a dependency has a known hole is not known. ***" >&2; exit 1; }
	$(TOOLS)/bin/cargo-deny check --disable-fetch advisories

# What the binary is made of, in CycloneDX: target/sbom/negbank.cdx.json.
sbom: $(TOOLS)/bin/cargo-cyclonedx
	$(TOOLS)/bin/cargo-cyclonedx cyclonedx --quiet --format json --describe binaries --target x86_64-unknown-linux-gnu
	mkdir -p target/sbom
	mv negbank_bin.cdx.json target/sbom/negbank.cdx.json
	mv python/_negbank_cdylib.cdx.json target/sbom/negbank-python.cdx.json

# --- set-up -----------------------------------------------------------------------------------------------------------------

# Without Go neither grpcurl sessions nor the Helm chart are tested, and the tests say so, or fail (NEGBANK_REQUIRE_ALL).
$(TOOLS)/bin/grpcurl:
	$(call go_install,github.com/fullstorydev/grpcurl/cmd/grpcurl@$(GRPCURL_VERSION))

# After the other, for whom Go builds its library too.
$(TOOLS)/bin/helm: | $(TOOLS)/bin/grpcurl
	$(call go_install,helm.sh/helm/v3/cmd/helm@$(HELM_VERSION))

# What the Prometheus operator takes, from its Go module.
$(TOOLS)/crds:
	$(call with_go,folder=$$(go mod download -json github.com/prometheus-operator/prometheus-operator@$(OPERATOR_VERSION) \
			| sed -n 's/^[[:space:]]*"Dir": "\([^"]*\)".*/\1/p')/example/prometheus-operator-crd \
		&& rm -rf $@.new && mkdir -p $@.new \
		&& cat "$$folder/monitoring.coreos.com_servicemonitors.yaml" >$@.new/servicemonitors.yaml \
		&& cat "$$folder/monitoring.coreos.com_prometheusrules.yaml" >$@.new/prometheusrules.yaml \
		&& mv $@.new $@)

go_install = $(call with_go,mkdir -p $(TOOLS)/bin && GOBIN=$(abspath $(TOOLS)/bin) go install $(1))

# Does it with Go, or says what will not be tested. Go fetches a later one of itself where a tool wants that, in images that forbid it too.
define with_go
	if command -v go >/dev/null; then \
		export GOTOOLCHAIN=auto; \
		$(1); \
	else \
		echo "*** Go is missing: what needs $(@F) can not be tested. Install it (https://go.dev/dl). ***" >&2; \
		test "$$NEGBANK_REQUIRE_ALL" != 1; \
	fi
endef

# A tool run once a day need not be optimised: this halves its build.
define cargo_install
	CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
		$(CARGO) install --locked --root $(TOOLS) $(1)
endef

$(TOOLS)/bin/cargo-deny:
	$(call cargo_install,--no-default-features cargo-deny@$(DENY_VERSION))

$(TOOLS)/bin/cargo-fuzz:
	$(call cargo_install,cargo-fuzz@$(FUZZ_VERSION))

$(TOOLS)/bin/cargo-cyclonedx:
	$(call cargo_install,cargo-cyclonedx@$(CYCLONEDX_VERSION))

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("the demo and the tests need Python 3.11 or later: set PYTHON")'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip

$(PACKAGE): $(VENV)/bin/python $(PYTHON_SOURCES) $(CLIENT_SOURCES)
	$(PY) -m pip install --quiet $(PINNED) -r python/requirements-build.txt
	rm -rf $(WHEELS)
	cd python && ../$(VENV)/bin/maturin build --profile $(WHEEL) --quiet --locked --out ../$(WHEELS)
	$(PY) -m pip install --quiet --force-reinstall --no-deps $(WHEELS)/negbank-*.whl
	$(PY) -m pip install --quiet $(PINNED) 'numpy>=1.24'
	rm -f $(VENV)/package*
	touch $@

$(VENV)/demo: $(PACKAGE) python/demo/requirements.txt
	$(PY) -m pip install --quiet $(PINNED) -r python/demo/requirements.txt
	touch $@

# Apart from the other one: Reverb wants the numpy of its day.
$(PEERS_VENV)/ready: $(PACKAGE) python/peers/requirements.txt
	$(PYTHON) -m venv $(PEERS_VENV)
	$(PEERS_VENV)/bin/python -m pip install --quiet -r python/peers/requirements.txt
	$(PEERS_VENV)/bin/python -m pip install --quiet --force-reinstall --no-deps $(WHEELS)/negbank-*.whl
	touch $@

# 540 MB: the tests of tensors want the real thing. After the package, as two of pip must not write to one environment at once.
$(VENV)/torch: $(VENV)/bin/python python/install_torch.py | $(PACKAGE)
	$(PY) python/install_torch.py
	touch $@

$(VENV)/test: $(PACKAGE) $(VENV)/torch python/constraints.txt python/requirements-test.txt python/requirements-alone.txt python/demo/requirements.txt
	$(PY) -m pip install --quiet $(PINNED) -r python/requirements-test.txt -r python/demo/requirements.txt
	$(PY) -m pip install --quiet --no-deps -r python/requirements-alone.txt
	touch $@
