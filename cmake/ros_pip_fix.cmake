# Two repairs at the end of the configure step, which change nothing that matters on a normal ROS 2 installation.
#
# 1. The pip wheels of ROS 2 export the include path of the Python that built them (/opt/python/...) on every
#    <package>::<package>__rosidl_generator_py target, and CMake refuses include paths that do not exist.
#    Drop those paths.
# 2. Our own such target exports NumPy's include path, and CMake refuses exported paths inside the source folder, where
#    a .venv usually is. Keep them for the build only: nobody compiles against them later.
function(ros_pip_fix_imported_targets)
  get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(directories "${target}" INTERFACE_INCLUDE_DIRECTORIES)
    if(NOT directories)
      continue()
    endif()
    set(existing "")
    foreach(directory IN LISTS directories)
      if(directory MATCHES "^\\$<" OR EXISTS "${directory}")
        list(APPEND existing "${directory}")
      endif()
    endforeach()
    if(NOT "${existing}" STREQUAL "${directories}")
      set_target_properties("${target}" PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${existing}")
    endif()
  endforeach()
endfunction()

function(ros_pip_fix_own_target)
  set(target "${PROJECT_NAME}__rosidl_generator_py")
  get_target_property(directories "${target}" INTERFACE_INCLUDE_DIRECTORIES)
  set(exported "")
  foreach(directory IN LISTS directories)
    if(directory MATCHES "^\\$<")
      list(APPEND exported "${directory}")
    else()
      list(APPEND exported "$<BUILD_INTERFACE:${directory}>")
    endif()
  endforeach()
  set_target_properties("${target}" PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${exported}")
endfunction()

cmake_language(DEFER CALL ros_pip_fix_imported_targets)
cmake_language(DEFER CALL ros_pip_fix_own_target)
