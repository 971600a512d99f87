# Benchmarks: programs to run by hand, on a release build of what they measure. None is a test.

add_executable(bench_store ${CMAKE_CURRENT_SOURCE_DIR}/bench/bench_store.c)
target_link_libraries(bench_store
    PRIVATE payloadstore PkgConfig::ISAL Threads::Threads payloadstore_warnings)

add_executable(bench_stream ${CMAKE_CURRENT_SOURCE_DIR}/bench/bench_stream.c)
target_link_libraries(bench_stream
    PRIVATE test_service_client Threads::Threads payloadstore_warnings)
