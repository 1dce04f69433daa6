"""The compiled modules for aarch64, which robots carry: every source compiles there, and its hot loops become NEON.

Zig's Clang is the cross-compiler, because pip installs it (requirements/test.txt). Python's and ROS 2's headers are
those of this machine: they describe the same word sizes. Nothing is linked or run.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("ziglang", reason="the cross-compiler is not here: pip install -r requirements/test.txt")

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(path.relative_to(ROOT) for path in ROOT.glob("kernels/*/*.cpp"))
NODES = sorted(path.relative_to(ROOT) for path in ROOT.glob("llamo_ros/nodes/*.cpp"))

Compile = Callable[..., str]


def flags_of_the_build() -> list[str]:
    """What CMake passes for the kernels."""
    standard = re.search(r"CMAKE_CXX_STANDARD (\d+)", (ROOT / "CMakeLists.txt").read_text(encoding="utf-8"))
    options = re.search(
        r"target_compile_options\(_kernels PRIVATE (.*)\)", (ROOT / "cmake/kernels.cmake").read_text(encoding="utf-8")
    )
    return [f"-std=c++{standard[1]}", *options[1].split()]


@pytest.fixture(scope="session")
def compile_for_aarch64(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """A function ``(source, *flags)`` that compiles as the build does and returns what the compiler objects to.

    Warnings are errors; what is only printed, as of a target that is not known, is an objection too.
    """
    pybind11 = pytest.importorskip("pybind11", reason="building needs it: pip install -r requirements/ros.txt")
    system = [pybind11.get_include(), sysconfig.get_path("include")]
    for prefix in (*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix):  # ROS 2, sourced or by pip
        system += sorted(map(str, Path(prefix, "include").glob("*/")))
    cache = str(tmp_path_factory.mktemp("zig"))

    def compile_source(source: Path, *flags: str) -> str:
        command = [sys.executable, "-m", "ziglang", "c++", "-target", "aarch64-linux-gnu", *flags_of_the_build()]
        command += ["-Werror", "-Wno-unused-command-line-argument"]  # zig passes some that -S has no use for
        command += ["-fPIC", "-fvisibility=hidden", "-g0", "-I", str(ROOT / "kernels/common")]
        for directory in system:
            command += ["-isystem", directory]
        result = subprocess.run(
            [*command, *flags, str(source)],
            cwd=ROOT,
            env={**os.environ, "ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache},
            capture_output=True,
            text=True,
            timeout=240,
        )
        return result.stderr or ("" if result.returncode == 0 else f"exit status {result.returncode}")

    return compile_source


def inner_loops(assembly: str, function: str) -> list[list[str]]:
    """Instructions of each block of `function` that ends in a jump to its own beginning."""
    body = re.search(rf"^_Z\w*{function}\w*:(.*?)^\.Lfunc_end", assembly, re.DOTALL | re.MULTILINE)[1]
    loops = []
    for label, block in re.findall(r"^(\.LBB\w+):(.*?)(?=^\.LBB|\Z)", body, re.DOTALL | re.MULTILINE):
        lines = [line.strip() for line in block.splitlines()]
        ends = [i for i, line in enumerate(lines) if line.startswith("b") and line.split()[-1] == label]
        if ends:
            loops.append([line for line in lines[: ends[0]] if line and not line.startswith(("//", "."))])
    return loops


@pytest.mark.parametrize("source", SOURCES + NODES, ids=str)
def test_every_source_compiles_for_aarch64_without_a_warning(
    compile_for_aarch64: Compile, tmp_path: Path, source: Path
) -> None:
    # -O1 behind the -O3 of the build: Clang warns the same, in half the time
    assert compile_for_aarch64(source, "-O1", "-c", "-o", str(tmp_path / "object.o")) == ""
    machine = int.from_bytes((tmp_path / "object.o").read_bytes()[18:20], "little")
    assert machine == 183  # EM_AARCH64


@pytest.mark.parametrize(
    "code",
    [
        "#include <immintrin.h>\n__m128 zero() { return _mm_setzero_ps(); }",
        '__attribute__((target("avx2"))) void wide() {}',
        "void warned() { int unused; }",
    ],
    ids=["intrinsics", "target", "warning"],
)
def test_x86_code_outside_its_guard_and_warnings_are_refused(
    compile_for_aarch64: Compile, tmp_path: Path, code: str
) -> None:
    source = tmp_path / "source.cpp"
    source.write_text(f'#include "memory.hpp"\n{code}\n', encoding="utf-8")
    assert compile_for_aarch64(source, "-c", "-o", str(tmp_path / "object.o")) != ""
    source.write_text(f'#include "memory.hpp"\n#if defined(LLAMO_X86)\n{code}\n#endif\n', encoding="utf-8")
    assert compile_for_aarch64(source, "-c", "-o", str(tmp_path / "object.o")) == ""


# By precision, the instruction that adds products to four sums.
HOT_LOOPS = {
    "multiply_float_portable": r"fmla\s+v\d+\.4s",
    "multiply_pairs_portable": r"fmla\s+v\d+\.4s",
    "multiply_int8_portable": r"saddw2?\s+v\d+\.4s",
}


def test_the_inner_loop_of_a_linear_layer_is_neon_in_every_precision(
    compile_for_aarch64: Compile, tmp_path: Path
) -> None:
    assert compile_for_aarch64(Path("kernels/common/linear.cpp"), "-S", "-o", str(tmp_path / "linear.s")) == ""
    assembly = (tmp_path / "linear.s").read_text(encoding="utf-8")
    for function, instruction in HOT_LOOPS.items():
        # A panel of 32 outputs is 8 registers of sums; a store in the loop would mean that they do not stay there.
        vectorised = [
            loop
            for loop in inner_loops(assembly, function)
            if sum(re.match(instruction, line) is not None for line in loop) >= 8
            and not any(line.startswith("st") for line in loop)
        ]
        assert vectorised, f"no loop of {function} adds to eight registers"


def test_a_loop_that_is_not_vectorised_is_noticed(compile_for_aarch64: Compile, tmp_path: Path) -> None:
    assembly = tmp_path / "linear.s"
    scalar = ("-fno-vectorize", "-fno-slp-vectorize")
    assert compile_for_aarch64(Path("kernels/common/linear.cpp"), *scalar, "-S", "-o", str(assembly)) == ""
    loops = inner_loops(assembly.read_text(encoding="utf-8"), "multiply_float_portable")
    assert loops and not any(re.match(r"fmla\s+v\d+\.4s", line) for loop in loops for line in loop)
