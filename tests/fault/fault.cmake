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
