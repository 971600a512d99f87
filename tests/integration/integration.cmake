# Tests in Python against a server process of their own.

set(test_python ${PAYLOADSTORE_TOOLS}/venv/bin/python)

# payloadstore_python_test(name file LABELS label... [PROPERTIES ...])
function(payloadstore_python_test name file)
    cmake_parse_arguments(arg "" "TIMEOUT" "LABELS;PROPERTIES" ${ARGN})
    add_test(NAME ${name}
        COMMAND ${test_python} -B ${CMAKE_CURRENT_SOURCE_DIR}/integration/${file})
    set_tests_properties(${name} PROPERTIES
        LABELS "${arg_LABELS}"
        TIMEOUT ${arg_TIMEOUT}
        ENVIRONMENT "TEST_SERVER=$<TARGET_FILE:payloadstored>;TEST_TOOLS=${PAYLOADSTORE_TOOLS};TEST_WORK=${test_work};PYTHONUNBUFFERED=1"
        ${arg_PROPERTIES})
endfunction()

# The times leave room for a sanitizer on a busy machine.
payloadstore_python_test(real_job real_job.py LABELS integration tools TIMEOUT 600)
payloadstore_python_test(grpcurl grpcurl_test.py LABELS integration tools TIMEOUT 600)
payloadstore_python_test(carry carry_test.py LABELS integration tools TIMEOUT 600)
payloadstore_python_test(stream stream_test.py LABELS integration tools TIMEOUT 600)
payloadstore_python_test(lifecycle lifecycle_test.py LABELS integration tools TIMEOUT 600)
payloadstore_python_test(tls tls_test.py LABELS integration tools TIMEOUT 600)

# What ghz measures under a sanitizer, or beside other tests, says nothing.
payloadstore_python_test(ghz ghz_test.py LABELS tools TIMEOUT 300 PROPERTIES RUN_SERIAL TRUE)
payloadstore_python_test(readme readme_test.py LABELS tools TIMEOUT 300)
