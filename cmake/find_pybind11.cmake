# pybind11, and what the compiled modules need beside it. Python3 must have been found.
find_package(Threads REQUIRED)
set(PYTHON_EXECUTABLE "${Python3_EXECUTABLE}")
find_package(pybind11_vendor QUIET)  # a ROS 2 installation brings pybind11 so, pip as a Python package
execute_process(COMMAND "${Python3_EXECUTABLE}" -m pybind11 --cmakedir
  OUTPUT_VARIABLE pybind11_directory OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
find_package(pybind11 CONFIG REQUIRED HINTS "${pybind11_directory}")
