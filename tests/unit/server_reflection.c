/* Reflection, spoken to over loopback, in both versions. */
#include "server_fixture.h"

#include <string.h>

#include "google/protobuf/descriptor.pb-c.h"
#include "grpc/reflection/v1/reflection.grpc-c.h"
#include "grpc/reflection/v1alpha/reflection.grpc-c.h"
#include "payloadstore_descriptor_set.h"
#include "reflection.h"

#define QUESTION(name) GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_##name
#define ANSWER(name)   GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_##name

typedef Grpc__Reflection__V1__ServerReflectionRequest reflection_request;
typedef Grpc__Reflection__V1__ServerReflectionResponse reflection_response;
typedef Google__Protobuf__FileDescriptorProto file_descriptor;

static const char *const services[] = {"b.Second", "a.First"};

static struct server_fixture fixture;
static struct psd_reflection *reflection;
static grpc_c_stream *stream;

static int start(void **state)
{
    (void)state;
    reflection = psd_reflection_create(services, 2);
    assert_non_null(reflection);
    server_fixture_create(&fixture);
    assert_int_equal(psd_reflection_register(reflection, fixture.server), 0);
    server_fixture_start(&fixture);
    stream = grpc__reflection__v1__server_reflection__server_reflection_info__open(fixture.channel,
                                                                                   &patient);
    assert_non_null(stream);
    return 0;
}

/* Every conversation must still be alive at the end, whatever was asked. */
static int stop(void **state)
{
    struct grpc_c_result result = {0};

    (void)state;
    assert_int_equal(grpc_c_stream_writes_done(stream), 0);
    assert_null(grpc__reflection__v1__server_reflection__server_reflection_info__read(stream));
    grpc_c_stream_finish(stream, &result);
    assert_int_equal(result.code, GRPC_C_OK);
    grpc_c_result_fini(&result);
    server_fixture_destroy(&fixture);
    psd_reflection_destroy(reflection);
    return 0;
}

static reflection_response *ask(const reflection_request *request)
{
    reflection_response *response;

    assert_int_equal(
        grpc__reflection__v1__server_reflection__server_reflection_info__write(stream, request), 0);
    response = grpc__reflection__v1__server_reflection__server_reflection_info__read(stream);
    assert_non_null(response);
    return response;
}

static void free_response(reflection_response *response)
{
    grpc__reflection__v1__server_reflection_response__free_unpacked(response, NULL);
}

static reflection_response *ask_symbol(const char *symbol)
{
    reflection_request request = GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__INIT;

    request.message_request_case = QUESTION(FILE_CONTAINING_SYMBOL);
    request.file_containing_symbol = (char *)symbol;
    return ask(&request);
}

static reflection_response *ask_file(const char *name)
{
    reflection_request request = GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__INIT;

    request.message_request_case = QUESTION(FILE_BY_FILENAME);
    request.file_by_filename = (char *)name;
    return ask(&request);
}

/* The one file of a response, which is freed; the caller frees the file. */
static file_descriptor *take_file(reflection_response *response)
{
    file_descriptor *file;
    const ProtobufCBinaryData *bytes;

    assert_int_equal(response->message_response_case, ANSWER(FILE_DESCRIPTOR_RESPONSE));
    assert_int_equal(response->file_descriptor_response->n_file_descriptor_proto, 1);
    bytes = &response->file_descriptor_response->file_descriptor_proto[0];
    /* Handed out byte for byte. */
    assert_non_null(memmem(payloadstore_descriptor_set, payloadstore_descriptor_set_size,
                           bytes->data, bytes->len));
    file = google__protobuf__file_descriptor_proto__unpack(NULL, bytes->len, bytes->data);
    assert_non_null(file);
    free_response(response);
    return file;
}

static void free_file(file_descriptor *file)
{
    google__protobuf__file_descriptor_proto__free_unpacked(file, NULL);
}

static void assert_symbol_in(const char *symbol, const char *name)
{
    file_descriptor *file = take_file(ask_symbol(symbol));

    assert_string_equal(file->name, name);
    free_file(file);
}

