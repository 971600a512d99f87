# Tests of the C client library against a server whose answers the test decides on.

if(NOT TARGET PkgConfig::CMOCKA)
    pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka)
endif()

add_executable(test_client_streams ${CMAKE_CURRENT_LIST_DIR}/client_streams.c)
target_link_libraries(test_client_streams
    PRIVATE payloadstore_client payloadstore_proto grpc_c PkgConfig::CMOCKA Threads::Threads
            payloadstore_warnings)
add_test(NAME client_streams COMMAND test_client_streams)
set_tests_properties(client_streams PROPERTIES
    LABELS "unit;tsan"
    TIMEOUT 300
    ENVIRONMENT "TSAN_OPTIONS=ignore_noninstrumented_modules=1")
