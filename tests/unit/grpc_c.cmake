# Tests of grpc-c's runtime: a real server and a real client over loopback, in one process.

if(NOT TARGET PkgConfig::CMOCKA)
    pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka)
endif()
find_program(PROTOC protoc REQUIRED)
find_program(PROTOC_GEN_C protoc-gen-c REQUIRED)

set(grpc_c_tests_dir ${CMAKE_CURRENT_LIST_DIR})
set(grpc_c_echo_dir ${CMAKE_CURRENT_BINARY_DIR}/grpc_c_echo)
file(MAKE_DIRECTORY ${grpc_c_echo_dir})
add_custom_command(
    OUTPUT ${grpc_c_echo_dir}/echo.pb-c.c ${grpc_c_echo_dir}/echo.pb-c.h
    COMMAND ${PROTOC} --plugin=protoc-gen-c=${PROTOC_GEN_C} -I${grpc_c_tests_dir}
            --c_out=${grpc_c_echo_dir} echo.proto
    DEPENDS ${grpc_c_tests_dir}/echo.proto
    VERBATIM)
# Generated code is a system header to our warnings.
add_library(grpc_c_echo STATIC ${grpc_c_echo_dir}/echo.pb-c.c ${grpc_c_echo_dir}/echo.pb-c.h)
target_compile_options(grpc_c_echo PRIVATE -w)
target_include_directories(grpc_c_echo SYSTEM PUBLIC ${grpc_c_echo_dir})
target_link_libraries(grpc_c_echo PUBLIC PkgConfig::PROTOBUF_C)

add_library(grpc_c_fixture STATIC ${grpc_c_tests_dir}/grpc_c_fixture.c)
target_link_libraries(grpc_c_fixture
    PUBLIC grpc_c grpc_c_echo PkgConfig::CMOCKA Threads::Threads
    PRIVATE payloadstore_warnings)

foreach(test IN ITEMS async async_streams calls cancel channel codec compression finished help hostile lent
    listen memory memory_client metadata options received rounds shutdown
    status tls workers)
    add_executable(test_grpc_c_${test} ${grpc_c_tests_dir}/grpc_c_${test}.c)
    # Some tests look below the public headers, and some speak core's own language.
    target_include_directories(test_grpc_c_${test} PRIVATE ${grpc_c_tests_dir}/../../grpc-c/src)
    target_link_libraries(test_grpc_c_${test}
        PRIVATE grpc_c_fixture PkgConfig::GRPC PkgConfig::ZLIB payloadstore_warnings)
    add_test(NAME grpc_c_${test} COMMAND test_grpc_c_${test})
    set_tests_properties(grpc_c_${test} PROPERTIES
        TIMEOUT 300
        ENVIRONMENT "TSAN_OPTIONS=ignore_noninstrumented_modules=1;TMPDIR=${test_work}")
endforeach()
foreach(test IN ITEMS async async_streams calls cancel channel compression finished help metadata received
    rounds shutdown tls workers)
    set_tests_properties(grpc_c_${test} PROPERTIES LABELS "unit;tsan")
endforeach()
foreach(test IN ITEMS tls memory memory_client)
    target_sources(test_grpc_c_${test} PRIVATE ${grpc_c_tests_dir}/../lib/work_dir.c)
    target_include_directories(test_grpc_c_${test} PRIVATE ${grpc_c_tests_dir}/../lib)
    target_compile_definitions(test_grpc_c_${test}
        PRIVATE TEST_MAKE_CERTIFICATES="${grpc_c_tests_dir}/../lib/make-certificates")
endforeach()
foreach(test IN ITEMS memory memory_client)
    target_sources(test_grpc_c_${test} PRIVATE ${grpc_c_tests_dir}/alloc_fails.c)
    target_link_options(test_grpc_c_${test} PRIVATE
        LINKER:--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=strdup)
endforeach()

# Ten thousand streams at once, in each preset.
add_executable(test_grpc_c_storm ${grpc_c_tests_dir}/grpc_c_storm.c)
target_link_libraries(test_grpc_c_storm PRIVATE grpc_c_fixture payloadstore_warnings)
add_test(NAME grpc_c_storm COMMAND test_grpc_c_storm)
set_tests_properties(grpc_c_storm PROPERTIES
    LABELS "unit;tsan" TIMEOUT 300
    ENVIRONMENT "TSAN_OPTIONS=ignore_noninstrumented_modules=1")
