/* Reading: every ref that is not the ref of a record is refused, each with its own reason. */
#include "store_fixture.h"

#include <endian.h>
#include <string.h>

static void a_ref_past_the_end_is_no_record(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_text(fx->store, "payload");
    ref.offset = 11;
    assert_unreadable(fx->store, &ref, PLS_NO_RECORD);
    ref.offset = 1u << 30;
    assert_unreadable(fx->store, &ref, PLS_NO_RECORD);
    ref.crc32c = 0;
    assert_unreadable(fx->store, &ref, PLS_NO_RECORD);
}

static void a_ref_into_the_middle_of_a_record_is_no_record(void **state)
{
    struct fixture *fx = *state;
    /* The payload looks like a record itself. */
    struct pls_ref ref = put(fx->store, "\3\0\0\0abc", 7);
    struct pls_ref inner = {.offset = ref.offset + 4, .length = 3};
    assert_unreadable(fx->store, &inner, PLS_NO_RECORD);
    fx_reopen(fx);
    assert_unreadable(fx->store, &inner, PLS_NO_RECORD);
    inner.offset = 2;
    assert_unreadable(fx->store, &inner, PLS_NO_RECORD);
}

static void a_ref_with_the_wrong_length_is_no_record(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_text(fx->store, "payload");
    put_text(fx->store, "another");
    const uint32_t lengths[] = {0, 6, 8, 18, PLS_PAYLOAD_LIMIT};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        ref.length = lengths[i];
        assert_unreadable(fx->store, &ref, PLS_NO_RECORD);
    }
}

static void a_ref_to_a_segment_that_never_was_is_no_record(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_text(fx->store, "payload");
    ref.file_id = 1;
    assert_unreadable(fx->store, &ref, PLS_NO_RECORD);
    ref.file_id = UINT32_MAX;
    assert_unreadable(fx->store, &ref, PLS_NO_RECORD);
}

static void numbers_that_could_never_have_been_a_ref_are_invalid(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_text(fx->store, "payload");
    const struct pls_ref impossible[] = {
        {.offset = UINT64_MAX, .length = 7},
        {.offset = UINT64_MAX - 10, .length = 7},
        {.offset = 1ull << 63, .length = 0},
        {.offset = 1ull << 62, .length = 7},
        {.offset = 0, .length = PLS_PAYLOAD_LIMIT + 1u},
        {.offset = 0, .length = UINT32_MAX},
        {.file_id = 9, .offset = UINT64_MAX, .length = UINT32_MAX},
    };
    for (size_t i = 0; i < sizeof impossible / sizeof *impossible; i++) {
        assert_unreadable(fx->store, &impossible[i], PLS_INVALID_REF);
    }
    assert_text(fx->store, &ref, "payload");
}

static void a_checksum_that_differs_is_damage(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_text(fx->store, "payload");
    struct pls_ref other = ref;
    other.crc32c++;
    assert_unreadable(fx->store, &other, PLS_DAMAGED);
    fx_reopen(fx);
    assert_unreadable(fx->store, &other, PLS_DAMAGED);
    assert_text(fx->store, &ref, "payload");
}

static void changed_bytes_are_damage_to_that_record_alone(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref before = put_text(fx->store, "before");
    struct pls_ref hit = put_text(fx->store, "payload");
    struct pls_ref after = put_text(fx->store, "after");
    struct pls_ref bare = hit;
    bare.crc32c = 0;
    file_flip(fx, "s/payload_0000.dat", hit.offset + 4);
    assert_unreadable(fx->store, &hit, PLS_DAMAGED);
    assert_unreadable(fx->store, &bare, PLS_DAMAGED); /* the index knows it, too */
    assert_text(fx->store, &before, "before");
    assert_text(fx->store, &after, "after");
}

static void a_changed_length_prefix_is_damage(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_text(fx->store, "payload");
    struct pls_ref after = put_text(fx->store, "after");
    file_flip(fx, "s/payload_0000.dat", 0);
    assert_unreadable(fx->store, &ref, PLS_DAMAGED);
    assert_text(fx->store, &after, "after");
}

static void a_file_cut_short_under_us_is_damage(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref first = put_text(fx->store, "first");
    struct pls_ref second = put_text(fx->store, "second");
    file_cut(fx, "s/payload_0000.dat", second.offset + 5);
    assert_unreadable(fx->store, &second, PLS_DAMAGED);
    assert_text(fx->store, &first, "first");
}

static void a_view_outlives_its_store(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_text(fx->store, "payload");
    struct pls_view view;
    assert_int_equal(try_read(fx->store, &ref, &view), PLS_OK);
    fx_reopen(fx);
    assert_memory_equal(view.data, "payload", 7);
    pls_view_release(&view);
    assert_null(view.data);
    pls_view_release(&view); /* zeroed: nothing happens */
}

static void a_large_payload_reads_back(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_filled(fx->store, 20 * MIB, 1);
    assert_filled(fx->store, &ref, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(a_ref_past_the_end_is_no_record),
        STORE_TEST(a_ref_into_the_middle_of_a_record_is_no_record),
        STORE_TEST(a_ref_with_the_wrong_length_is_no_record),
        STORE_TEST(a_ref_to_a_segment_that_never_was_is_no_record),
        STORE_TEST(numbers_that_could_never_have_been_a_ref_are_invalid),
        STORE_TEST(a_checksum_that_differs_is_damage),
        STORE_TEST(changed_bytes_are_damage_to_that_record_alone),
        STORE_TEST(a_changed_length_prefix_is_damage),
        STORE_TEST(a_file_cut_short_under_us_is_damage),
        STORE_TEST(a_view_outlives_its_store),
        STORE_TEST(a_large_payload_reads_back),
    };
    return cmocka_run_group_tests_name("store_read", tests, NULL, NULL);
}
