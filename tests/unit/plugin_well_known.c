/*
 * Protobuf's own messages travel through generated code: plugin_well_known.proto. Also built by the
 * test of what is installed, with the library and the code generator that users get.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "plugin_well_known.grpc-c.h"

typedef Plugin__WellKnown__Event event;
typedef Google__Protobuf__FieldMask field_mask;
typedef Google__Protobuf__StringValue string_value;
typedef Google__Protobuf__Timestamp timestamp;

struct fixture {
    grpc_c_server *server;
    grpc_c_channel *channel;
};

static const struct grpc_c_call_options patience = {.timeout_ms = 60000, .wait_for_ready = true};

/* -- the server ------------------------------------------------------------------------------- */

static void echo(grpc_c_call *call, const event *request, void *user)
{
    (void)user;
    plugin__well_known__events__echo__reply(call, request);
}

static void split(grpc_c_call *call, const field_mask *request, void *user)
{
    const struct grpc_c_status ok = {.code = GRPC_C_OK};
    size_t i;

    (void)user;
    for (i = 0; i < request->n_paths; i++) {
        string_value path = GOOGLE__PROTOBUF__STRING_VALUE__INIT;

        path.value = request->paths[i];
        plugin__well_known__events__split__send(call, &path, NULL, NULL);
    }
    grpc_c_call_finish(call, &ok);
}

static void ping(grpc_c_call *call, const Google__Protobuf__Empty *request, void *user)
{
    timestamp now = GOOGLE__PROTOBUF__TIMESTAMP__INIT;

    (void)request;
    (void)user;
    now.seconds = 1;
    now.nanos = 2;
    plugin__well_known__events__ping__reply(call, &now);
}

static const struct plugin__well_known__events_handlers handlers = {
    .echo = echo,
    .split = split,
    .ping = ping,
};

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    char address[64];
    char error[256];
    int port;

    assert_non_null(fixture);
    fixture->server = grpc_c_server_create(NULL);
    assert_non_null(fixture->server);
    assert_int_equal(
        grpc_c_server_listen(fixture->server, "127.0.0.1:0", &port, error, sizeof(error)), 0);
    assert_int_equal(plugin__well_known__events__service_init(fixture->server, &handlers), 0);
    assert_int_equal(grpc_c_server_start(fixture->server), 0);
    (void)snprintf(address, sizeof(address), "127.0.0.1:%d", port);
    fixture->channel = grpc_c_channel_create(address, NULL);
    assert_non_null(fixture->channel);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;

    grpc_c_channel_destroy(fixture->channel);
    grpc_c_server_destroy(fixture->server);
    free(fixture);
    return 0;
}

/* -- the tests -------------------------------------------------------------------------------- */

static void echo_comes_back_as_it_was(const struct fixture *fixture, const event *sent)
{
    struct grpc_c_result result = {0};
    event *got = plugin__well_known__events__echo__sync(fixture->channel, sent, &patience, &result);
    size_t size = plugin__well_known__event__get_packed_size(sent);
    uint8_t *before = malloc(size);
    uint8_t *after = malloc(size);

    assert_non_null(got);
    assert_non_null(before);
    assert_non_null(after);
    assert_int_equal(plugin__well_known__event__get_packed_size(got), size);
    plugin__well_known__event__pack(sent, before);
    plugin__well_known__event__pack(got, after);
    assert_memory_equal(before, after, size);
    free(before);
    free(after);
    plugin__well_known__event__free_unpacked(got, NULL);
    grpc_c_result_fini(&result);
}

static void scalars_and_times_come_back(void **state)
{
    event sent = PLUGIN__WELL_KNOWN__EVENT__INIT;
    timestamp at = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    Google__Protobuf__Duration took = GOOGLE__PROTOBUF__DURATION__INIT;
    string_value note = GOOGLE__PROTOBUF__STRING_VALUE__INIT;
    Google__Protobuf__BoolValue urgent = GOOGLE__PROTOBUF__BOOL_VALUE__INIT;
    Google__Protobuf__Int64Value delta = GOOGLE__PROTOBUF__INT64_VALUE__INIT;
    Google__Protobuf__BytesValue blob = GOOGLE__PROTOBUF__BYTES_VALUE__INIT;
    Google__Protobuf__DoubleValue weight = GOOGLE__PROTOBUF__DOUBLE_VALUE__INIT;
    Plugin__Other__Number number = PLUGIN__OTHER__NUMBER__INIT;
    uint8_t bytes[] = {0, 255};

    at.seconds = 1700000000;
    at.nanos = 999999999;
    took.seconds = -1;
    took.nanos = -500000000;
    note.value = "gr\xc3\xbc\xc3\x9f";
    urgent.value = 1;
    delta.value = INT64_MIN;
    blob.value.data = bytes;
    blob.value.len = sizeof(bytes);
    weight.value = 0.1;
    number.value = 7;
    sent.at = &at;
    sent.took = &took;
    sent.note = &note;
    sent.urgent = &urgent;
    sent.delta = &delta;
    sent.blob = &blob;
    sent.weight = &weight;
    sent.number = &number;
    echo_comes_back_as_it_was(*state, &sent);
}

