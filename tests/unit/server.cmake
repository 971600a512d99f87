# Tests of the server's parts; those of its services run a real server and client in one process.

if(NOT TARGET PkgConfig::CMOCKA)
    pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka)
endif()

add_library(server_fixture STATIC
    ${CMAKE_CURRENT_LIST_DIR}/server_fixture.c
    ${CMAKE_CURRENT_LIST_DIR}/../lib/work_dir.c)
target_include_directories(server_fixture PUBLIC ${CMAKE_CURRENT_LIST_DIR}/../lib)
target_link_libraries(server_fixture
    PUBLIC payloadstored_parts PkgConfig::CMOCKA Threads::Threads
    PRIVATE payloadstore_warnings)

foreach(test IN ITEMS compact config log health read_results reflection streams
        verify)
    add_executable(test_server_${test} ${CMAKE_CURRENT_LIST_DIR}/server_${test}.c)
    target_link_libraries(test_server_${test} PRIVATE server_fixture payloadstore_warnings)
    add_test(NAME server_${test} COMMAND test_server_${test})
    set_tests_properties(server_${test} PROPERTIES
        LABELS "unit;tsan"
        TIMEOUT 120
        ENVIRONMENT "TSAN_OPTIONS=ignore_noninstrumented_modules=1;TMPDIR=${test_work}")
endforeach()
