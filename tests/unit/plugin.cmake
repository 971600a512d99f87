# Tests of protoc-gen-grpc-c and of the code that it generates.

if(NOT TARGET PkgConfig::CMOCKA)
    pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka)
endif()
find_path(PROTOBUF_PROTO_DIR google/protobuf/compiler/plugin.proto REQUIRED)
find_path(PROTOBUF_C_PROTO_DIR protobuf-c/protobuf-c.proto REQUIRED)

set(plugin_tests_dir ${CMAKE_CURRENT_LIST_DIR})
grpc_c_generate(plugin_test_proto
    PROTOS plugin_shapes.proto plugin_other.proto plugin_names.proto plugin_no_package.proto
           plugin_c_package.proto google/protobuf/empty.proto
    IMPORT_DIRS ${plugin_tests_dir} ${PROTOBUF_C_PROTO_DIR})
# What the one imports the other library brings, or this one.
grpc_c_generate(plugin_well_known_proto
    PROTOS plugin_well_known.proto google/protobuf/any.proto google/protobuf/duration.proto
           google/protobuf/field_mask.proto google/protobuf/struct.proto
           google/protobuf/timestamp.proto google/protobuf/wrappers.proto
    IMPORT_DIRS ${plugin_tests_dir})
target_link_libraries(plugin_well_known_proto PUBLIC plugin_test_proto)

# What protoc tells the plugin about plugin_shapes.proto, to make requests of.
set(plugin_shapes_set ${CMAKE_CURRENT_BINARY_DIR}/plugin_shapes.protoset)
add_custom_command(
    OUTPUT ${plugin_shapes_set}
    COMMAND ${PROTOC} -I${plugin_tests_dir} -I${PROTOBUF_PROTO_DIR} --include_imports
            --include_source_info --descriptor_set_out=${plugin_shapes_set} plugin_shapes.proto
    DEPENDS ${plugin_tests_dir}/plugin_shapes.proto ${plugin_tests_dir}/plugin_other.proto
    VERBATIM)
add_library(plugin_fixture STATIC ${plugin_tests_dir}/plugin_fixture.c ${plugin_shapes_set})
target_compile_definitions(plugin_fixture PRIVATE PLUGIN_SHAPES_SET="${plugin_shapes_set}")
target_link_libraries(plugin_fixture
    PUBLIC grpc_c_plugin PkgConfig::CMOCKA PRIVATE payloadstore_warnings)

foreach(test IN ITEMS alloc calls names request text well_known)
    add_executable(test_plugin_${test} ${plugin_tests_dir}/plugin_${test}.c)
    target_link_libraries(test_plugin_${test} PRIVATE PkgConfig::CMOCKA payloadstore_warnings)
    add_test(NAME plugin_${test} COMMAND test_plugin_${test})
endforeach()
target_link_libraries(test_plugin_alloc PRIVATE plugin_fixture)
target_link_options(test_plugin_alloc PRIVATE
    LINKER:--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=reallocarray)
target_link_libraries(test_plugin_calls PRIVATE plugin_test_proto)
target_link_libraries(test_plugin_names PRIVATE grpc_c_plugin plugin_test_proto)
target_link_libraries(test_plugin_request PRIVATE plugin_fixture)
target_link_libraries(test_plugin_text PRIVATE grpc_c_plugin)
target_link_libraries(test_plugin_well_known PRIVATE plugin_well_known_proto)

add_test(NAME plugin_reject
    COMMAND ${plugin_tests_dir}/plugin_reject.sh ${PROTOC} $<TARGET_FILE:protoc-gen-grpc-c>)
add_test(NAME plugin_compile
    COMMAND ${plugin_tests_dir}/plugin_compile.sh ${PROTOC} ${PROTOC_GEN_C}
            $<TARGET_FILE:protoc-gen-grpc-c> ${CMAKE_C_COMPILER}
            ${plugin_tests_dir}/../../grpc-c/include ${PROTOBUF_PROTO_DIR} ${PROTOBUF_C_PROTO_DIR})

set_tests_properties(plugin_alloc plugin_compile plugin_names plugin_reject plugin_request
    plugin_text PROPERTIES LABELS unit TIMEOUT 300)
set_tests_properties(plugin_calls plugin_well_known PROPERTIES LABELS "unit;tsan" TIMEOUT 300)
