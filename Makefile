# make demo   set up, then learn a profile from 40 emails and answer with it: about three minutes
# make test   set up, then run the whole test suite
# make test-native  the C++ tests of native/, which need CMake and doctest (Debian: doctest-dev)
# make sanitize  the tests of the native layer under AddressSanitizer and UBSan
# make sanitize-threads  those that use threads under ThreadSanitizer
# make device  the tests of device memory, over llama.cpp's RPC backend: no GPU is needed
# make bench   what it costs, against llama.cpp itself; MODELS='a.gguf b.gguf' for other models
# make bench-repeng  against repeng, which needs PyTorch: an environment of its own, 3 GB
# make mutants  break the package on purpose, 80 times, and see that tests notice; in a copy of the
#             tree, 15 minutes. MUTANTS='--native' also compiles breaks, MUTANTS='-k gate' chooses
# make lint   ruff, mypy (of all Python, and of a program that uses the package), import-linter,
#             clang-format
# make docs   generate the page of commands, and build the documentation in build/site
# make schema write the JSON Schema of the profile, from the structs that describe it
# make format apply ruff's and clang-format's formatting
# make release check, tag and push the version in pyproject.toml; the tag is built and published

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := build/demo
NATIVE := $(wildcard native/*.cpp native/*.hpp)
CPP := $(NATIVE) $(wildcard native/tests/*.cpp)
NATIVE_TESTS := tests/native $(addprefix tests/llamacpp/test_,analysis.py architectures.py \
	interventions.py lifetimes.py real_models.py run_many.py threads.py)
THREADED_TESTS := tests/llamacpp/test_threads.py tests/native/test_token_scores.py \
	tests/native/test_residual_hooks.py
# Checked from outside the source tree, as another program's code, to show that py.typed works.
CLIENT := tests/typed/client.py
comma := ,
BUILT_FROM := pyproject.toml CMakeLists.txt $(NATIVE)

# The first time, llama-cpp-python is built from source; without image support that takes 5 minutes on
# two cores instead of 9. pip caches the result.
# With GCC 12, llama.cpp's AMX code crashes at the first prompt, so it is left out on processors with
# AMX. With clang 16 it works and is faster:
# make demo CC=clang-16 CXX=clang++-16 CMAKE_ARGS=-DLLAVA_BUILD=OFF
NO_AMX := $(if $(shell grep -s amx_int8 /proc/cpuinfo),-DCMAKE_C_FLAGS=-mno-amx-int8 -DCMAKE_CXX_FLAGS=-mno-amx-int8)
export CMAKE_ARGS ?= -DLLAVA_BUILD=OFF $(NO_AMX)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-native mutants sanitize sanitize-threads device bench bench-repeng lint docs schema format release clean

demo: $(VENV)/demo
	@mkdir -p $(DEMO)
	@echo
	@echo '== Learning from 40 emails and notes by Mo, an invented person: about two minutes'
	$(BIN)/steerx-edge learn docs/demo/history.jsonl -o $(DEMO)/me.json
	@echo
	@echo '== How much more probable the profile makes three held-out emails'
	$(BIN)/python benchmarks/profile_gain.py docs/demo/held_out.jsonl --profile $(DEMO)/me.json
	@echo
	@echo '== Four requests, answered without and with the profile.'
	@echo '== The last one is not an email, so its two answers must be the same.'
	@while read -r request; do \
		echo; \
		echo "$$request"; \
		$(BIN)/steerx-edge generate --profile $(DEMO)/me.json --compare --temp 0 -n 60 \
			-p "$$request" < /dev/null || exit 1; \
	done < docs/demo/requests.txt

# A process for each core, each with threads of llama.cpp that do not spin while they wait.
test: $(VENV)/dev
	OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=1000 $(BIN)/python -m pytest -n auto

mutants: $(VENV)/dev
	$(BIN)/python tests/mutations/run.py $(MUTANTS)

# Under the sanitizers too: they see all of it, as no Python is loaded.
test-native:
	cmake -S . -B build/native-tests -DSTEERX_TESTS=ON -DSTEERX_WERROR=ON \
		-DSTEERX_SANITIZE='address$(comma)undefined'
	cmake --build build/native-tests --target native_tests
	build/native-tests/native_tests

# A build of its own, in an environment of its own; Python itself leaks on purpose.
sanitize:
	$(MAKE) VENV=$(VENV)-sanitize $(VENV)-sanitize/dev \
		SKBUILD_CMAKE_DEFINE='STEERX_SANITIZE=address$(comma)undefined'
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" \
		ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc \
		$(VENV)-sanitize/bin/python -m pytest $(NATIVE_TESTS)

# A separate build that bypasses pip's cache, because pip identifies a build by its source, not by
# CMAKE_ARGS.
device:
	$(MAKE) VENV=$(VENV)-device $(VENV)-device/dev \
		CMAKE_ARGS='$(CMAKE_ARGS) -DGGML_RPC=on' PIP_NO_CACHE_DIR=1
	$(VENV)-device/bin/python -c 'import llama_cpp; assert llama_cpp.llama_supports_rpc()'
	$(VENV)-device/bin/python -m pytest -m device

# Python and llama.cpp are not instrumented, so only native/ is checked. Address randomization is off
# where that is allowed, because older ThreadSanitizers do not start with much of it.
sanitize-threads:
	$(MAKE) VENV=$(VENV)-threads $(VENV)-threads/dev SKBUILD_CMAKE_DEFINE='STEERX_SANITIZE=thread'
	LD_PRELOAD="$$($(CXX) -print-file-name=libtsan.so)" \
		TSAN_OPTIONS=suppressions=tests/tsan.supp \
		$$(setarch -R true 2>/dev/null && echo setarch -R) \
		$(VENV)-threads/bin/python -m pytest --capture=sys $(THREADED_TESTS)

bench: $(VENV)/dev
	$(BIN)/python benchmarks/performance.py $(MODELS:%=-m %)
	$(BIN)/python benchmarks/learn_cost.py docs/demo/history.jsonl $(MODELS:%=-m %)
	$(BIN)/python benchmarks/start_up.py

bench-repeng: $(VENV)/dev
	test -d $(VENV)-repeng || $(PYTHON) -m venv $(VENV)-repeng
	$(VENV)-repeng/bin/pip install --quiet 'repeng==0.4.0' accelerate 'gguf>=0.17,<0.20'
	$(BIN)/python benchmarks/against_repeng.py --repeng-python $(VENV)-repeng/bin/python

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd / && $(abspath $(BIN))/mypy --strict --config-file= --cache-dir=$(CURDIR)/.mypy_cache/client $(CURDIR)/$(CLIENT)
	$(BIN)/lint-imports
	$(BIN)/clang-format --dry-run -Werror $(CPP)

# Not with --quiet, which hides the warnings that --strict counts.
docs: $(VENV)/dev
	$(BIN)/python -m docs.tools.generate_cli
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

schema: $(VENV)/dev
	@mkdir -p build
	$(BIN)/python -c "from steerx_edge.profile.json_format import json_schema; \
		print(json_schema(), end='')" > build/profile.schema.json
	mv build/profile.schema.json steerx_edge/profile/profile.schema.json

format: $(VENV)/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP)

release:
	.ci/release

clean:
	rm -rf build $(VENV) $(VENV)-sanitize $(VENV)-threads $(VENV)-device $(VENV)-repeng

$(VENV)/llama: pyproject.toml
	@echo '== Setting up $(VENV). The first time, building llama.cpp takes 5 minutes on two cores'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install $$($(PYTHON) -c "import re; \
		print(re.search(r'\"(llama-cpp-python[^\"]*)\"', open('pyproject.toml').read())[1])")
	@touch $@

$(VENV)/demo $(VENV)/dev: $(VENV)/%: $(VENV)/llama $(BUILT_FROM)
	@echo '== Installing steerx-edge and its dependencies'
	$(BIN)/pip install --quiet --editable '.[$*]'
	@touch $@
