/* What is written down by hand is what protobuf-c would have packed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <payloadstore/payloadstore.h>

#include "payloadstore/v1/payload_store.pb-c.h"
#include "read_results.h"

/* Around each length at which a varint grows, of the payload or of what is around it. */
static const uint32_t lengths[] = {0,       1,       2,       100,     123,     124,     125,
                                   126,     127,     128,     129,     1024,    16379,   16380,
                                   16381,   16382,   16383,   16384,   16385,   262144,  2097146,
                                   2097147, 2097148, 2097149, 2097150, 2097151, 2097152, 2097153};
#define LENGTHS (sizeof lengths / sizeof *lengths)

static uint8_t byte_of(size_t i, uint32_t length)
{
    return (uint8_t)(i * 7 + length + (i >> 9));
}

/* As a read does it: something before the payload, too. */
static uint8_t *put_by_hand(uint8_t *result, uint32_t length)
{
    uint8_t *room = psd_result_room(result, length);
    memset(room, 0xee, PLS_ROOM(0));
    for (size_t i = 0; i < length; i++) {
        room[PLS_ROOM(0) + i] = byte_of(i, length);
    }
    assert_true(room >= result);
    uint8_t *end = psd_result_finish(result, length);
    assert_ptr_equal(end, room + PLS_ROOM(length));
    assert_ptr_equal(end, result + psd_result_bytes(length));
    return end;
}

static uint8_t *pack(const uint32_t *of, size_t n, size_t *bytes)
{
    Payloadstore__V1__ReadStreamResponse response = PAYLOADSTORE__V1__READ_STREAM_RESPONSE__INIT;
    Payloadstore__V1__ReadResult *results = calloc(n + 1, sizeof *results);
    response.results = calloc(n + 1, sizeof(Payloadstore__V1__ReadResult *));
    response.n_results = n;
    for (size_t i = 0; i < n; i++) {
        payloadstore__v1__read_result__init(&results[i]);
        results[i].outcome_case = PAYLOADSTORE__V1__READ_RESULT__OUTCOME_PAYLOAD;
        results[i].payload.len = of[i];
        results[i].payload.data = malloc(of[i] + 1u);
        for (size_t k = 0; k < of[i]; k++) {
            results[i].payload.data[k] = byte_of(k, of[i]);
        }
        response.results[i] = &results[i];
    }
    *bytes = payloadstore__v1__read_stream_response__get_packed_size(&response);
    uint8_t *packed = malloc(*bytes + 1);
    payloadstore__v1__read_stream_response__pack(&response, packed);
    for (size_t i = 0; i < n; i++) {
        free(results[i].payload.data);
    }
    free(response.results);
    free(results);
    return packed;
}

static void assert_same(const uint32_t *of, size_t n)
{
    size_t packed_bytes, bytes = 0;
    uint8_t *packed = pack(of, n, &packed_bytes);
    for (size_t i = 0; i < n; i++) {
        bytes += psd_result_bytes(of[i]);
    }
    assert_int_equal(bytes, packed_bytes);
    uint8_t *hand = malloc(bytes + 1), *at = hand;
    for (size_t i = 0; i < n; i++) {
        at = put_by_hand(at, of[i]);
    }
    assert_ptr_equal(at, hand + bytes);
    assert_memory_equal(hand, packed, bytes);
    free(hand);
    free(packed);
}

static void one_result_is_what_protobuf_c_packs(void **state)
{
    (void)state;
    for (size_t i = 0; i < LENGTHS; i++) {
        assert_same(&lengths[i], 1);
    }
}

static void many_results_are_what_protobuf_c_packs(void **state)
{
    (void)state;
    assert_same(lengths, LENGTHS);
    assert_same(lengths, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_result_is_what_protobuf_c_packs),
        cmocka_unit_test(many_results_are_what_protobuf_c_packs),
    };
    return cmocka_run_group_tests_name("server_read_results", tests, NULL, NULL);
}
