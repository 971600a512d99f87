/* The check of wire bytes and the budget of unpacking, without a server. */
#include <grpc/grpc.h>
#include <stdlib.h>
#include <string.h>

#include "codec.h"
#include "grpc_c_fixture.h"

static const ProtobufCMessageDescriptor *const type = &grpcc__test__echo_request__descriptor;

static bool check(const void *bytes, size_t n, struct gci_error *error)
{
    memset(error, 0, sizeof(*error));
    return gci_wire_check(type, bytes, n, error);
}

/* Field 1 of EchoRequest with these bytes. */
static bool text_passes(const char *text, size_t n)
{
    uint8_t wire[64] = {0x0a, (uint8_t)n};
    struct gci_error error;

    memcpy(wire + 2, text, n);
    return check(wire, n + 2, &error);
}

static void utf8_is_told_from_what_is_not(void **state)
{
    static const char *const good[] = {
        "",
        "a",
        "\x7f",
        "\xc2\x80",
        "\xdf\xbf",
        "\xe0\xa0\x80",
        "\xed\x9f\xbf",
        "\xee\x80\x80",
        "\xef\xbf\xbf",
        "\xf0\x90\x80\x80",
        "\xf4\x8f\xbf\xbf",
        "a\xe2\x82\xacz",
    };
    static const char *const bad[] = {
        "\x80",
        "\xbf",
        "\xc0\x80",
        "\xc1\xbf",
        "\xc2",
        "\xc2z",
        "\xe0\x9f\xbf",
        "\xe0\xa0",
        "\xed\xa0\x80",
        "\xed\xbf\xbf",
        "\xf0\x8f\xbf\xbf",
        "\xf0\x90\x80",
        "\xf4\x90\x80\x80",
        "\xf5\x80\x80\x80",
        "\xff",
        "\xfe",
        "ok\xe2\x82",
        "\xe2\x82z",
        "\xf8\x88\x80\x80\x80",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_true(text_passes(good[i], strlen(good[i])));
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(text_passes(bad[i], strlen(bad[i])));
    }
    assert_false(text_passes("a\0b", 3));
    assert_false(text_passes("\0", 1));
}

static void a_refusal_names_the_field(void **state)
{
    /* inner.inner.name */
    static const uint8_t wire[] = {0x22, 0x05, 0x1a, 0x03, 0x0a, 0x01, 0xff};
    struct gci_error error;

    (void)state;
    assert_false(check(wire, sizeof(wire), &error));
    assert_int_equal(error.code, GRPC_C_INVALID_ARGUMENT);
    assert_string_equal(error.text, "grpcc.test.Inner.name: not valid UTF-8");
}

static void bad_framing_is_refused(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
    } bad[] = {
        {"\x0a", 1},                     /* no length */
        {"\x0a\x02z", 3},                /* short */
        {"\x0a\xff\xff\xff\xff\xff", 6}, /* length of six bytes */
        {"\x0a\xff\xff\xff\xff\x0f", 6}, /* above 2 GiB */
        {"\x0a\x80\x80\x80\x80\x10", 6}, /* what protobuf-c would cut to 0 */
        {"\x80", 1},                     /* a tag without end */
        {"\x80\x80\x80\x80\x80\x01", 6}, /* a tag of six bytes */
        {"\x30", 1},                     /* no varint */
        {"\x30\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 12},
        {"\x31zzzzzzz", 8},  /* short fixed64 */
        {"\x35zzz", 4},      /* short fixed32 */
        {"\x0b\x0c", 2},     /* a group */
        {"\x22\x01\x0a", 3}, /* in a nested message */
    };
    struct gci_error error;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(check(bad[i].bytes, bad[i].n, &error));
        assert_int_equal(error.code, GRPC_C_INVALID_ARGUMENT);
        assert_non_null(strstr(error.text, "malformed"));
    }
    assert_true(check("", 0, &error));
    assert_true(check("\x30\x01\xf9\x01zzzzzzzz", 12, &error)); /* an unknown fixed64 */
}

/* Puts `depth` messages inside each other in front of `end`; returns where they begin. */
static uint8_t *nest(uint8_t *end, unsigned depth)
{
    uint8_t *at = end;

    for (unsigned i = 0; i < depth; i++) {
        size_t n = (size_t)(end - at);
        if (n >= 128) {
            *--at = (uint8_t)(n >> 7);
            *--at = (uint8_t)(n | 0x80);
        } else {
            *--at = (uint8_t)n;
        }
        *--at = i + 1 == depth ? 0x22 : 0x1a; /* EchoRequest.inner, Inner.inner */
    }
    return at;
}

