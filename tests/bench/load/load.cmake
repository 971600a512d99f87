# The load generator, what the programs of tests/bench take, and tests that they notice what is wrong.

pkg_check_modules(NGHTTP2 REQUIRED IMPORTED_TARGET libnghttp2)

add_executable(load)
foreach(source IN ITEMS h2 main run work)
    target_sources(load PRIVATE ${CMAKE_CURRENT_LIST_DIR}/${source}.c)
endforeach()
target_link_libraries(load PRIVATE PkgConfig::NGHTTP2 PkgConfig::ISAL payloadstore_warnings)

# The broker of tests/bench/mixed: its payloads are the load's.
add_executable(mixed_compact ${CMAKE_CURRENT_SOURCE_DIR}/bench/mixed_compact.c
                             ${CMAKE_CURRENT_LIST_DIR}/work.c)
target_link_libraries(mixed_compact
    PRIVATE payloadstore_client PkgConfig::ISAL Threads::Threads payloadstore_warnings)

# What tests/run --bench builds.
add_custom_target(bench DEPENDS load mixed_compact payloadstored bench_store)
foreach(reference IN ITEMS bare_core bare_send)
    if(TARGET ${reference})
        add_dependencies(bench ${reference})
    endif()
endforeach()

foreach(test IN ITEMS load compare growth mixed suite)
    add_test(NAME ${test}
        COMMAND ${test_python} -B ${CMAKE_CURRENT_LIST_DIR}/${test}_test.py)
    set_tests_properties(${test} PROPERTIES
        LABELS "integration;tools"
        TIMEOUT 300
        ENVIRONMENT "TEST_SERVER=$<TARGET_FILE:payloadstored>;TEST_LOAD=$<TARGET_FILE:load>;TEST_CORE=$<TARGET_FILE:bare_core>;TEST_BARE=$<TARGET_FILE:bare_send>;TEST_COMPACT=$<TARGET_FILE:mixed_compact>;TEST_TOOLS=${PAYLOADSTORE_TOOLS};TEST_WORK=${test_work};PYTHONUNBUFFERED=1")
endforeach()
