# One extension module, llamo_ros/_kernels, from every kernels/<operation>/cpu_kernel.cpp and what they share,
# kernels/common/*.cpp. Each of the former defines
#   void register_<operation>(pybind11::module_& m);
# and the module that calls them all is generated here, so that a new folder needs no edit anywhere else.
function(llamo_add_kernels)
  file(GLOB sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/kernels/*/cpu_kernel.cpp")
  set(KERNEL_DECLARATIONS "")
  set(KERNEL_REGISTRATIONS "")
  foreach(source IN LISTS sources)
    get_filename_component(folder "${source}" DIRECTORY)
    get_filename_component(operation "${folder}" NAME)
    string(APPEND KERNEL_DECLARATIONS "void register_${operation}(pybind11::module_& m);\n")
    string(APPEND KERNEL_REGISTRATIONS "  register_${operation}(m);\n")
  endforeach()
  file(GLOB shared CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/kernels/common/*.cpp")
  configure_file(cmake/kernels.cpp.in "${CMAKE_CURRENT_BINARY_DIR}/kernels/module.cpp" @ONLY)

  pybind11_add_module(_kernels "${CMAKE_CURRENT_BINARY_DIR}/kernels/module.cpp" ${sources} ${shared})
  # No -march=native: the module must run on machines other than the one that built it.
  target_compile_options(_kernels PRIVATE -O3 -Wall -Wextra)
  target_include_directories(_kernels PRIVATE "${CMAKE_CURRENT_SOURCE_DIR}/kernels/common")
  target_link_libraries(_kernels PRIVATE Threads::Threads)
endfunction()
