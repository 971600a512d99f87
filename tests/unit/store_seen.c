/*
 * What an in-process store of this format was seen to do when pushed, as far as no other test has
 * it: a segment that vanished, a deletion that walks every id, a length that is taken modulo 2^32,
 * a read that takes in a whole file while appends wait.
 */
#include "store_fixture.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "store.h"
#include "sys.h"

static void file_vanish(const struct fixture *fx, const char *name)
{
    char path[PATH_MAX];
    assert_true(snprintf(path, sizeof path, "%s/%s", fx->path, name) < (int)sizeof path);
    assert_int_equal(unlink(path), 0);
}

/* Closes, takes a segment away, and opens again. */
static void lose(struct fixture *fx, uint32_t id)
{
    char name[64];
    snprintf(name, sizeof name, "s/payload_%04u.dat", id);
    fx_close(fx);
    file_vanish(fx, name);
    fx->log[0] = '\0';
    fx_open(fx);
}

static bool logged_missing(struct fixture *fx, uint32_t id)
{
    char words[64];
    snprintf(words, sizeof words, "segment_missing: segment %u,", id);
    return fx_logged(fx, words);
}

/* -- a segment that vanished ------------------------------------------------------------------- */

static void the_active_segment_of_a_clean_close_is_missed(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref first = put_filled(fx->store, 2 * MIB, 1);
    struct pls_ref lost = put_text(fx->store, "lost");
    assert_int_equal(lost.file_id, 1);
    lose(fx, 1);
    assert_true(logged_missing(fx, 1));
    assert_unreadable(fx->store, &lost, PLS_NO_RECORD);
    assert_filled(fx->store, &first, 1);
    struct pls_ref next = put_text(fx->store, "next");
    assert_ref(&next, 2, 0, 4); /* its id is not used again */
    assert_unreadable(fx->store, &lost, PLS_NO_RECORD);
}

static void the_segment_a_seal_made_is_missed(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref first = put_text(fx->store, "first");
    struct pls_seal given = seal(fx->store);
    fx->options.segment_max_bytes = 100;
    fx_reopen(fx);
    struct pls_ref lost = put_filled(fx->store, 200, 1);
    put_text(fx->store, "in the one after it");
    assert_int_equal(lost.file_id, given.sealed_id + 2);
    lose(fx, lost.file_id);
    assert_true(logged_missing(fx, lost.file_id));
    assert_unreadable(fx->store, &lost, PLS_NO_RECORD);
    compact_ok(fx->store, &given, &first, 1);
}