static void nesting_has_a_limit(void **state)
{
    uint8_t buffer[1024];
    uint8_t *end = buffer + sizeof(buffer);
    struct gci_error error;

    (void)state;
    for (unsigned depth = 1; depth <= 110; depth++) {
        uint8_t *at = nest(end, depth);
        assert_int_equal(check(at, (size_t)(end - at), &error), depth <= GCI_MAX_NESTING);
    }
    assert_non_null(strstr(error.text, "nested too deep"));
}

/* -- budget ----------------------------------------------------------------------------------- */

static echo_request *big_request(void)
{
    echo_request *request = malloc(sizeof(*request));
    static Grpcc__Test__Empty empty = GRPCC__TEST__EMPTY__INIT;
    static Grpcc__Test__Empty *empties[20];
    static char *names[] = {"a", "bb", "ccc"};
    static echo_inner innermost = ECHO_INNER;
    static echo_inner inner = ECHO_INNER;

    grpcc__test__echo_request__init(request);
    for (size_t i = 0; i < 20; i++) {
        empties[i] = &empty;
    }
    innermost.name = "innermost";
    innermost.payload.data = (uint8_t *)"zzz";
    innermost.payload.len = 3;
    inner.name = "inner";
    inner.inner = &innermost;
    request->text = "text";
    request->n_empties = 20;
    request->empties = empties;
    request->n_names = 3;
    request->names = names;
    request->inner = &inner;
    request->payload.data = (uint8_t *)"payload";
    request->payload.len = 7;
    return request;
}

/* Each allocation of the unpacking fails in turn, and none leaks or is freed twice. */
static void any_budget_ends_cleanly(void **state)
{
    echo_request *request = big_request();
    struct gci_error error;
    size_t budget = 0;
    echo_request *got;

    (void)state;
    grpc_init();
    for (;;) {
        got = (echo_request *)gci_unpack(type, gci_pack(&request->base), budget, &error);
        if (got != NULL) {
            break;
        }
        assert_int_equal(error.code, GRPC_C_RESOURCE_EXHAUSTED);
        budget += 4;
    }
    assert_in_range(budget, 500, 10000);
    assert_int_equal(got->n_empties, 20);
    assert_string_equal(got->inner->inner->name, "innermost");
    grpcc__test__echo_request__free_unpacked(got, NULL);
    free(request);
    grpc_shutdown();
}

/* -- chance ----------------------------------------------------------------------------------- */

static bool strings_valid(const echo_request *request)
{
    const echo_inner *inner = request->inner;
    bool ok = text_passes(request->text, strnlen(request->text, 60));

    for (; inner != NULL; inner = inner->inner) {
        ok = ok && text_passes(inner->name, strnlen(inner->name, 60));
    }
    for (size_t i = 0; i < request->n_names; i++) {
        ok = ok && text_passes(request->names[i], strnlen(request->names[i], 60));
    }
    return ok;
}

/* Whatever passes the check and is unpacked holds valid strings only, and nothing crashes. */
static void damaged_messages_do_no_harm(void **state)
{
    echo_request *request = big_request();
    size_t n = protobuf_c_message_get_packed_size(&request->base);
    uint8_t *good = malloc(n);
    unsigned seed = 7;
    unsigned passed = 0;

    (void)state;
    grpc_init();
    protobuf_c_message_pack(&request->base, good);
    for (int round = 0; round < 30000; round++) {
        grpc_slice slice = grpc_slice_from_copied_buffer((char *)good, n);
        struct gci_error error;
        echo_request *got;
        grpc_byte_buffer *buffer;
        for (int k = rand_r(&seed) % 4; k >= 0; k--) {
            GRPC_SLICE_START_PTR(slice)[(size_t)rand_r(&seed) % n] = (uint8_t)rand_r(&seed);
        }
        buffer = grpc_raw_byte_buffer_create(&slice, 1);
        grpc_slice_unref(slice);
        got = (echo_request *)gci_unpack(type, buffer, 1 << 20, &error);
        if (got != NULL) {
            assert_true(strings_valid(got));
            grpcc__test__echo_request__free_unpacked(got, NULL);
            passed++;
        }
    }
    assert_in_range(passed, 100, 29900);
    free(good);
    free(request);
    grpc_shutdown();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(utf8_is_told_from_what_is_not),
        cmocka_unit_test(a_refusal_names_the_field),
        cmocka_unit_test(bad_framing_is_refused),
        cmocka_unit_test(nesting_has_a_limit),
        cmocka_unit_test(any_budget_ends_cleanly),
        cmocka_unit_test(damaged_messages_do_no_harm),
    };

    return cmocka_run_group_tests_name("grpc_c_codec", tests, NULL, NULL);
}
