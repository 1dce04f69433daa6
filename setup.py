"""Let pip build what CMake builds, and put it in place: `pip install .` and `pip install -e .`.

CMakeLists.txt alone says what is installed. It installs into a staging folder, and from there:
- `pip install .` packs everything into the wheel;
- `pip install -e .` runs the Python of this checkout, so that only what is generated (interfaces, compiled kernels) is
  copied into llamo_ros/, where git ignores it.
Both put libraries, executables and share/ into the environment's prefix.

colcon does not use this file: package.xml says ament_cmake.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

NAME = "llamo_ros"
GENERATED_FOLDERS = ("msg", "srv", "action")
ROOT = Path(__file__).resolve().parent
PREFIX = Path(sys.prefix)  # the target environment, in pip's isolated build too
SITE_PACKAGES = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
# One build folder per environment: CMake remembers paths of the Python and the ROS 2 that it found.
PREFIX_HASH = hashlib.sha256(str(PREFIX).encode()).hexdigest()[:8]
BUILD = ROOT / "build" / "pip" / f"{sys.implementation.cache_tag}-{PREFIX_HASH}"
STAGE = BUILD / "stage"


def ros_prefixes() -> list[str]:
    """Where ROS 2 is: the pip wheels in this environment, or the installations that have been sourced."""
    prefixes = [prefix for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    if (PREFIX / "share" / "rosidl_default_generators").is_dir():
        prefixes.insert(0, str(PREFIX))
    if not prefixes:
        raise SystemExit(
            "llamo_ros needs ROS 2 to build its interfaces, and there is none in this environment. Run\n"
            "    pip install -r requirements/ros.txt\n"
            "or source the setup file of a ROS 2 Jazzy installation, then try again."
        )
    return prefixes


def cmake_stage() -> None:
    """Configure, build and install into STAGE."""
    if shutil.which("cmake") is None:
        raise SystemExit("llamo_ros needs CMake 3.19 or newer to build: install it, for example `apt install cmake`.")
    prefixes = ros_prefixes()
    # A clean Python: pip's isolated build must not show its own packages to the code generators.
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONNOUSERSITE", "PYTHONHOME")}
    if str(PREFIX) not in prefixes:
        env["PYTHONPATH"] = os.environ.get("PYTHONPATH", "")  # a sourced ROS 2 has its generators there
    libraries = [PREFIX / "lib", *(PREFIX / SITE_PACKAGES).glob("ros_*.libs")]
    env["AMENT_PREFIX_PATH"] = os.pathsep.join(prefixes)
    env["LD_LIBRARY_PATH"] = os.pathsep.join([*map(str, libraries), env.get("LD_LIBRARY_PATH", "")])
    env["PATH"] = os.pathsep.join([str(PREFIX / "bin"), env["PATH"]])

    ninja = shutil.which("ninja", path=env["PATH"])
    folder = BUILD / ("ninja" if ninja else "make")
    configure = ["cmake", *(["-G", "Ninja"] if ninja else []), "-S", str(ROOT), "-B", str(folder)]
    configure += [
        f"-DCMAKE_INSTALL_PREFIX={STAGE}",
        f"-DCMAKE_PREFIX_PATH={';'.join(prefixes)}",
        f"-DPython3_EXECUTABLE={PREFIX}/bin/python3",
        "-DCMAKE_BUILD_TYPE=Release",
        "-DBUILD_TESTING=OFF",
    ]
    jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or str(os.cpu_count() or 2)
    shutil.rmtree(STAGE, ignore_errors=True)
    subprocess.check_call(configure, env=env)
    subprocess.check_call(["cmake", "--build", str(folder), "--parallel", jobs], env=env)
    subprocess.check_call(["cmake", "--install", str(folder)], env=env, stdout=subprocess.DEVNULL)


def copy_generated(staged: Path, package: Path) -> None:
    """Refresh the generated interfaces and compiled modules in the checkout's llamo_ros/."""
    for name in GENERATED_FOLDERS:
        shutil.rmtree(package / name, ignore_errors=True)
        if (staged / name).is_dir():
            shutil.copytree(staged / name, package / name)
    for library in staged.glob("*.so"):
        # Replace, never overwrite: a running process may have the old file mapped.
        fresh = package / f".{library.name}.new"
        shutil.copy2(library, fresh)
        fresh.replace(package / library.name)


class CMakeBuild(build_ext):
    """Runs CMake. The one Extension is a marker, which makes the wheel specific to its platform."""

    def run(self) -> None:
        """Build, then hand setuptools what CMake staged."""
        cmake_stage()
        staged = STAGE / SITE_PACKAGES / NAME
        if self.inplace or self.editable_mode:
            copy_generated(staged, ROOT / NAME)
        else:
            package = Path(self.build_lib).resolve() / NAME
            shutil.rmtree(package, ignore_errors=True)  # also drops modules that an earlier build left here
            shutil.copytree(staged, package, ignore=shutil.ignore_patterns("__pycache__"))
        data: dict[str, list[str]] = {}
        for path in sorted(STAGE.rglob("*")):
            relative = path.relative_to(STAGE)
            wanted = relative.parts[0] in ("lib", "share") and "cmake" not in relative.parts
            if path.is_file() and wanted and not str(relative).startswith("lib/python"):
                data.setdefault(str(relative.parent), []).append(os.path.relpath(path, ROOT))
        self.distribution.data_files = sorted(data.items())
        # An editable install asks Distribution for has_data(), which it lacks, and would skip the data files.
        self.distribution.has_data = lambda: True

    def get_source_files(self) -> list[str]:
        """No sources for setuptools to look after."""
        return []

    def get_outputs(self) -> list[str]:
        """No outputs for setuptools to look after."""
        return []


generated = [f"{NAME}.{folder}*" for folder in GENERATED_FOLDERS]
rooms = find_packages(include=[NAME, f"{NAME}.*"], exclude=generated)
kernels = [f"{NAME}.kernels", *(f"{NAME}.kernels.{operation}" for operation in find_packages("kernels"))]
setup(
    packages=rooms + kernels,
    package_dir={f"{NAME}.kernels": "kernels"},
    include_package_data=False,
    ext_modules=[Extension(f"{NAME}._kernels", [])],
    cmdclass={"build_ext": CMakeBuild},
    data_files=[("share/llamo_ros", ["package.xml"])],
)
