# install(), and a package that others find with find_package(cinelumen).
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/cinelumen)
install(TARGETS cinelumen_kernels cinelumen_engine cinelumen_io EXPORT cinelumen_targets
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET cinelumen_kernels_v4)
  install(TARGETS cinelumen_kernels_v4 LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/glibc-hwcaps/x86-64-v4 NAMELINK_SKIP)
endif()
install(TARGETS cinelumen RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
set_target_properties(cinelumen PROPERTIES INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}")
foreach(folder kernels engine engine/phantom io)
  file(GLOB headers CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${folder}/*.h)
  install(FILES ${headers} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/cinelumen/${folder})
endforeach()
install(EXPORT cinelumen_targets NAMESPACE cinelumen:: DESTINATION ${package_dir})
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/cinelumenConfig.cmake.in ${PROJECT_BINARY_DIR}/cinelumenConfig.cmake
                              INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/cinelumenConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/cinelumenConfig.cmake ${PROJECT_BINARY_DIR}/cinelumenConfigVersion.cmake
              ${CMAKE_CURRENT_LIST_DIR}/FindOpenCVModules.cmake DESTINATION ${package_dir})