static void assert_error(reflection_response *response, enum grpc_c_code code)
{
    assert_int_equal(response->message_response_case, ANSWER(ERROR_RESPONSE));
    assert_int_equal(response->error_response->error_code, code);
    assert_int_not_equal(strlen(response->error_response->error_message), 0);
    free_response(response);
}

/* -- files ------------------------------------------------------------------------------------- */

/* As a tool does it: a file, then whatever it imports, by the names in it. */
static void ask_file_and_imports(const char *name, int depth) // NOLINT(misc-no-recursion)
{
    file_descriptor *file = take_file(ask_file(name));

    assert_true(depth < 5);
    assert_string_equal(file->name, name);
    for (size_t i = 0; i < file->n_dependency; i++) {
        ask_file_and_imports(file->dependency[i], depth + 1);
    }
    free_file(file);
}

static void files_are_found_with_all_they_import(void **state)
{
    (void)state;
    ask_file_and_imports("payloadstore/v1/payload_store.proto", 0);
    ask_file_and_imports("grpc/health/v1/health.proto", 0);
    ask_file_and_imports("grpc/reflection/v1/reflection.proto", 0);
    ask_file_and_imports("grpc/reflection/v1alpha/reflection.proto", 0);
    ask_file_and_imports("google/rpc/status.proto", 0);
    ask_file_and_imports("google/rpc/error_details.proto", 0);
}

static void hostile_file_names_are_not_found(void **state)
{
    static const char *const names[] = {
        "",
        "/etc/passwd",
        "../../../../etc/passwd",
        "payload_store.proto",
        "%s%s%n",
        "payloadstore/v1/",
        "./payloadstore/v1/payload_store.proto",
        "\x01\x02\n",
        "google/protobuf/*",
        "payloadstored/raw_file_set.proto",
    };

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        assert_error(ask_file(names[i]), GRPC_C_NOT_FOUND);
    }
}

/* -- symbols ----------------------------------------------------------------------------------- */

static void symbols_of_every_kind_are_found(void **state)
{
    static const char *const symbols[] = {
        "payloadstore.v1.PayloadStore",          /* a service */
        "payloadstore.v1.PayloadStore.Append",   /* a method */
        "payloadstore.v1.PayloadStore.Verify",   /* the last one */
        "payloadstore.v1.AppendRequest",         /* a message */
        "payloadstore.v1.AppendRequest.payload", /* a field */
        "payloadstore.v1.ReadResult.outcome",    /* a oneof */
        "payloadstore.v1.Durability",            /* an enum */
        "payloadstore.v1.DURABILITY_SYNCED",     /* its value, which stands beside it */
    };

    (void)state;
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        assert_symbol_in(symbols[i], "payloadstore/v1/payload_store.proto");
    }
    assert_symbol_in("google.rpc.QuotaFailure.Violation", "google/rpc/error_details.proto");
    assert_symbol_in("grpc.health.v1.HealthCheckResponse.ServingStatus",
                     "grpc/health/v1/health.proto");
    assert_symbol_in("grpc.health.v1.HealthCheckResponse.SERVING", "grpc/health/v1/health.proto");
    assert_symbol_in("google.protobuf.UInt64Value", "google/protobuf/wrappers.proto");
    assert_symbol_in("google.protobuf.Any", "google/protobuf/any.proto");
    assert_symbol_in("google.protobuf.Duration", "google/protobuf/duration.proto");
}

static void other_symbols_are_not_found(void **state)
{
    static const char *const symbols[] = {
        "",
        ".",
        "payloadstore.v1",
        ".payloadstore.v1.PayloadStore",
        "payloadstore.v1.PayloadStore.",
        "payloadstore.v1.payloadstore",
        "payloadstore.v1.Durability.DURABILITY_SYNCED",
        "payloadstored.RawFileSet",
    };
    char endless[10001];

    (void)state;
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        assert_error(ask_symbol(symbols[i]), GRPC_C_NOT_FOUND);
    }
    memset(endless, 'x', sizeof endless - 1);
    endless[sizeof endless - 1] = '\0';
    assert_error(ask_symbol(endless), GRPC_C_NOT_FOUND);
}

/* -- comments ---------------------------------------------------------------------------------- */

