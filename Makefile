# Every target works on a fresh machine: it installs what it needs first.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
APT = gcc libc6-dev clang clang-format libclang-rt-14-dev gcc-aarch64-linux-gnu libc6-dev-arm64-cross \
      git sqlite3 libseccomp2 golang-github-containers-common python3-venv squashfs-tools e2fsprogs apparmor strace
SOURCES = $(wildcard _native/*.c _native/*.h _native/*.py)

.PHONY: demo test check test-pure test-host test-pythons test-unprivileged fuzz bench format clean native-check
.PHONY: test-vm
.PHONY: test-nested

$(VENV)/done: setup.cfg setup.py pyproject.toml $(SOURCES)
	@tools/apt $(APT)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check --upgrade pip setuptools wheel
	$(BIN)/pip install -q --disable-pip-version-check -e '.[test,dev]'
	touch $@

demo: $(VENV)/done
	$(BIN)/python examples/demo.py

check: $(VENV)/done native-check
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/pure

test: $(VENV)/done
	$(BIN)/pytest tests

test-pythons:
	tools/pythons

test-unprivileged:
	tools/unprivileged

# cgroup v2 and AppArmor, under a Debian kernel in qemu: as root and as an ordinary user.
test-vm:
	tools/vm/run
# Inside containers (crun, with Docker's filter and masks) and inside bwrap.
test-nested:
	tools/nested/leg

# The C part: warnings are errors; child code calls nothing; the other architecture builds.
native-check: $(VENV)/done
	$(BIN)/python tools/native_check.py

fuzz: $(VENV)/done
	@tools/apt $(APT)
	PYTHON=$(BIN)/python tools/fuzz

format:
	$(BIN)/ruff check --fix isolate tests _native examples setup.py
	clang-format -i _native/*.c _native/*.h

clean:
	rm -rf $(VENV) build dist *.egg-info isolate/_native.* isolate/_libexec/isolate-init

# The documentation as HTML, in build/docs; a warning is an error.
.PHONY: docs
docs: $(VENV)/done
	$(BIN)/pip install -q --disable-pip-version-check -e '.[docs]'
	$(BIN)/sphinx-build -q -E -W --keep-going -b html docs build/docs
	@echo "build/docs/index.html"

# What a launch costs. CASE=NAME for one question; see bench/README.md.
BENCH_APT = bubblewrap crun runc firejail util-linux strace valgrind
.PHONY: bench-full bench-check bench-profile
$(VENV)/bench: $(VENV)/done
	@tools/apt $(BENCH_APT)
	$(BIN)/pip install -q --disable-pip-version-check -e '.[bench]'
	touch $@

bench: $(VENV)/bench
	$(BIN)/python -m bench $(if $(CASE),--case $(CASE)) $(BENCH)

bench-full: $(VENV)/bench
	@mkdir -p build/bench
	$(BIN)/python -m bench --full --json build/bench/full.json --svg build/bench/plots $(BENCH)

# Counts against bench/ceilings.toml; BENCH=--update writes what is counted now.
bench-check: $(VENV)/done
	@tools/apt strace valgrind
	$(BIN)/python -m bench.check $(BENCH)

# Where the last microseconds go.
bench-profile: $(VENV)/bench
	$(BIN)/python -m bench.profile $(BENCH)

# What a filter costs: ours against libseccomp's list and tree, and none.
.PHONY: bench-seccomp
bench-seccomp: $(VENV)/done
	$(BIN)/python -m bench.seccomp_cost $(BENCH)
