# llamo_ros/_realtime: the one extension module that talks to ROS 2.

# Include directories of a target and of all that it stands on.
function(llamo_headers_of TARGET RESULT)
  set(waiting "${TARGET}")
  set(seen "")
  set(found "")
  while(NOT waiting STREQUAL "")
    list(POP_FRONT waiting target)
    if(NOT TARGET "${target}" OR "${target}" IN_LIST seen)
      continue()
    endif()
    list(APPEND seen "${target}")
    get_target_property(directories "${target}" INTERFACE_INCLUDE_DIRECTORIES)
    if(directories)
      list(APPEND found ${directories})
    endif()
    get_target_property(libraries "${target}" INTERFACE_LINK_LIBRARIES)
    if(libraries)
      list(APPEND waiting ${libraries})
    endif()
  endwhile()
  list(REMOVE_DUPLICATES found)
  foreach(directory IN LISTS found)
    if(NOT directory MATCHES "^\\$<" AND NOT IS_DIRECTORY "${directory}")  # see ros_pip_fix.cmake
      list(REMOVE_ITEM found "${directory}")
    endif()
  endforeach()
  set(${RESULT} "${found}" PARENT_SCOPE)
endfunction()

# It links to the two libraries that it calls, and not to rcl::rcl: that brings the whole middleware to the linker, whose
# pip wheel names libraries of the machine that built it. rclpy has loaded both before the module is imported.
function(llamo_add_realtime)
  llamo_headers_of(rcl::rcl headers)
  pybind11_add_module(_realtime llamo_ros/nodes/realtime.cpp)
  target_compile_options(_realtime PRIVATE -O2 -Wall -Wextra)
  target_include_directories(_realtime SYSTEM PRIVATE ${headers})
  target_link_libraries(_realtime PRIVATE
    $<TARGET_FILE:rcl::rcl> $<TARGET_FILE:rcutils::rcutils> Threads::Threads)
endfunction()
