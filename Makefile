# Plain sh, and nothing that BSD make or GNU make 3.81 (macOS) lacks. Once set up, only `lock` and `image-check`
# need a network, and the first `test`, which fetches the npm SDKs where there is a Node to run them.

ARGS   =
JOBS   = auto
VENV   = .venv
PIP    = $(VENV)/bin/python -m pip --disable-pip-version-check --no-input -q
LOCKED = --no-deps --require-hashes

.PHONY: help run test check venv lock image-check dist clean

help: ## what is here
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "ARGS='…' is passed on by run and test; PYTHON=… names the Python that makes $(VENV);"
	@echo "JOBS=0 runs the tests one after the other."

run: $(VENV)/.installed ## run keyproxy here: `dev` with a key, `demo` without one
	@exec $(VENV)/bin/keyproxy dev --or-demo $(ARGS)

test: $(VENV)/.dev ## run the tests
	$(VENV)/bin/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(VENV)/.dev ## all that CI asks for: linters, types, tests
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/hadolint Dockerfile
	@$(MAKE) test

venv: $(VENV)/.dev ## set up .venv for work on keyproxy
	@$(VENV)/bin/python -c 'import platform; print("$(VENV) is ready: Python", platform.python_version())'

lock: ## look up the newest allowed versions and write requirements/*.txt
	@sh scripts/lock

image-check: ## build the image and try it, with Docker, Podman, or as root buildah
	@bash scripts/image-check

dist: $(VENV)/.dev ## build wheel and sdist into dist/
	@$(VENV)/bin/python -m hatchling build -d dist

clean: ## remove what make made
	rm -rf $(VENV) dist build .hypothesis .mypy_cache .pytest_cache .ruff_cache \
	    tests/sdk/node_modules
	find keyproxy scripts tests -name __pycache__ -type d -prune -exec rm -rf '{}' +

# A lock that changed means a new environment, so that nothing stays in it that is no longer locked.
$(VENV)/.locked: requirements/run.txt requirements/build.txt
	@python=$$(PYTHON='$(PYTHON)' sh scripts/find-python) || exit 1; \
	    echo "Setting up $(VENV) with $$python …"; \
	    "$$python" -m venv --clear $(VENV)
	@$(PIP) install $(LOCKED) -r requirements/run.txt -r requirements/build.txt
	@touch $@

$(VENV)/.installed: $(VENV)/.locked pyproject.toml keyproxy/__init__.py
	@$(PIP) install --no-deps --no-build-isolation --no-index -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.installed requirements/dev.txt
	@$(PIP) install $(LOCKED) -r requirements/dev.txt
	@touch $@
