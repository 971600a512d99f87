# Tests of the store: each a program of its own, on data directories under the build directory.

if(NOT TARGET PkgConfig::CMOCKA)
    pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka)
endif()

set(store_tests_dir ${CMAKE_CURRENT_LIST_DIR})
set(store_tests_work ${CMAKE_CURRENT_BINARY_DIR}/store_work)
file(MAKE_DIRECTORY ${store_tests_work})

add_library(store_fixture STATIC
    ${store_tests_dir}/../lib/store_fixture.c ${store_tests_dir}/../lib/work_dir.c)
target_include_directories(store_fixture
    PUBLIC ${store_tests_dir}/../lib
    PRIVATE ${store_tests_dir}/../../store/src)
target_link_libraries(store_fixture
    PUBLIC payloadstore PkgConfig::CMOCKA Threads::Threads
    PRIVATE payloadstore_warnings)

foreach(test IN ITEMS
        append batch read seal compact damage recover dir state index delete threads faults format
        relocations model claim verify seen sync room carry)
    add_executable(test_store_${test} ${store_tests_dir}/store_${test}.c)
    # Some tests look below the public header.
    target_include_directories(test_store_${test} PRIVATE ${store_tests_dir}/../../store/src)
    target_link_libraries(test_store_${test} PRIVATE store_fixture payloadstore_warnings)
    add_test(NAME store_${test} COMMAND test_store_${test})
    set_tests_properties(store_${test} PROPERTIES
        LABELS "unit;tsan"
        TIMEOUT 300
        ENVIRONMENT "TMPDIR=${store_tests_work}")
endforeach()

# It makes and deletes many thousand files, to which a disk adds nothing but time.
if(IS_DIRECTORY /dev/shm)
    set_tests_properties(store_faults PROPERTIES ENVIRONMENT "TMPDIR=/dev/shm")
endif()

target_compile_definitions(test_store_format
    PRIVATE FORMAT_MD="${store_tests_dir}/../../store/FORMAT.md")

# The example in the README is compiled and run as it stands there.
set(store_example ${CMAKE_CURRENT_BINARY_DIR}/store_example.c)
add_custom_command(
    OUTPUT ${store_example}
    COMMAND sed -n [[/^```c$/,/^```$/{/^```/d;p}]] ${store_tests_dir}/../../store/README.md
            > ${store_example}
    DEPENDS ${store_tests_dir}/../../store/README.md
    VERBATIM)
add_executable(test_store_example ${store_example})
target_link_libraries(test_store_example PRIVATE payloadstore payloadstore_warnings)
add_test(NAME store_example
    COMMAND sh -c [[rm -rf payloads && out=$("$0") && test "$out" = "success: segment 0, offset 0"]]
            $<TARGET_FILE:test_store_example>
    WORKING_DIRECTORY ${store_tests_work})
set_tests_properties(store_example PROPERTIES LABELS "unit;tsan")