/* {"inner": {"list": [1.5, null]}} */
static void struct_comes_back_with_what_it_holds(void **state)
{
    event sent = PLUGIN__WELL_KNOWN__EVENT__INIT;
    Google__Protobuf__Value leaf = GOOGLE__PROTOBUF__VALUE__INIT;
    Google__Protobuf__Value null = GOOGLE__PROTOBUF__VALUE__INIT;
    Google__Protobuf__Value *leaves[] = {&leaf, &null};
    Google__Protobuf__ListValue list = GOOGLE__PROTOBUF__LIST_VALUE__INIT;
    Google__Protobuf__Value array = GOOGLE__PROTOBUF__VALUE__INIT;
    Google__Protobuf__Value object = GOOGLE__PROTOBUF__VALUE__INIT;
    Google__Protobuf__Struct__FieldsEntry entries[] = {
        GOOGLE__PROTOBUF__STRUCT__FIELDS_ENTRY__INIT,
        GOOGLE__PROTOBUF__STRUCT__FIELDS_ENTRY__INIT,
    };
    Google__Protobuf__Struct__FieldsEntry *fields[] = {&entries[0], &entries[1]};
    Google__Protobuf__Struct inner = GOOGLE__PROTOBUF__STRUCT__INIT;
    Google__Protobuf__Struct outer = GOOGLE__PROTOBUF__STRUCT__INIT;

    leaf.kind_case = GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE;
    leaf.number_value = 1.5;
    null.kind_case = GOOGLE__PROTOBUF__VALUE__KIND_NULL_VALUE;
    list.n_values = 2;
    list.values = leaves;
    array.kind_case = GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE;
    array.list_value = &list;
    entries[1].key = "list";
    entries[1].value = &array;
    inner.n_fields = 1;
    inner.fields = &fields[1];
    object.kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE;
    object.struct_value = &inner;
    entries[0].key = "inner";
    entries[0].value = &object;
    outer.n_fields = 1;
    outer.fields = fields;
    sent.labels = &outer;
    echo_comes_back_as_it_was(*state, &sent);
}

static void any_comes_back_with_what_it_holds(void **state)
{
    event sent = PLUGIN__WELL_KNOWN__EVENT__INIT;
    Google__Protobuf__Any cause = GOOGLE__PROTOBUF__ANY__INIT;
    Google__Protobuf__Duration held = GOOGLE__PROTOBUF__DURATION__INIT;
    uint8_t packed[32];

    held.seconds = 5;
    cause.type_url = "type.googleapis.com/google.protobuf.Duration";
    cause.value.len = google__protobuf__duration__pack(&held, packed);
    cause.value.data = packed;
    sent.cause = &cause;
    echo_comes_back_as_it_was(*state, &sent);
}

static void well_known_types_are_requests_and_responses(void **state)
{
    const struct fixture *fixture = *state;
    struct grpc_c_result result = {0};
    Google__Protobuf__Empty nothing = GOOGLE__PROTOBUF__EMPTY__INIT;
    timestamp *now =
        plugin__well_known__events__ping__sync(fixture->channel, &nothing, &patience, &result);

    assert_non_null(now);
    assert_int_equal(now->seconds, 1);
    assert_int_equal(now->nanos, 2);
    google__protobuf__timestamp__free_unpacked(now, NULL);
    grpc_c_result_fini(&result);
}

static void well_known_types_are_streamed(void **state)
{
    const struct fixture *fixture = *state;
    struct grpc_c_result result = {0};
    grpc_c_stream *stream = plugin__well_known__events__split__open(fixture->channel, &patience);
    field_mask mask = GOOGLE__PROTOBUF__FIELD_MASK__INIT;
    char *paths[] = {"at.seconds", "note"};
    size_t i;

    assert_non_null(stream);
    mask.n_paths = 2;
    mask.paths = paths;
    assert_int_equal(plugin__well_known__events__split__write(stream, &mask), 0);
    for (i = 0; i < 2; i++) {
        string_value *path = plugin__well_known__events__split__read(stream);

        assert_non_null(path);
        assert_string_equal(path->value, paths[i]);
        google__protobuf__string_value__free_unpacked(path, NULL);
    }
    assert_null(plugin__well_known__events__split__read(stream));
    grpc_c_stream_finish(stream, &result);
    assert_int_equal(result.code, GRPC_C_OK);
    grpc_c_result_fini(&result);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(scalars_and_times_come_back, setup, teardown),
        cmocka_unit_test_setup_teardown(struct_comes_back_with_what_it_holds, setup, teardown),
        cmocka_unit_test_setup_teardown(any_comes_back_with_what_it_holds, setup, teardown),
        cmocka_unit_test_setup_teardown(well_known_types_are_requests_and_responses, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(well_known_types_are_streamed, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