static bool has_comment(const file_descriptor *file, const int32_t *path, size_t n_path)
{
    for (size_t i = 0; i < file->source_code_info->n_location; i++) {
        const Google__Protobuf__SourceCodeInfo__Location *location =
            file->source_code_info->location[i];

        if (location->n_path == n_path &&
            memcmp(location->path, path, n_path * sizeof path[0]) == 0) {
            return location->leading_comments != NULL && location->trailing_comments == NULL;
        }
    }
    return false;
}

/* The numbers are descriptor.proto's: message_type 4, its field 2; service 6, its method 2. */
static void methods_messages_and_fields_carry_their_comments(void **state)
{
    file_descriptor *file = take_file(ask_symbol("payloadstore.v1.PayloadStore"));

    (void)state;
    assert_non_null(file->source_code_info);
    for (size_t i = 0; i < file->n_message_type; i++) {
        assert_true(has_comment(file, (int32_t[]){4, (int32_t)i}, 2));
        for (size_t j = 0; j < file->message_type[i]->n_field; j++) {
            assert_true(has_comment(file, (int32_t[]){4, (int32_t)i, 2, (int32_t)j}, 4));
        }
    }
    for (size_t i = 0; i < file->service[0]->n_method; i++) {
        assert_true(has_comment(file, (int32_t[]){6, 0, 2, (int32_t)i}, 4));
    }
    free_file(file);
}

/* -- the other questions ----------------------------------------------------------------------- */

static void services_are_listed_as_they_were_given(void **state)
{
    reflection_request request = GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__INIT;
    reflection_response *response;

    (void)state;
    request.message_request_case = QUESTION(LIST_SERVICES);
    request.list_services = (char *)"*";
    response = ask(&request);
    assert_int_equal(response->message_response_case, ANSWER(LIST_SERVICES_RESPONSE));
    assert_int_equal(response->list_services_response->n_service, 2);
    for (size_t i = 0; i < 2; i++) {
        assert_string_equal(response->list_services_response->service[i]->name, services[i]);
    }
    free_response(response);
}

static void extension_numbers_of_a_known_type_are_none(void **state)
{
    reflection_request request = GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__INIT;
    reflection_response *response;

    (void)state;
    request.message_request_case = QUESTION(ALL_EXTENSION_NUMBERS_OF_TYPE);
    request.all_extension_numbers_of_type = (char *)"payloadstore.v1.PayloadRef";
    response = ask(&request);
    assert_int_equal(response->message_response_case, ANSWER(ALL_EXTENSION_NUMBERS_RESPONSE));
    assert_string_equal(response->all_extension_numbers_response->base_type_name,
                        "payloadstore.v1.PayloadRef");
    assert_int_equal(response->all_extension_numbers_response->n_extension_number, 0);
    free_response(response);

    request.all_extension_numbers_of_type = (char *)"payloadstore.v1.Durability";
    assert_error(ask(&request), GRPC_C_NOT_FOUND);
    request.all_extension_numbers_of_type = (char *)"x";
    assert_error(ask(&request), GRPC_C_NOT_FOUND);
}

static void extensions_are_not_found(void **state)
{
    Grpc__Reflection__V1__ExtensionRequest extension =
        GRPC__REFLECTION__V1__EXTENSION_REQUEST__INIT;
    reflection_request request = GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__INIT;

    (void)state;
    extension.containing_type = (char *)"payloadstore.v1.PayloadRef";
    extension.extension_number = -1;
    request.message_request_case = QUESTION(FILE_CONTAINING_EXTENSION);
    request.file_containing_extension = &extension;
    assert_error(ask(&request), GRPC_C_NOT_FOUND);
}

static void no_question_is_an_error_and_not_the_end(void **state)
{
    reflection_request request = GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__INIT;

    (void)state;
    assert_error(ask(&request), GRPC_C_INVALID_ARGUMENT);
    assert_symbol_in("payloadstore.v1.PayloadRef", "payloadstore/v1/payload_store.proto");
}

static void host_and_question_come_back(void **state)
{
    reflection_request request = GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__INIT;
    reflection_response *response;

    (void)state;
    request.host = (char *)"../\n%n";
    request.message_request_case = QUESTION(FILE_CONTAINING_SYMBOL);
    request.file_containing_symbol = (char *)"nowhere";
    response = ask(&request);
    assert_string_equal(response->valid_host, "../\n%n");
    assert_string_equal(response->original_request->host, "../\n%n");
    assert_string_equal(response->original_request->file_containing_symbol, "nowhere");
    assert_error(response, GRPC_C_NOT_FOUND);
}

