/*
 * The plugin's names are protoc-gen-c's: by its rules, and, as this file uses the code generated
 * from plugin_names.proto and its neighbours under the names that are expected, by compiling.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "grpc-c/plugin/plugin.h"

#include "plugin_c_package.grpc-c.h"
#include "plugin_names.grpc-c.h"
#include "plugin_no_package.grpc-c.h"
#include "plugin_shapes.grpc-c.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* -- the rules -------------------------------------------------------------------------------- */

static void methods_become_lower_case(void **state)
{
    static const char *const names[][2] = {
        {"Append", "append"},
        {"CompactSealed", "compact_sealed"},
        {"GetURL", "get_url"},
        {"HTTPGet", "httpget"},
        {"getIt", "get_it"},
        {"Snake_Case", "snake__case"},
        {"snake_case", "snake_case"},
        {"ABTest2X", "abtest2_x"},
        {"Read2nd", "read2nd"},
        {"_Leading", "__leading"},
        {"Trailing_", "trailing_"},
        {"A", "a"},
        {"", ""},
    };
    struct gen_pool pool = {0};
    size_t i;

    (void)state;
    for (i = 0; i < COUNT(names); i++) {
        assert_string_equal(gen_name_lower(&pool, names[i][0]), names[i][1]);
    }
    gen_pool_fini(&pool);
}

static void full_names_become_types_and_prefixes(void **state)
{
    static const char *const names[][3] = {
        {"payloadstore.v1.PayloadStore", "Payloadstore__V1__PayloadStore",
         "payloadstore__v1__payload_store"},
        {"google.protobuf.UInt64Value", "Google__Protobuf__UInt64Value",
         "google__protobuf__uint64_value"},
        {"a.Outer.inner_one", "A__Outer__InnerOne", "a__outer__inner_one"},
        {"APIv2.snake_case.X", "APIv2__SnakeCase__X", "apiv2__snake_case__x"},
        {"_Head", "Head", "__head"},
        {"Tail_", "Tail", "tail_"},
        {"V2Beta1", "V2Beta1", "v2_beta1"},
        {".a..b", "A__B", "a__b"},
    };
    struct gen_pool pool = {0};
    size_t i;

    (void)state;
    for (i = 0; i < COUNT(names); i++) {
        assert_string_equal(gen_name_full_camel(&pool, names[i][0]), names[i][1]);
        assert_string_equal(gen_name_full_lower(&pool, names[i][0]), names[i][2]);
    }
    gen_pool_fini(&pool);
}

static void files_lose_their_ending_and_get_guards(void **state)
{
    static const char *const names[][3] = {
        {"a/b/x.proto", "a/b/x", "GRPC_C__A__B__X_H"},
        {"x.protodevel", "x", "GRPC_C__X_H"},
        {"a_b-c.d.proto", "a_b-c.d", "GRPC_C__A_B_2DC_2ED_H"},
        {"2/x", "2/x", "GRPC_C__2__X_H"},
        {".proto", "", "GRPC_C___H"},
    };
    struct gen_pool pool = {0};
    size_t i;

    (void)state;
    for (i = 0; i < COUNT(names); i++) {
        const char *base = gen_name_base(&pool, names[i][0]);

        assert_string_equal(base, names[i][1]);
        assert_string_equal(gen_name_guard(&pool, base), names[i][2]);
    }
    gen_pool_fini(&pool);
}

static void only_identifiers_are_names(void **state)
{
    (void)state;
    assert_true(gen_name_valid("_a9", false));
    assert_true(gen_name_valid("a.b_.c", true));
    assert_false(gen_name_valid("a.b", false));
    assert_false(gen_name_valid("a..b", true));
    assert_false(gen_name_valid("a.", true));
    assert_false(gen_name_valid(".a", true));
    assert_false(gen_name_valid("9a", false));
    assert_false(gen_name_valid("", false));
    assert_false(gen_name_valid("a*/b", false));
    assert_false(gen_name_valid("\xc3\xa4", false));
    assert_false(gen_name_valid(NULL, false));
}

/* -- generated code --------------------------------------------------------------------------- */

#define TRICKY(name)   Tricky__APIv2__SnakeCase__X9__##name
#define SERVER(method) tricky__apiv2__snake_case__x9__httpserver__##method

static void assert_method(const struct grpc_c_service *service, size_t index, const char *path,
                          enum grpc_c_shape shape, const char *request, const char *response)
{
    const struct grpc_c_method *method = &service->methods[index];

    assert_true(index < service->n_methods);
    assert_string_equal(method->path, path);
    assert_int_equal(method->shape, shape);
    assert_string_equal(method->request->name, request);
    assert_string_equal(method->response->name, response);
    assert_non_null(method->begin);
    assert_true((method->message != NULL) ==
                (shape == GRPC_C_CLIENT_STREAM || shape == GRPC_C_BIDI_STREAM));
}

