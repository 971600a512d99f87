# grpc-c for its users: what is installed, its example, and its README.

set(greeter_dir ${CMAKE_SOURCE_DIR}/grpc-c/example/greeter)
grpc_c_generate(greeter_proto PROTOS greeter.proto IMPORT_DIRS ${greeter_dir})
foreach(program IN ITEMS server client)
    add_executable(greeter-${program} ${greeter_dir}/${program}.c)
    target_link_libraries(greeter-${program} PRIVATE greeter_proto payloadstore_warnings)
endforeach()

payloadstore_python_test(grpc_c_example "grpc_c_install_test.py;Example"
    LABELS integration tsan TIMEOUT 300)
payloadstore_python_test(grpc_c_install "grpc_c_install_test.py;Installed" LABELS tools TIMEOUT 600)
foreach(test IN ITEMS grpc_c_example grpc_c_install)
    set_property(TEST ${test} APPEND PROPERTY ENVIRONMENT "TEST_BUILD=${CMAKE_BINARY_DIR}")
endforeach()
payloadstore_python_test(grpc_c_readme grpc_c_readme_test.py LABELS tools TIMEOUT 900)
