# Tests in C against a server process of their own, through generated stubs.

if(NOT TARGET PkgConfig::CMOCKA)
    pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka)
endif()

add_library(test_service_client STATIC
    ${CMAKE_CURRENT_SOURCE_DIR}/lib/server_process.c
    ${CMAKE_CURRENT_SOURCE_DIR}/lib/service_client.c
    ${CMAKE_CURRENT_SOURCE_DIR}/lib/work_dir.c)
target_include_directories(test_service_client PUBLIC ${CMAKE_CURRENT_SOURCE_DIR}/lib)
target_link_libraries(test_service_client PUBLIC payloadstore_proto grpc_c
                                          PRIVATE payloadstore_warnings)

# payloadstore_service_test(name): integration/<name>.c
function(payloadstore_service_test name)
    add_executable(test_${name} ${CMAKE_CURRENT_SOURCE_DIR}/integration/${name}.c)
    target_link_libraries(test_${name}
        PRIVATE test_service_client PkgConfig::CMOCKA Threads::Threads payloadstore_warnings)
    add_test(NAME ${name} COMMAND test_${name})
    set_tests_properties(${name} PROPERTIES
        LABELS integration
        TIMEOUT 600
        ENVIRONMENT "PAYLOADSTORED=$<TARGET_FILE:payloadstored>;TMPDIR=${test_work}")
endfunction()

payloadstore_service_test(real_job_c)
payloadstore_service_test(compact_stream)
payloadstore_service_test(many_refs)

# Those of the C client library.
foreach(test IN ITEMS client_c client_c_compact client_c_streams client_c_tls client_c_cut)
    payloadstore_service_test(${test})
    target_sources(test_${test} PRIVATE
        ${CMAKE_CURRENT_SOURCE_DIR}/integration/client_c_fixture.c)
    target_link_libraries(test_${test} PRIVATE payloadstore_client)
endforeach()
target_sources(test_client_c_cut PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/lib/cutting_proxy.c)
set_property(TEST client_c_tls APPEND PROPERTY
    ENVIRONMENT "MAKE_CERTIFICATES=${CMAKE_CURRENT_SOURCE_DIR}/lib/make-certificates")

# The example in the client's README is compiled and run as it stands there.
set(client_c_readme ${CMAKE_SOURCE_DIR}/clients/c/README.md)
set(client_c_example ${CMAKE_CURRENT_BINARY_DIR}/client_c_example.c)
add_custom_command(
    OUTPUT ${client_c_example}
    COMMAND sed -n [[/^```c$/,/^```$/{/^```/d;p}]] ${client_c_readme} > ${client_c_example}
    DEPENDS ${client_c_readme}
    VERBATIM)
add_executable(client_c_example ${client_c_example})
target_link_libraries(client_c_example PRIVATE payloadstore_client payloadstore_warnings)
add_dependencies(test_client_c client_c_example)
set_property(TEST client_c APPEND PROPERTY
    ENVIRONMENT "CLIENT_C_EXAMPLE=$<TARGET_FILE:client_c_example>")
