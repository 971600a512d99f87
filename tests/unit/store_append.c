/* Appending: where records go, what they look like on disk, and what is refused. */
#include "store_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void append_then_read_gives_the_payload_back(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_text(fx->store, "hello world");
    assert_ref(&ref, 0, 0, 11);
    assert_text(fx->store, &ref, "hello world");
}

static void records_lie_end_to_end(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref abc = put_text(fx->store, "abc");
    struct pls_ref def = put_text(fx->store, "def");
    struct pls_ref ghi = put_text(fx->store, "ghi");
    assert_ref(&abc, 0, 0, 3);
    assert_ref(&def, 0, 7, 3);
    assert_ref(&ghi, 0, 14, 3);
    assert_text(fx->store, &abc, "abc");
    assert_text(fx->store, &def, "def");
    assert_text(fx->store, &ghi, "ghi");

    char file[21];
    assert_int_equal(file_size(fx, "s/payload_0000.dat"), sizeof file);
    file_read(fx, "s/payload_0000.dat", 0, file, sizeof file);
    assert_memory_equal(file, "\3\0\0\0abc\3\0\0\0def\3\0\0\0ghi", sizeof file);
}

static void one_payload_of_four_bytes_uses_eight(void **state)
{
    struct fixture *fx = *state;
    put_text(fx->store, "four");
    assert_int_equal(disk_usage(fx->store), 8);
}

/* Both over several segments of a MiB. */
static void hundreds_of_appends_read_back_before_and_after_a_restart(void **state)
{
    enum { N = 400 };
    struct fixture *fx = *state;
    struct pls_ref refs[N];
    for (uint32_t i = 0; i < N; i++) {
        refs[i] = put_filled(fx->store, 1000 + (size_t)i * 37 % 20000, i);
    }
    assert_true(refs[N - 1].file_id >= 3);
    for (uint32_t i = 0; i < N; i++) {
        assert_filled(fx->store, &refs[i], i);
    }
    fx_reopen(fx);
    for (uint32_t i = 0; i < N; i++) {
        assert_filled(fx->store, &refs[i], i);
        refs[i].crc32c = 0;
        assert_filled(fx->store, &refs[i], i);
    }
}

static void a_segment_overshoots_by_at_most_one_record(void **state)
{
    struct fixture *fx = *state;
    /* 4 records of 256 KiB fill the segment to its maximum to the byte: it takes one more. */
    for (uint32_t i = 0; i < 5; i++) {
        struct pls_ref ref = put_filled(fx->store, 256 * KIB - 4, i);
        assert_ref(&ref, 0, (uint64_t)i * 256 * KIB, 256 * KIB - 4);
    }
    struct pls_ref next = put_text(fx->store, "next");
    assert_ref(&next, 1, 0, 4);
    assert_int_equal(file_size(fx, "s/payload_0000.dat"), 256 * KIB * 5);
}

static void a_payload_larger_than_a_segment_has_one_to_itself(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref large = put_filled(fx->store, 5 * MIB, 1);
    struct pls_ref next = put_text(fx->store, "next");
    assert_ref(&large, 0, 0, 5 * MIB);
    assert_ref(&next, 1, 0, 4);
    assert_filled(fx->store, &large, 1);
}

static void an_empty_payload_is_a_record(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref a = put(fx->store, NULL, 0);
    struct pls_ref b = put_text(fx->store, "b");
    struct pls_ref c = put(fx->store, "", 0);
    assert_ref(&a, 0, 0, 0);
    assert_ref(&b, 0, 4, 1);
    assert_ref(&c, 0, 9, 0);
    fx_reopen(fx);
    assert_text(fx->store, &a, "");
    assert_text(fx->store, &b, "b");
    assert_text(fx->store, &c, "");
}

struct collected {
    enum pls_code code;
    bool came;
};

static void on_append(struct pls_append *append, enum pls_code code)
{
    struct collected *collected = append->data;
    *collected = (struct collected){.code = code, .came = true};
}

/* BUFFERED, into a segment that is there: answered before pls_append returns. */
static enum pls_code append_parts(pls_store *store, const struct iovec *parts, int n,
                                  uint64_t epoch, struct pls_ref *ref)
{
    struct collected collected = {0};
    struct pls_append append = {.payload = parts,
                                .n_payload = n,
                                .durability = PLS_BUFFERED,
                                .epoch = epoch,
                                .done = on_append,
                                .data = &collected};
    pls_append(store, &append);
    assert_true(collected.came);
    *ref = append.ref;
    return collected.code;
}