/* Each assignment compiles only where the name and the types are these. */
static void tricky_names_compile(void **state)
{
    struct tricky__apiv2__snake_case__x9__httpserver_handlers handlers = {0};
    TRICKY(LowerCase) * (*get_url)(grpc_c_channel *, const TRICKY(HTTPRequest) *,
                                   const struct grpc_c_call_options *, struct grpc_c_result *) =
        SERVER(get_url__sync);
    TRICKY(Tail) * (*get_it)(grpc_c_channel *, const TRICKY(LowerCase) *,
                             const struct grpc_c_call_options *, struct grpc_c_result *) =
        SERVER(get_it__sync);
    TRICKY(Head) * (*snake_case)(grpc_c_stream *) = SERVER(snake__case__read);
    int (*a)(grpc_c_stream *, const TRICKY(Head) *) = SERVER(a__write);
    bool (*test)(grpc_c_call *, const TRICKY(V2Beta1) *) = SERVER(abtest2_x__reply);
    bool (*read2nd)(grpc_c_call *, const TRICKY(ALLCAPS) *, void (*)(grpc_c_call *, void *),
                    void *) = SERVER(read2nd__send);
    bool (*leading)(grpc_c_call *, const TRICKY(ALLCAPS__Inner) *) = SERVER(__leading__reply);
    bool (*trailing)(grpc_c_call *, const TRICKY(ALLCAPS__Inner__Innermost2nd) *) =
        SERVER(trailing___reply);
    bool (*underscores)(grpc_c_call *, const TRICKY(HTTPRequest) *) =
        SERVER(two___underscores__reply);

    (void)state;
    assert_true(get_url != NULL && get_it != NULL && snake_case != NULL && a != NULL);
    assert_true(test != NULL && read2nd != NULL && leading != NULL);
    assert_true(trailing != NULL && underscores != NULL);
    assert_null(handlers.read2nd__message);
    assert_null(handlers.__leading);
}

static void paths_and_descriptors_keep_the_proto_s_names(void **state)
{
    const struct grpc_c_service *service = &tricky__apiv2__snake_case__x9__httpserver__service;

    (void)state;
    assert_string_equal(service->name, "tricky.APIv2.Snake_case.x9.HTTPServer");
    assert_int_equal(service->n_methods, 11);
    assert_method(service, 0, "/tricky.APIv2.Snake_case.x9.HTTPServer/GetURL", GRPC_C_UNARY,
                  "tricky.APIv2.Snake_case.x9.HTTPRequest",
                  "tricky.APIv2.Snake_case.x9.lower_case");
    assert_method(service, 2, "/tricky.APIv2.Snake_case.x9.HTTPServer/Snake_Case",
                  GRPC_C_SERVER_STREAM, "tricky.APIv2.Snake_case.x9.Tail_",
                  "tricky.APIv2.Snake_case.x9._Head");
    assert_method(service, 3, "/tricky.APIv2.Snake_case.x9.HTTPServer/A", GRPC_C_CLIENT_STREAM,
                  "tricky.APIv2.Snake_case.x9._Head", "tricky.APIv2.Snake_case.x9.Two__Parts");
    assert_method(service, 5, "/tricky.APIv2.Snake_case.x9.HTTPServer/Read2nd", GRPC_C_BIDI_STREAM,
                  "tricky.APIv2.Snake_case.x9.V2Beta1", "tricky.APIv2.Snake_case.x9.ALLCAPS");
    assert_string_equal(tricky__apiv2__snake_case__x9__lower_service__service.name,
                        "tricky.APIv2.Snake_case.x9.lower_service");
}

static void a_file_without_a_package_has_short_names(void **state)
{
    NoPackageMessage message = NO_PACKAGE_MESSAGE__INIT;

    (void)state;
    assert_ptr_equal(message.base.descriptor, &no_package_message__descriptor);
    assert_method(&no_package__service, 0, "/NoPackage/Call", GRPC_C_UNARY, "NoPackageMessage",
                  "NoPackageMessage");
}

static void c_package_renames_the_code_and_not_the_wire(void **state)
{
    struct in_c__name_2__renamed_handlers handlers = {0};
    InC__Name2__Message message = IN_C__NAME_2__MESSAGE__INIT;

    (void)state;
    assert_null(handlers.delete);
    assert_ptr_equal(message.base.descriptor, in_c__name_2__renamed__service.methods[0].request);
    assert_method(&in_c__name_2__renamed__service, 0, "/wire.name.Renamed/Call", GRPC_C_UNARY,
                  "wire.name.Message", "NoPackageMessage");
}

static void an_empty_service_has_no_methods(void **state)
{
    (void)state;
    assert_string_equal(plugin__shapes__idle__service.name, "plugin.shapes.Idle");
    assert_int_equal(plugin__shapes__idle__service.n_methods, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(methods_become_lower_case),
        cmocka_unit_test(full_names_become_types_and_prefixes),
        cmocka_unit_test(files_lose_their_ending_and_get_guards),
        cmocka_unit_test(only_identifiers_are_names),
        cmocka_unit_test(tricky_names_compile),
        cmocka_unit_test(paths_and_descriptors_keep_the_proto_s_names),
        cmocka_unit_test(a_file_without_a_package_has_short_names),
        cmocka_unit_test(c_package_renames_the_code_and_not_the_wire),
        cmocka_unit_test(an_empty_service_has_no_methods),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
