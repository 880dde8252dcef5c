# Finds single OpenCV modules by header and library. Debian's OpenCVConfig.cmake stands in libopencv-dev, which pulls in every module
# with its dependencies; the few -dev packages that are used suffice here.
#
#   find_package(OpenCVModules REQUIRED COMPONENTS core imgproc OPTIONAL_COMPONENTS ximgproc)
#
# gives the imported targets opencv::core, opencv::imgproc, ...
find_path(OpenCVModules_INCLUDE_DIR opencv2/core.hpp PATH_SUFFIXES opencv4)
set(_required OpenCVModules_INCLUDE_DIR)
foreach(_component IN LISTS OpenCVModules_FIND_COMPONENTS)
  find_library(OpenCVModules_${_component}_LIBRARY opencv_${_component})
  find_path(OpenCVModules_${_component}_INCLUDE_DIR opencv2/${_component}.hpp HINTS ${OpenCVModules_INCLUDE_DIR} PATH_SUFFIXES opencv4)
  if(OpenCVModules_${_component}_LIBRARY AND OpenCVModules_${_component}_INCLUDE_DIR)
    set(OpenCVModules_${_component}_FOUND TRUE)
    if(NOT TARGET opencv::${_component})
      add_library(opencv::${_component} UNKNOWN IMPORTED)
      set_target_properties(opencv::${_component} PROPERTIES IMPORTED_LOCATION ${OpenCVModules_${_component}_LIBRARY}
                            INTERFACE_INCLUDE_DIRECTORIES ${OpenCVModules_INCLUDE_DIR})
    endif()
  endif()
endforeach()
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(OpenCVModules REQUIRED_VARS ${_required} HANDLE_COMPONENTS)
mark_as_advanced(OpenCVModules_INCLUDE_DIR)
