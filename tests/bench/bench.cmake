# Benchmarks: programs to run by hand, on a release build of what they measure. Of each a
# short run is a test: that it runs, not what it prints.

add_executable(bench_store)
foreach(source IN ITEMS append bare bench compact main open read refs window)
    target_sources(bench_store PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/bench/store/${source}.c)
endforeach()
# Segments by the thousand are made without their syncs.
target_include_directories(bench_store PRIVATE ${CMAKE_SOURCE_DIR}/store/src)
target_link_libraries(bench_store
    PRIVATE payloadstore PkgConfig::ISAL Threads::Threads payloadstore_warnings)

add_test(NAME bench_store
    COMMAND ${test_python} -B ${CMAKE_CURRENT_SOURCE_DIR}/bench/store/store_figures_test.py)
set_tests_properties(bench_store PROPERTIES
    LABELS "integration;tools"
    TIMEOUT 300
    ENVIRONMENT "TEST_BENCH_STORE=$<TARGET_FILE:bench_store>;TEST_WORK=${test_work};PYTHONUNBUFFERED=1")

add_executable(bare_core ${CMAKE_CURRENT_SOURCE_DIR}/bench/bare_core.c)
target_link_libraries(bare_core
    PRIVATE PkgConfig::GRPC PkgConfig::ISAL Threads::Threads payloadstore_warnings)

add_executable(bare_send ${CMAKE_CURRENT_SOURCE_DIR}/bench/bare_send.c)
target_link_libraries(bare_send PRIVATE PkgConfig::ISAL Threads::Threads payloadstore_warnings)

add_executable(bench_server ${CMAKE_CURRENT_SOURCE_DIR}/bench/bench_server.c)
target_link_libraries(bench_server
    PRIVATE test_service_client Threads::Threads payloadstore_warnings)
add_test(NAME bench_server COMMAND bench_server 2 20 20)
set_tests_properties(bench_server PROPERTIES
    FAIL_REGULAR_EXPRESSION "nan;inf"
    LABELS integration
    TIMEOUT 120
    ENVIRONMENT "PAYLOADSTORED=$<TARGET_FILE:payloadstored>;BARE_CORE=$<TARGET_FILE:bare_core>;TMPDIR=${test_work}")
