/* The index of a segment: entries found, across the chunks it is made of. */
#include "store_fixture.h"

#include "index.h"

static struct plsi_index *index_of(uint64_t n)
{
    struct plsi_index *index = plsi_index_create();
    assert_non_null(index);
    for (uint64_t i = 0; i < n; i++) {
        assert_int_equal(plsi_index_reserve(index, 1), PLS_OK);
        plsi_index_add(index, &(struct plsi_entry){.offset = i * 10, .length = (uint32_t)i});
    }
    return index;
}

static void every_entry_is_found_and_nothing_else(void **state)
{
    (void)state;
    /* Around the chunks' borders: 64, then 128, 256 ... more. */
    const uint64_t counts[] = {0, 1, 63, 64, 65, 191, 192, 193, 448, 5000};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        struct plsi_index *index = index_of(counts[c]);
        uint64_t found;
        assert_int_equal(plsi_index_count(index), counts[c]);
        for (uint64_t i = 0; i < counts[c]; i++) {
            assert_true(plsi_index_find(index, i * 10, &found));
            assert_int_equal(found, i);
            assert_int_equal(plsi_index_at(index, i)->length, i);
            assert_false(plsi_index_find(index, i * 10 + 1, &found));
        }
        assert_false(plsi_index_find(index, counts[c] * 10, &found));
        assert_false(plsi_index_find(index, UINT64_MAX, &found));
        plsi_index_release(index);
    }
}

static void entries_that_were_cut_are_gone_and_can_be_written_anew(void **state)
{
    (void)state;
    struct plsi_index *index = index_of(200);
    uint64_t found;
    plsi_index_cut(index, 70);
    assert_false(plsi_index_find(index, 700, &found));
    assert_true(plsi_index_find(index, 690, &found));
    assert_int_equal(plsi_index_reserve(index, 1), PLS_OK);
    plsi_index_add(index, &(struct plsi_entry){.offset = 701});
    assert_true(plsi_index_find(index, 701, &found));
    assert_int_equal(found, 70);
    plsi_index_release(index);
}

static void room_for_many_is_made_at_once(void **state)
{
    (void)state;
    struct plsi_index *index = plsi_index_create();
    assert_non_null(index);
    assert_int_equal(plsi_index_reserve(index, 1000), PLS_OK);
    for (uint64_t i = 0; i < 1000; i++) {
        plsi_index_add(index, &(struct plsi_entry){.offset = i});
    }
    assert_int_equal(plsi_index_at(index, 999)->offset, 999);
    struct plsi_index *held = plsi_index_hold(index);
    plsi_index_release(index);
    assert_int_equal(plsi_index_count(held), 1000);
    plsi_index_release(held);
    plsi_index_release(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_entry_is_found_and_nothing_else),
        cmocka_unit_test(entries_that_were_cut_are_gone_and_can_be_written_anew),
        cmocka_unit_test(room_for_many_is_made_at_once),
    };
    return cmocka_run_group_tests_name("store_index", tests, NULL, NULL);
}
