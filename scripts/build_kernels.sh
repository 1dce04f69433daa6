#!/bin/sh
# Compile the kernels of this checkout into llamo_ros/, without CMake and ROS 2: for machines where nothing can be
# installed. Needs a C++17 compiler, Python's headers, and pybind11 or PyTorch, which brings its headers along.
#   usage: scripts/build_kernels.sh [PYTHON]
# Where something can be installed, `pip install .` does this and more.
set -eu
cd "$(dirname "$0")/.."
python=${1:-python3}
compiler=${CXX:-g++}
command -v "$compiler" >/dev/null || {
    echo "build_kernels.sh: there is no C++ compiler '$compiler'. Set CXX to one." >&2
    exit 1
}

paths=$("$python" - <<'TEXT'
import importlib.util, pathlib, sysconfig
found = importlib.util.find_spec("pybind11")
if found:
    import pybind11
    headers = pybind11.get_include()
else:
    headers = pathlib.Path(importlib.util.find_spec("torch").origin).parent / "include"
print(headers, sysconfig.get_paths()["include"], sysconfig.get_config_var("EXT_SUFFIX"), sep="\n")
TEXT
)
headers=$(echo "$paths" | sed -n 1p)
python_headers=$(echo "$paths" | sed -n 2p)
suffix=$(echo "$paths" | sed -n 3p)

objects=build/gpu/kernels
rm -rf "$objects" && mkdir -p "$objects"
"$python" - >"$objects/module.cpp" <<'TEXT'
import pathlib
names = sorted(path.parent.name for path in pathlib.Path("kernels").glob("*/cpu_kernel.cpp"))
text = pathlib.Path("cmake/kernels.cpp.in").read_text()  # as cmake/kernels.cmake fills it
text = text.replace("@KERNEL_DECLARATIONS@", "".join(f"void register_{name}(pybind11::module_& m);\n" for name in names))
print(text.replace("@KERNEL_REGISTRATIONS@", "".join(f"  register_{name}(m);\n" for name in names)))
TEXT

jobs=''
for source in "$objects/module.cpp" kernels/*/cpu_kernel.cpp kernels/common/*.cpp; do
    object="$objects/$(echo "$source" | tr / _).o"
    "$compiler" -std=c++17 -O3 -DNDEBUG -w -fPIC -fvisibility=hidden -Ikernels/common \
        -I"$headers" -I"$python_headers" -c "$source" -o "$object" &
    jobs="$jobs $!"
done
for job in $jobs; do wait "$job"; done
"$compiler" -shared -pthread "$objects"/*.o -o "llamo_ros/.kernels.new"
mv llamo_ros/.kernels.new "llamo_ros/_kernels$suffix" # replaced, never overwritten: a process may have it mapped
echo "built llamo_ros/_kernels$suffix"