/* -- the stream -------------------------------------------------------------------------------- */

static void many_questions_in_flight_are_answered_in_order(void **state)
{
    static const char *const symbols[] = {"google.rpc.Status", "nowhere"};
    reflection_request request = GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__INIT;

    (void)state;
    request.message_request_case = QUESTION(FILE_CONTAINING_SYMBOL);
    for (int i = 0; i < 200; i++) {
        request.file_containing_symbol = (char *)symbols[i % 2];
        assert_int_equal(grpc__reflection__v1__server_reflection__server_reflection_info__write(
                             stream, &request),
                         0);
    }
    for (int i = 0; i < 200; i++) {
        reflection_response *response =
            grpc__reflection__v1__server_reflection__server_reflection_info__read(stream);

        assert_non_null(response);
        assert_string_equal(response->original_request->file_containing_symbol, symbols[i % 2]);
        assert_int_equal(response->message_response_case,
                         i % 2 == 0 ? ANSWER(FILE_DESCRIPTOR_RESPONSE) : ANSWER(ERROR_RESPONSE));
        free_response(response);
    }
}

static void a_caller_that_leaves_does_not_hold_the_drain(void **state)
{
    grpc_c_stream *other = grpc__reflection__v1__server_reflection__server_reflection_info__open(
        fixture.channel, &patient);
    struct grpc_c_result result = {0};
    reflection_request request = GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__INIT;

    (void)state;
    request.message_request_case = QUESTION(LIST_SERVICES);
    request.list_services = (char *)"";
    assert_int_equal(
        grpc__reflection__v1__server_reflection__server_reflection_info__write(other, &request), 0);
    free_response(grpc__reflection__v1__server_reflection__server_reflection_info__read(other));
    grpc_c_stream_cancel(other);
    grpc_c_stream_finish(other, &result);
    assert_int_equal(result.code, GRPC_C_CANCELLED);
    grpc_c_result_fini(&result);
}

static void v1alpha_answers_as_v1_does(void **state)
{
    Grpc__Reflection__V1alpha__ServerReflectionRequest request =
        GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__INIT;
    Grpc__Reflection__V1alpha__ServerReflectionResponse *response;
    grpc_c_stream *alpha =
        grpc__reflection__v1alpha__server_reflection__server_reflection_info__open(fixture.channel,
                                                                                   &patient);
    struct grpc_c_result result = {0};

    (void)state;
    request.message_request_case =
        GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME;
    request.file_by_filename = (char *)"google/rpc/status.proto";
    assert_int_equal(grpc__reflection__v1alpha__server_reflection__server_reflection_info__write(
                         alpha, &request),
                     0);
    response = grpc__reflection__v1alpha__server_reflection__server_reflection_info__read(alpha);
    assert_non_null(response);
    assert_int_equal(response->file_descriptor_response->n_file_descriptor_proto, 1);
    grpc__reflection__v1alpha__server_reflection_response__free_unpacked(response, NULL);
    assert_int_equal(grpc_c_stream_writes_done(alpha), 0);
    assert_null(grpc__reflection__v1alpha__server_reflection__server_reflection_info__read(alpha));
    grpc_c_stream_finish(alpha, &result);
    assert_int_equal(result.code, GRPC_C_OK);
    grpc_c_result_fini(&result);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(files_are_found_with_all_they_import),
        TEST(hostile_file_names_are_not_found),
        TEST(symbols_of_every_kind_are_found),
        TEST(other_symbols_are_not_found),
        TEST(methods_messages_and_fields_carry_their_comments),
        TEST(services_are_listed_as_they_were_given),
        TEST(extension_numbers_of_a_known_type_are_none),
        TEST(extensions_are_not_found),
        TEST(no_question_is_an_error_and_not_the_end),
        TEST(host_and_question_come_back),
        TEST(many_questions_in_flight_are_answered_in_order),
        TEST(a_caller_that_leaves_does_not_hold_the_drain),
        TEST(v1alpha_answers_as_v1_does),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
