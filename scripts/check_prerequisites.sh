#!/bin/sh
# Find what has to be on the machine before anything can be installed. Prints the Python to use (3.11 or 3.12, with the
# venv module), and nothing else, on standard output. Where something is missing: one sentence says what to install.
#   usage: scripts/check_prerequisites.sh [PYTHON]
set -eu

missing() {
    echo "llamo_ros: $1" >&2
    exit 1
}

# Ask Python itself: a command of that name may be a stub that only says it is not installed.
supported() {
    "$1" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' >/dev/null 2>&1
}

python=""
if [ -n "${1:-}" ]; then
    supported "$1" || missing "'$1' is not Python 3.11 or 3.12: give another one with PYTHON=/path/to/python3.12."
    python=$1
else
    for candidate in python3.12 python3.11 python3 python; do
        if supported "$candidate"; then
            python=$candidate
            break
        fi
    done
    [ -n "$python" ] || missing "Python 3.11 or 3.12 is missing: install one, for example 'sudo apt install python3.12 python3.12-venv', or give its path with PYTHON=."
fi

# venv alone is not enough: Debian ships it without ensurepip, and it then fails half way.
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
"$python" -c 'import venv, ensurepip' >/dev/null 2>&1 ||
    missing "Python's venv module is missing: install it, for example 'sudo apt install python$version-venv'."

command -v cmake >/dev/null 2>&1 ||
    missing "CMake is missing: install version 3.19 or newer, for example 'sudo apt install cmake'."
cmake_version=$(cmake --version 2>/dev/null | sed -n '1s/[^0-9]*\([0-9]*\.[0-9]*\).*/\1/p')
case $cmake_version in
    [0-2].* | 3.[0-9] | 3.1[0-8]) missing "CMake $cmake_version is too old: install version 3.19 or newer, for example with 'pip install cmake'." ;;
esac

# What CMake will use: $CC and $CXX, or the usual names.
cc=${CC:-}
[ -n "$cc" ] || for candidate in cc gcc clang; do command -v $candidate >/dev/null 2>&1 && cc=$candidate && break; done
cxx=${CXX:-}
[ -n "$cxx" ] || for candidate in c++ g++ clang++; do command -v $candidate >/dev/null 2>&1 && cxx=$candidate && break; done
if [ -z "$cc" ] || [ -z "$cxx" ]; then
    missing "a C++ compiler is missing: install one, for example 'sudo apt install build-essential'."
fi
echo 'static_assert(__cplusplus >= 201703L); int main() { return 0; }' | $cxx -std=c++17 -x c++ -fsyntax-only - >/dev/null 2>&1 ||
    missing "the C++ compiler '$cxx' cannot compile C++17: install a newer one, for example 'sudo apt install build-essential'."

# pybind11 and the interfaces are compiled against Python's C headers.
include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
[ -f "$include/Python.h" ] ||
    missing "Python's C headers are missing: install them, for example 'sudo apt install python$version-dev'."

echo "$python"
