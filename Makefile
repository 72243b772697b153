# Meson and ninja do the work; this file says what to do with them. `make help` lists the targets.

BUILD ?= build
SANITIZE_BUILD ?= $(BUILD)-sanitize
# Two at a time unless told otherwise: `make JOBS=8`.
JOBS ?= $(shell nproc)
PYTHON = /usr/bin/python3
export HOLDFAST_BUILD = $(abspath $(BUILD))

.PHONY: build deps run test test-clients test-pods test-regress image test-sanitize test-threads test-valgrind bench soak fuzz clean help

# Headers of a server that came after the setup (make deps): set up again, for the guard.
build: $(BUILD)/build.ninja
	@grep -q holdfast_guard_ $< || ! ls /usr/include/postgresql/*/server/postgres.h >/dev/null 2>&1 || \
	    meson setup --reconfigure $(BUILD)
	@ninja -C $(BUILD) -j $(JOBS)

$(BUILD)/build.ninja:
	@meson setup $(BUILD)

help:
	@echo "make                build $(BUILD)/holdfast"
	@echo "make run            install what is missing, build, start three nodes, show them at work"
	@echo "make test           install what is missing, build, run every test"
	@echo "make test-sanitize  every test again, under the address and undefined-behaviour sanitizers"
	@echo "make test-threads   unit tests and some cluster tests under the thread sanitizer"
	@echo "make test-valgrind  unit tests and some cluster tests under valgrind"
	@echo "make test-clients   real clients, those too that need a JDK, Go or packages of npm"
	@echo "make image          a container image, without a container engine: $(BUILD)/holdfast-image.tar"
	@echo "make test-pods      the image as the pods of a StatefulSet, on this machine; needs root"
	@echo "make test-regress   PostgreSQL's own tests, through the router and without; 20 minutes"
	@echo "make bench          failover, creation, steady-state and router measurements"
	@echo "make soak           the long tests and random faults, with fresh seeds, until one fails"
	@echo "make fuzz           fuzzers, a minute each"
	@echo "make deps           install Debian's packages that are missing"
	@echo "make clean          remove what was built"

deps:
	@scripts/deps

run: deps
	@$(MAKE) --no-print-directory build
	@scripts/demo $(BUILD)/holdfast

test: deps
	@$(MAKE) --no-print-directory build
	@scripts/test $(BUILD)

# The same tests, in a build of their own; waiting times are stretched, results are not. The fault laboratory preloads a library before
# the sanitizer's; and a cancelled thread's stack is not poisoned, whatever gcc 12's says at its end.
test-sanitize: deps
	@test -f $(SANITIZE_BUILD)/build.ninja || meson setup $(SANITIZE_BUILD) -Db_sanitize=address,undefined \
	    -Db_lundef=false
	@ninja -C $(SANITIZE_BUILD) -j $(JOBS)
	@ASAN_OPTIONS=abort_on_error=1:detect_leaks=0:verify_asan_link_order=0:use_sigaltstack=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	    HOLDFAST_TEST_PATIENCE=4 HOLDFAST_BUILD=$(abspath $(SANITIZE_BUILD)) scripts/test $(SANITIZE_BUILD)

# Slow, and only for what threads share: docs/safety.md
test-threads: deps
	@test -f $(BUILD)-threads/build.ninja || meson setup $(BUILD)-threads -Db_sanitize=thread -Db_lundef=false
	@ninja -C $(BUILD)-threads -j $(JOBS)
	@scripts/threads $(BUILD)-threads

test-valgrind: deps
	@scripts/deps valgrind
	@$(MAKE) --no-print-directory build
	@scripts/valgrind $(BUILD)

# docs/image.md
image: deps
	@$(MAKE) --no-print-directory build
	@deploy/image/build $(BUILD) $(BUILD)

test-pods: deps
	@scripts/deps
	@$(MAKE) --no-print-directory build
	@test/pods/run

# What `make test` has, and the heavy ones. npm's packages go into the build directory.
test-clients: deps
	@scripts/deps default-jdk-headless libpostgresql-jdbc-java golang-go golang-github-lib-pq-dev
	@command -v npm >/dev/null || scripts/deps nodejs npm
	@$(MAKE) --no-print-directory build
	@mkdir -p $(BUILD)/clients && cp test/clients/programs/node/package.json $(BUILD)/clients/
	@cd $(BUILD)/clients && npm install --no-audit --no-fund --no-package-lock --ignore-scripts --silent
	@HOLDFAST_HAND_OVERS=7 HOLDFAST_KILLS=20 test/clients/run -m ''

# Sources come from Debian's source package, into the build directory: docs/regression.md
test-regress: deps
	@$(MAKE) --no-print-directory build
	@test/regress/run

bench: deps
	@$(MAKE) --no-print-directory build
	@scripts/deps libevent-2.1-7 libc-ares2
	@scripts/each bench/create bench/failover bench/steady bench/router

soak: deps
	@$(MAKE) --no-print-directory build
	@scripts/soak $(BUILD)

fuzz: deps
	@scripts/fuzz

clean:
	rm -rf $(BUILD) $(SANITIZE_BUILD) build-fuzz