static void the_parts_of_a_payload_are_joined(void **state)
{
    struct fixture *fx = *state;
    struct iovec parts[] = {
        {"one ", 4}, {NULL, 0}, {"two ", 4}, {"", 0}, {"three", 5}, {NULL, 0},
    };
    struct pls_ref ref;
    assert_int_equal(append_parts(fx->store, parts, 6, 0, &ref), PLS_OK);
    assert_text(fx->store, &ref, "one two three");
    assert_int_equal(append_parts(fx->store, NULL, 0, 0, &ref), PLS_OK);
    assert_text(fx->store, &ref, "");
}

static void as_many_parts_as_are_allowed_and_not_one_more(void **state)
{
    struct fixture *fx = *state;
    struct iovec parts[PLS_PARTS_MAX + 1];
    char text[PLS_PARTS_MAX + 1] = "";
    for (size_t i = 0; i <= PLS_PARTS_MAX; i++) {
        parts[i] = (struct iovec){.iov_base = (char *)"abcdefg" + i % 7, .iov_len = 1};
    }
    for (size_t i = 0; i < PLS_PARTS_MAX; i++) {
        text[i] = (char)('a' + i % 7);
    }
    struct pls_ref ref;
    assert_int_equal(append_parts(fx->store, parts, PLS_PARTS_MAX, 0, &ref), PLS_OK);
    assert_text(fx->store, &ref, text);
    assert_int_equal(append_parts(fx->store, parts, PLS_PARTS_MAX + 1, 0, &ref),
                     PLS_INVALID_ARGUMENT);
    assert_int_equal(append_parts(fx->store, parts, -1, 0, &ref), PLS_INVALID_ARGUMENT);
}

static void too_large_a_payload_is_refused_and_leaves_no_trace(void **state)
{
    struct fixture *fx = *state;
    fx->options.payload_max_bytes = 1000;
    fx_reopen(fx);
    char data[1001] = "";
    struct pls_ref ref;
    assert_int_equal(try_append(fx->store, data, 1001, PLS_SYNCED, &ref), PLS_PAYLOAD_TOO_LARGE);
    /* The sum of the parts counts, and cannot wrap. */
    struct iovec halves[] = {{data, 600}, {data, 401}, {data, SIZE_MAX - 500}};
    assert_int_equal(append_parts(fx->store, halves, 2, 0, &ref), PLS_PAYLOAD_TOO_LARGE);
    assert_int_equal(append_parts(fx->store, halves, 3, 0, &ref), PLS_PAYLOAD_TOO_LARGE);
    assert_int_equal(append_parts(fx->store, halves + 2, 1, 0, &ref), PLS_PAYLOAD_TOO_LARGE);
    assert_int_equal(disk_usage(fx->store), 0);
    ref = put(fx->store, data, 1000);
    assert_ref(&ref, 0, 0, 1000);
}

static void another_epoch_than_the_stores_is_refused(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref;
    assert_int_equal(append_parts(fx->store, NULL, 0, 1, &ref), PLS_EPOCH_STALE);
    assert_int_equal(disk_usage(fx->store), 0);
}

static void a_synced_append_reads_back(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref a, b;
    assert_int_equal(try_append(fx->store, "aaa", 3, PLS_SYNCED, &a), PLS_OK);
    assert_int_equal(try_append(fx->store, "bb", 2, PLS_SYNCED, &b), PLS_OK);
    assert_ref(&b, 0, 7, 2);
    fx_crash(fx);
    assert_text(fx->store, &a, "aaa");
    assert_text(fx->store, &b, "bb");
}

static void refs_carry_the_checksum(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_text(fx->store, "123456789");
    assert_int_equal(ref.crc32c, 0xe3069283u); /* the check value of CRC-32C */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(append_then_read_gives_the_payload_back),
        STORE_TEST(records_lie_end_to_end),
        STORE_TEST(one_payload_of_four_bytes_uses_eight),
        STORE_TEST(hundreds_of_appends_read_back_before_and_after_a_restart),
        STORE_TEST(a_segment_overshoots_by_at_most_one_record),
        STORE_TEST(a_payload_larger_than_a_segment_has_one_to_itself),
        STORE_TEST(an_empty_payload_is_a_record),
        STORE_TEST(the_parts_of_a_payload_are_joined),
        STORE_TEST(as_many_parts_as_are_allowed_and_not_one_more),
        STORE_TEST(too_large_a_payload_is_refused_and_leaves_no_trace),
        STORE_TEST(another_epoch_than_the_stores_is_refused),
        STORE_TEST(a_synced_append_reads_back),
        STORE_TEST(refs_carry_the_checksum),
    };
    return cmocka_run_group_tests_name("store_append", tests, NULL, NULL);
}
