# gRPC's interoperability suite on grpc-c, against itself, Go and Python.

grpc_c_generate(interop_proto
    PROTOS src/proto/grpc/testing/empty.proto src/proto/grpc/testing/messages.proto
           src/proto/grpc/testing/test.proto
    IMPORT_DIRS ${CMAKE_CURRENT_LIST_DIR})

set(interop_dir ${CMAKE_CURRENT_LIST_DIR})
add_executable(grpc-c-interop-server ${interop_dir}/server.c ${interop_dir}/flags.c)
add_executable(grpc-c-interop-client
    ${interop_dir}/client.c ${interop_dir}/client_plain.c ${interop_dir}/client_async.c
    ${interop_dir}/client_compressed.c ${interop_dir}/flags.c)
foreach(program IN ITEMS server client)
    target_link_libraries(grpc-c-interop-${program}
        PRIVATE interop_proto Threads::Threads payloadstore_warnings)
endforeach()

# interop_test(<class> LABELS <label>...): one class of interop_test.py as a test
function(payloadstore_interop_test class)
    cmake_parse_arguments(arg "" "" "LABELS" ${ARGN})
    string(TOLOWER ${class} name)
    add_test(NAME interop_${name}
        COMMAND ${PAYLOADSTORE_TOOLS}/venv/bin/python -B ${interop_dir}/interop_test.py ${class})
    set_tests_properties(interop_${name} PROPERTIES
        LABELS "interop;${arg_LABELS}"
        TIMEOUT 300
        ENVIRONMENT "TEST_INTEROP_SERVER=$<TARGET_FILE:grpc-c-interop-server>;TEST_INTEROP_CLIENT=$<TARGET_FILE:grpc-c-interop-client>;TEST_TOOLS=${PAYLOADSTORE_TOOLS};TEST_WORK=${test_work};PYTHONUNBUFFERED=1")
endfunction()

foreach(class IN ITEMS Ours Go Python)
    payloadstore_interop_test(${class} LABELS integration tools)
endforeach()
