/* The layout of generated code: lines that are broken, comments that stay comments. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "grpc-c/plugin/plugin.h"

static void assert_comment(const char *comment, const char *expected)
{
    struct gen_text text = {0};

    gen_text_comment(&text, 4, comment);
    assert_string_equal(text.data != NULL ? text.data : "", expected);
    gen_text_fini(&text);
}

static void assert_wrapped(const char *line, const char *expected)
{
    struct gen_text text = {0};

    gen_text_wrapf(&text, 4, "%s", line);
    assert_string_equal(text.data, expected);
    gen_text_fini(&text);
}

static void short_comment_takes_one_line(void **state)
{
    (void)state;
    assert_comment(" Appends.\n", "    /* Appends. */\n");
    assert_comment("\n\n  Appends.  \n \n", "    /* Appends. */\n");
    assert_comment("Appends.", "    /* Appends. */\n");
}

static void blank_comment_is_left_out(void **state)
{
    (void)state;
    assert_comment(NULL, "");
    assert_comment("", "");
    assert_comment(" \n\t\n\r\n", "");
}

static void long_comment_keeps_its_lines(void **state)
{
    (void)state;
    assert_comment(" One\n   two\r\n\n three\n\n", "    /*\n     * One\n     *   two\n     *\n"
                                                   "     * three\n     */\n");
    assert_comment("\n One\ntwo", "    /*\n     * One\n     * two\n     */\n");
}

static void comment_cannot_be_ended_or_nested(void **state)
{
    (void)state;
    assert_comment(" a */ b", "    /* a * / b */\n");
    assert_comment("/", "    /* / */\n");
    assert_comment(" x\n/ y\n*/", "    /*\n     * x\n     * / y\n     * * /\n     */\n");
    assert_comment("/*/", "    /* / * / */\n");
    assert_comment("*\n/", "    /*\n     * *\n     * /\n     */\n");
    assert_comment("**//", "    /* ** // */\n");
    assert_comment("?\?/", "    /* ?? / */\n");
}

static void characters_that_turn_the_text_are_left_out(void **state)
{
    (void)state;
    assert_comment("a\xe2\x80\xae"
                   "b\xe2\x81\xa6"
                   "c\xe2\x80\xa6",
                   "    /* abc\xe2\x80\xa6 */\n");
    assert_comment("\xe2\x80", "    /* \xe2\x80 */\n");
}

static void line_that_fits_is_not_broken(void **state)
{
    (void)state;
    assert_wrapped("int f(int a, int b);", "    int f(int a, int b);\n");
    assert_wrapped("int f;", "    int f;\n");
}

static void arguments_are_aligned_where_they_fit(void **state)
{
    (void)state;
    assert_wrapped(
        "void (*compact)(grpc_c_call *call, const Payloadstore__V1__CompactSealedRequest "
        "*request, void *user);",
        "    void (*compact)(grpc_c_call *call, const "
        "Payloadstore__V1__CompactSealedRequest *request,\n"
        "                    void *user);\n");
}

static void arguments_begin_a_line_where_they_do_not_fit_aligned(void **state)
{
    (void)state;
    assert_wrapped("static inline void payloadstore__v1__payload_store__append__send(grpc_c_call "
                   "*call, void (*on_written)(grpc_c_call *call, void *arg), void *arg);",
                   "    static inline void payloadstore__v1__payload_store__append__send(\n"
                   "        grpc_c_call *call, void (*on_written)(grpc_c_call *call, void *arg), "
                   "void *arg);\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_comment_takes_one_line),
        cmocka_unit_test(blank_comment_is_left_out),
        cmocka_unit_test(long_comment_keeps_its_lines),
        cmocka_unit_test(comment_cannot_be_ended_or_nested),
        cmocka_unit_test(characters_that_turn_the_text_are_left_out),
        cmocka_unit_test(line_that_fits_is_not_broken),
        cmocka_unit_test(arguments_are_aligned_where_they_fit),
        cmocka_unit_test(arguments_begin_a_line_where_they_do_not_fit_aligned),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
