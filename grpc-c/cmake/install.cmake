# What `cmake --install BUILD --component grpc-c` installs: the headers, the library, the code
# generator, and how CMake and pkg-config find the three.
#
# The library is a shared one, of which programs need not know what is beneath: gRPC core's own
# headers and libraries are not theirs to name. Whoever has grpc-c in his build links a static one.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

add_library(grpc_c_shared SHARED $<TARGET_OBJECTS:grpc_c>)
# Until 1.0 each minor version may break programs built with the one before.
set_target_properties(grpc_c_shared PROPERTIES
    OUTPUT_NAME grpc-c
    EXPORT_NAME grpc-c
    LINKER_LANGUAGE C
    VERSION ${PROJECT_VERSION}
    SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
target_include_directories(grpc_c_shared INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_link_libraries(grpc_c_shared
    PUBLIC PkgConfig::PROTOBUF_C
    PRIVATE PkgConfig::GRPC PkgConfig::ZLIB PkgConfig::CRYPTO Threads::Threads)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/grpc-c)
install(TARGETS grpc_c_shared protoc-gen-grpc-c EXPORT grpc-c-targets
    LIBRARY COMPONENT grpc-c
    RUNTIME COMPONENT grpc-c)
install(DIRECTORY include/grpc-c DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT grpc-c)
install(EXPORT grpc-c-targets NAMESPACE grpc-c:: DESTINATION ${package_dir} COMPONENT grpc-c)
write_basic_package_version_file(grpc-c-config-version.cmake COMPATIBILITY SameMinorVersion)
install(
    FILES cmake/grpc-c-config.cmake cmake/GrpcCGenerate.cmake
          ${CMAKE_CURRENT_BINARY_DIR}/grpc-c-config-version.cmake
    DESTINATION ${package_dir} COMPONENT grpc-c)

# From where the file lies, so that what was installed may be moved.
string(REGEX REPLACE "[^/]+" ".." up ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
configure_file(cmake/grpc-c.pc.in grpc-c.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/grpc-c.pc
    DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT grpc-c)