static void an_output_and_a_kept_segment_are_missed(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref kept = put_filled(fx->store, 2 * MIB, 1);
    struct pls_ref small = put_text(fx->store, "small");
    struct pls_ref both[] = {kept, small};
    struct pls_seal given = seal(fx->store);
    struct pls_compact_options options = {.min_garbage_percent = 50};
    struct outcome outcome;
    compact(fx->store, &given, &options, both, 2, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    assert_int_equal(outcome.summary.kept_segments, 1);
    struct pls_ref now = *moved(&outcome, &small);
    outcome_fini(&outcome);
    fx_reopen(fx);
    assert_false(fx_logged(fx, "segment_missing"));
    lose(fx, now.file_id);
    assert_true(logged_missing(fx, now.file_id));
    assert_false(logged_missing(fx, kept.file_id));
    assert_unreadable(fx->store, &now, PLS_NO_RECORD);
    assert_unreadable(fx->store, &small, PLS_NO_RECORD); /* the old name goes the same way */
    assert_filled(fx->store, &kept, 1);
    lose(fx, kept.file_id);
    assert_true(logged_missing(fx, kept.file_id));
    assert_unreadable(fx->store, &kept, PLS_NO_RECORD);
}

/* It made every later compaction fail. */
static void a_missing_segment_stops_no_compaction(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref first = put_filled(fx->store, 2 * MIB, 1);
    struct pls_ref lost = put_text(fx->store, "lost");
    struct pls_ref both[] = {first, lost};
    lose(fx, lost.file_id);
    struct pls_ref last = put_text(fx->store, "last");
    struct pls_seal given = seal(fx->store);
    struct outcome outcome;
    /* A live ref into it is one that cannot be read: named, and nothing is changed. */
    compact(fx->store, &given, NULL, both, 2, &outcome);
    assert_int_equal(outcome.code, PLS_LIVE_NO_RECORD);
    assert_non_null(strstr(outcome.error.text, "live ref 1:0 of 4 bytes"));
    outcome_fini(&outcome);
    struct pls_compact_options options = {.keep_damaged = true};
    compact(fx->store, &given, &options, both, 2, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    assert_int_equal(outcome.n_damaged, 1);
    assert_int_equal(outcome.damaged[0].code, PLS_LIVE_NO_RECORD);
    assert_int_equal(outcome.summary.kept_segments, 0);
    first = *moved(&outcome, &first);
    outcome_fini(&outcome);
    assert_filled(fx->store, &first, 1);
    assert_unreadable(fx->store, &last, PLS_NO_RECORD);
    /* And the next, without that ref, needs nothing special. */
    put_text(fx->store, "more");
    given = seal(fx->store);
    compact_ok(fx->store, &given, &first, 1);
    assert_filled(fx->store, &first, 1);
}

/* Another program may leave ids out. */
static void a_gap_in_the_ids_is_nothing_to_tell(void **state)
{
    struct fixture *fx = *state;
    fx_close(fx);
    file_write(fx, "gap/payload_0003.dat", 0, "\1\0\0\0a", 5);
    file_write(fx, "gap/payload_0007.dat", 0, "\1\0\0\0b", 5);
    fx_open(fx);
    pls_store *gap;
    assert_int_equal(pls_store_open(fx->dir, "gap", 0, &gap, NULL), PLS_OK);
    struct pls_ref live[] = {{.file_id = 3, .length = 1}, {.file_id = 7, .length = 1}};
    struct pls_seal given = seal(gap);
    assert_seal(&given, 7, 8);
    compact_ok(gap, &given, live, 2);
    assert_text(gap, &live[0], "a");
    assert_text(gap, &live[1], "b");
    pls_store_release(gap);
    fx_reopen(fx);
    assert_false(fx_logged(fx, "segment_missing"));
}

/* -- what deleting costs ----------------------------------------------------------------------- */

/* The system calls it takes to compact everything away and to delete the store. */
static long calls_to_delete(struct fixture *fx, const char *name, uint32_t id)
{
    char path[64];
    pls_store *store;
    fx_close(fx);
    snprintf(path, sizeof path, "%s/payload_%04u.dat", name, id);
    file_write(fx, path, 0, "\1\0\0\0a", 5);
    fx_open(fx);
    assert_int_equal(pls_store_open(fx->dir, name, 0, &store, NULL), PLS_OK);
    struct pls_seal given = seal(store);
    assert_int_equal(given.sealed_id, id);
    plsi_sys_fail_at(0, 0); /* counts from here */
    compact_ok(store, &given, NULL, 0);
    assert_int_equal(pls_store_delete(fx->dir, name, 0, NULL, NULL), PLS_OK);
    long calls = plsi_sys_calls();
    pls_store_release(store);
    return calls;
}

static void deleting_costs_what_there_is_and_not_every_id_that_was(void **state)
{
    struct fixture *fx = *state;
    long at_2 = calls_to_delete(fx, "low", 2);
    assert_true(at_2 > 0);
    assert_int_equal(calls_to_delete(fx, "high", 200000), at_2);
}

/* -- a length of more than 32 bits ------------------------------------------------------------- */

static void a_payload_of_4_gib_is_refused_and_not_shortened(void **state)
{
    struct fixture *fx = *state;
    fx->options.payload_max_bytes = PLS_PAYLOAD_LIMIT;
    fx_reopen(fx);
    const size_t lengths[] = {(size_t)PLS_PAYLOAD_LIMIT + 1, (size_t)1 << 32,
                              ((size_t)1 << 32) + 3};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct pls_ref ref; /* the bytes are never looked at */
        assert_int_equal(try_append(fx->store, "abc", lengths[i], PLS_BUFFERED, &ref),
                         PLS_PAYLOAD_TOO_LARGE);
    }
    assert_int_equal(disk_usage(fx->store), 0);
}

/* -- a read beside an append ------------------------------------------------------------------- */

/* A blob that holds an append back until it is told, and notes what is read of it. */
static struct watched {
    const struct plsi_backend_ops *files;
    struct plsi_backend_ops ops;
    struct plsi_blob *blob;
    uint64_t offset;
    struct iovec *iov;
    int n;
    plsi_append_fn *done;
    void *arg;
    size_t bytes_read;
} watched;

static void hold_append(struct plsi_blob *blob, uint64_t offset, struct iovec *iov, int n,
                        plsi_append_fn *done, void *arg)
{
    watched.blob = blob;
    watched.offset = offset;
    watched.iov = iov;
    watched.n = n;
    watched.done = done;
    watched.arg = arg;
}

static bool note_read(struct plsi_blob *blob, uint64_t offset, void *data, size_t length,
                      enum plsi_wait wait, size_t *got, enum pls_code *code)
{
    watched.bytes_read += length;
    return watched.files->read(blob, offset, data, length, wait, got, code);
}

static void watch(pls_store *store)
{
    struct plsi_blob *blob = store->active->blob;
    watched = (struct watched){.files = blob->ops, .ops = *blob->ops};
    watched.ops.append = hold_append;
    watched.ops.read = note_read;
    blob->ops = &watched.ops;
}

static void on_append(struct pls_append *append, enum pls_code code)
{
    *(enum pls_code *)append->data = code;
}

static void a_read_beside_an_append_reads_its_record_alone(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref refs[100];
    for (uint32_t i = 0; i < 100; i++) {
        refs[i] = put_filled(fx->store, 1000, i);
    }
    watch(fx->store);
    enum pls_code code = PLS_N_CODES;
    const struct iovec part = {.iov_base = (char[]){"held"}, .iov_len = 4};
    struct pls_append append = {.payload = &part,
                                .n_payload = 1,
                                .durability = PLS_BUFFERED,
                                .done = on_append,
                                .data = &code};
    pls_append(fx->store, &append);
    bool held = watched.done != NULL, read = true; /* under way, for as long as we like */
    size_t most = 0;
    for (uint32_t i = 0; i < 100; i += 33) {
        watched.bytes_read = 0;
        read = read && reads_filled(fx->store, &refs[i], i);
        most = watched.bytes_read > most ? watched.bytes_read : most;
    }
    bool answered = code != PLS_N_CODES;
    watched.files->append(watched.blob, watched.offset, watched.iov, watched.n, watched.done,
                          watched.arg);
    assert_true(held && read && !answered);
    assert_in_range(most, 1004, 2 * 1004); /* twice where the bytes were not in memory */
    assert_int_equal(code, PLS_OK);
    assert_text(fx->store, &append.ref, "held");
    struct plsi_segment *segment = plsi_table_find(&fx->store->table, append.ref.file_id);
    segment->blob->ops = watched.files;
    plsi_segment_release(segment);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(the_active_segment_of_a_clean_close_is_missed),
        STORE_TEST(the_segment_a_seal_made_is_missed),
        STORE_TEST(an_output_and_a_kept_segment_are_missed),
        STORE_TEST(a_missing_segment_stops_no_compaction),
        STORE_TEST(a_gap_in_the_ids_is_nothing_to_tell),
        STORE_TEST(deleting_costs_what_there_is_and_not_every_id_that_was),
        STORE_TEST(a_payload_of_4_gib_is_refused_and_not_shortened),
        STORE_TEST(a_read_beside_an_append_reads_its_record_alone),
    };
    return cmocka_run_group_tests_name("store_seen", tests, NULL, NULL);
}
