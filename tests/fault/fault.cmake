# Tests that break things for real. Each runs in a short form here; where FAULT_MINUTES is set it goes
# on with fresh seeds until so many minutes are over. FAULT_SEED sets the first seed. Those that need
# what not every machine lets its users do say SKIP, and exit with 77.

# payloadstore_fault_test_py(name file): a program in Python against a server process of its own.
function(payloadstore_fault_test_py name file)
    add_test(NAME ${name} COMMAND ${test_python} -B ${CMAKE_CURRENT_SOURCE_DIR}/fault/${file})
    set_tests_properties(${name} PROPERTIES
        LABELS "fault;tools"
        TIMEOUT 600
        SKIP_RETURN_CODE 77
        ENVIRONMENT "TEST_SERVER=$<TARGET_FILE:payloadstored>;TEST_TOOLS=${PAYLOADSTORE_TOOLS};TEST_WORK=${test_work};PYTHONUNBUFFERED=1")
endfunction()

payloadstore_fault_test_py(fault_rpc rpc_test.py)
payloadstore_fault_test_py(fault_full_disk full_disk_test.py)

# On the store alone: each a program of its own, whose data lies in memory where that has room, else
# under the build directory. tests/run --soak runs them again and again, with seeds of its own.
set(fault_tests_dir ${CMAKE_CURRENT_LIST_DIR})
set(fault_tests_work ${CMAKE_CURRENT_BINARY_DIR}/fault_work)
file(MAKE_DIRECTORY ${fault_tests_work})

add_library(fault_fixture STATIC ${fault_tests_dir}/fault.c ${fault_tests_dir}/recording.c)
# The tests look below the store's public header, for the faults that can be injected there.
target_include_directories(fault_fixture
    PUBLIC ${fault_tests_dir} ${fault_tests_dir}/../../store/src)
target_link_libraries(fault_fixture PUBLIC store_fixture PRIVATE payloadstore_warnings)

foreach(test IN ITEMS kill power flip)
    add_executable(test_fault_${test} ${fault_tests_dir}/fault_${test}.c)
    target_link_libraries(test_fault_${test} PRIVATE fault_fixture payloadstore_warnings)
    add_test(NAME fault_${test} COMMAND test_fault_${test})
    set_tests_properties(fault_${test} PROPERTIES
        LABELS fault
        TIMEOUT 300
        ENVIRONMENT "TMPDIR=${fault_tests_work}")
endforeach()
