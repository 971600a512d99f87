# The sources as text; and that the lint finds what it is there to find.

set(lint ${CMAKE_CURRENT_LIST_DIR})

add_test(NAME lint_format COMMAND ${lint}/format)
add_test(NAME lint_guarantees
    COMMAND sh -c [["$0" --test-dir "$1" --show-only=json-v1 | "$2" -]]
            ${CMAKE_CTEST_COMMAND} ${CMAKE_BINARY_DIR} ${lint}/guarantees)
add_test(NAME lint_includes COMMAND ${lint}/includes --build ${CMAKE_BINARY_DIR})
add_test(NAME lint_scripts COMMAND ${lint}/scripts)
add_test(NAME lint_tidy COMMAND ${lint}/tidy ${CMAKE_BINARY_DIR})
add_test(NAME lint_lint COMMAND ${lint}/lint_test.py)
set_tests_properties(lint_format lint_guarantees lint_includes lint_scripts lint_tidy lint_lint
    PROPERTIES
    LABELS lint TIMEOUT 300)
# It keeps every processor busy by itself.
set_tests_properties(lint_tidy PROPERTIES TIMEOUT 900 PROCESSORS 2)
