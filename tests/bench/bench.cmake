# Benchmarks: programs to run by hand, on a release build of what they measure. Of bench_server a
# short run is a test: that it runs, not what it prints.

add_executable(bench_store ${CMAKE_CURRENT_SOURCE_DIR}/bench/bench_store.c)
target_link_libraries(bench_store
    PRIVATE payloadstore PkgConfig::ISAL Threads::Threads payloadstore_warnings)

add_executable(bare_core ${CMAKE_CURRENT_SOURCE_DIR}/bench/bare_core.c)
target_link_libraries(bare_core
    PRIVATE PkgConfig::GRPC PkgConfig::ISAL Threads::Threads payloadstore_warnings)

add_executable(bench_server ${CMAKE_CURRENT_SOURCE_DIR}/bench/bench_server.c)
target_link_libraries(bench_server
    PRIVATE test_service_client Threads::Threads payloadstore_warnings)
add_test(NAME bench_server COMMAND bench_server 2 20 20)
set_tests_properties(bench_server PROPERTIES
    FAIL_REGULAR_EXPRESSION "nan;inf"
    LABELS integration
    TIMEOUT 120
    ENVIRONMENT "PAYLOADSTORED=$<TARGET_FILE:payloadstored>;BARE_CORE=$<TARGET_FILE:bare_core>;TMPDIR=${test_work}")
