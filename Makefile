# One word per task; every option lives in pyproject.toml.
.POSIX:
.SUFFIXES:

PYTHON ?= python3
VENV = .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check --quiet

# A container's image often sets it, and then each of the hundreds of processes of the tests
# compiles the package for itself: a quarter of its start.
PYTHONDONTWRITEBYTECODE =

.PHONY: run test image-test check collect fix lint types docs bench bench-smoke wheel lock clean help

help: ## list the tasks
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile

run: $(VENV)/run ## serve on :11434, with the embedded backend
	env OLLAMA_PROXY_DEFAULT_BACKEND=local $(BIN)/ollama-proxy serve

test: $(VENV)/dev ## run every test, by more workers than processors: many tests wait
	$(TESTS)

TESTS = $(BIN)/python -m pytest --numprocesses=5 --dist=worksteal

image-test: $(VENV)/dev ## build both images and run them, as root on Debian; a few minutes
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! [ -d /run/systemd/system ] \
		&& ! (set -e; for tool in $(IMAGE_TOOLS); do command -v $$tool >/dev/null; done); then \
		(apt-get -qq update && apt-get -qq install -y --no-install-recommends $(IMAGE_TOOLS)) >/dev/null \
		|| echo "image-test: $(IMAGE_TOOLS) can't be installed"; fi
	$(BIN)/python -m pytest tests/image

check: $(VENV)/dev ## format, lint, imports, types, then every test with branch coverage
	$(MAKE) -j2 lint types collect
	$(TESTS) --cov --cov-report=

# The types take one processor. The other one compiles the tests meanwhile, which from an
# empty cache each worker would do for itself: 5 s of the processor, five times.
collect: $(VENV)/dev
	@$(BIN)/python -m pytest --collect-only --quiet >/dev/null || true   # the tests tell

lint: $(VENV)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell .
	$(BIN)/lint-imports --no-cache
	$(BIN)/hadolint Dockerfile cloud-init/container/Dockerfile

types: $(VENV)/dev
	$(BIN)/mypy

fix: $(VENV)/dev ## format, and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/dev ## write the tables of settings into the pages
	$(BIN)/python -m ollama_proxy.config.docs

bench: $(VENV)/bench ## measure beside nginx, haproxy and others; writes bench/results
	$(BIN)/python -m bench

bench-smoke: $(VENV)/dev ## a little of it, for correctness
	$(BIN)/python -m bench --smoke

wheel: $(VENV)/dev ## build the wheel into dist/
	$(BIN)/python -m hatchling build

TOOLS = caddy cloud-init   # Debian packages, installed by root in a container only
BENCH_TOOLS = nginx-light haproxy
IMAGE_TOOLS = buildah caddy crun debootstrap

COMPILE = $(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes \
	--no-emit-index-url --python-version 3.11 --custom-compile-command 'make lock'

lock: $(VENV)/dev ## bring the locked dependencies up to date
	$(COMPILE) --extra exoscale --extra fly --extra ovh --output-file requirements/run.lock pyproject.toml
	$(COMPILE) --constraint requirements/run.lock \
		--output-file requirements/build.lock requirements/build.in
	$(COMPILE) --constraint requirements/run.lock \
		--output-file requirements/source.lock requirements/source.in
	$(COMPILE) --constraint requirements/run.lock --constraint requirements/build.lock \
		--group dev --output-file requirements/dev.lock pyproject.toml
	$(COMPILE) --constraint requirements/run.lock --constraint requirements/build.lock \
		--constraint requirements/dev.lock \
		--group bench --output-file requirements/bench.lock pyproject.toml

$(VENV)/run: requirements/run.lock requirements/build.lock requirements/source.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	@echo "what is needed is installed into $(VENV), once: a minute or two"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --require-hashes --requirement requirements/build.lock
	$(PIP) install --require-hashes --no-deps --no-build-isolation --use-pep517 --requirement requirements/source.lock
	$(PIP) install --require-hashes --requirement requirements/run.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev: $(VENV)/packages $(VENV)/tools $(VENV)/js
	@touch $@

# They wait for the network most of the time: with --jobs at once.
$(VENV)/packages: $(VENV)/run requirements/dev.lock
	$(PIP) install --require-hashes --requirement requirements/dev.lock
	@touch $@

$(VENV)/tools:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! [ -d /run/systemd/system ]; then \
		(apt-get -qq update && apt-get -qq install -y --no-install-recommends $(TOOLS)) >/dev/null \
		|| echo "no $(TOOLS): the tests with them will be skipped"; fi
	@mkdir -p $(VENV) && touch $@

$(VENV)/js: tests/js/package-lock.json
	@if command -v npm >/dev/null; then npm ci --prefix tests/js --no-audit --no-fund --loglevel=error; \
		else echo "no npm: the tests of ollama-js will be skipped"; fi
	@mkdir -p $(VENV) && touch $@

$(VENV)/bench: requirements/bench.lock $(VENV)/dev
	$(PIP) install --require-hashes --requirement requirements/bench.lock
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! [ -d /run/systemd/system ]; then \
		(apt-get -qq update && apt-get -qq install -y --no-install-recommends $(BENCH_TOOLS)) >/dev/null \
		|| echo "no $(BENCH_TOOLS): they will not be measured"; fi
	@touch $@

clean: ## remove what the tasks made
	rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis tests/js/node_modules
