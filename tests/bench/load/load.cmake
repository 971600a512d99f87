# The load generator of the benchmarks; and a test that it notices what is wrong.

pkg_check_modules(NGHTTP2 REQUIRED IMPORTED_TARGET libnghttp2)

add_executable(load)
foreach(source IN ITEMS h2 main run work)
    target_sources(load PRIVATE ${CMAKE_CURRENT_LIST_DIR}/${source}.c)
endforeach()
target_link_libraries(load PRIVATE PkgConfig::NGHTTP2 PkgConfig::ISAL payloadstore_warnings)

add_test(NAME load COMMAND ${test_python} -B ${CMAKE_CURRENT_LIST_DIR}/load_test.py)
set_tests_properties(load PROPERTIES
    LABELS "integration;tools"
    TIMEOUT 300
    ENVIRONMENT "TEST_SERVER=$<TARGET_FILE:payloadstored>;TEST_LOAD=$<TARGET_FILE:load>;TEST_TOOLS=${PAYLOADSTORE_TOOLS};TEST_WORK=${test_work};PYTHONUNBUFFERED=1")
