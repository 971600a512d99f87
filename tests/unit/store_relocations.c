/* The relocation table: a lost answer, names that are followed, and a commit that a crash cuts
 * anywhere. */
#include "store_fixture.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sys.h"

enum { N = 40, SIZE = 50 * 1024 }; /* two segments' worth */

static void put_all(pls_store *store, struct pls_ref *refs)
{
    for (uint32_t i = 0; i < N; i++) {
        refs[i] = put_filled(store, SIZE, i);
    }
}

static void assert_all(pls_store *store, const struct pls_ref *refs, uint32_t step)
{
    for (uint32_t i = 0; i < N; i += step) {
        assert_filled(store, &refs[i], i);
    }
}

static size_t take_every(uint32_t step, const struct pls_ref *refs, struct pls_ref *live)
{
    size_t n = 0;
    for (uint32_t i = 0; i < N; i += step) {
        live[n++] = refs[i];
    }
    return n;
}

static void assert_same(const struct outcome *a, const struct outcome *b)
{
    assert_int_equal(a->code, PLS_OK);
    assert_int_equal(b->code, PLS_OK);
    assert_memory_equal(&a->summary, &b->summary, sizeof a->summary);
    assert_int_equal(a->n_map, b->n_map);
    for (size_t i = 0; i < a->n_map; i++) {
        assert_int_equal(a->map[i].old_ref.file_id, b->map[i].old_ref.file_id);
        assert_int_equal(a->map[i].old_ref.offset, b->map[i].old_ref.offset);
        assert_int_equal(a->map[i].new_ref.file_id, b->map[i].new_ref.file_id);
        assert_int_equal(a->map[i].new_ref.offset, b->map[i].new_ref.offset);
    }
}

static void an_old_ref_reads_after_its_record_was_moved(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref refs[N], live[N];
    put_all(fx->store, refs);
    size_t n = take_every(3, refs, live);
    struct pls_seal given = seal(fx->store);
    compact_ok(fx->store, &given, live, n);
    assert_all(fx->store, refs, 3);
    assert_unreadable(fx->store, &refs[1], PLS_NO_RECORD);
    fx_crash(fx);
    assert_all(fx->store, refs, 3);
    assert_unreadable(fx->store, &refs[1], PLS_NO_RECORD);
}

static void a_wrong_length_or_checksum_is_not_followed(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_filled(fx->store, 100, 1);
    struct pls_seal given = seal(fx->store);
    compact_ok(fx->store, &given, &ref, 1);
    ref.length--;
    assert_unreadable(fx->store, &ref, PLS_NO_RECORD);
    ref.length++;
    ref.crc32c ^= 1;
    assert_unreadable(fx->store, &ref, PLS_DAMAGED);
    ref.crc32c = 0;
    assert_filled(fx->store, &ref, 1);
}

static void the_same_call_again_gives_the_same_answer(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref refs[N], live[N];
    put_all(fx->store, refs);
    size_t n = take_every(3, refs, live);
    struct pls_seal given = seal(fx->store);
    struct outcome first, again, restarted, map_only;
    compact(fx->store, &given, NULL, live, n, &first);
    compact(fx->store, &given, NULL, live, n, &again);
    assert_same(&first, &again);
    fx_crash(fx);
    compact(fx->store, &given, NULL, live, n, &restarted);
    assert_same(&first, &restarted);
    compact(fx->store, &given, &(struct pls_compact_options){.map_only = true}, NULL, 0, &map_only);
    assert_same(&first, &map_only);
    outcome_fini(&first);
    outcome_fini(&again);
    outcome_fini(&restarted);
    outcome_fini(&map_only);
}

static void a_ref_that_was_not_kept_is_refused_the_second_time(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref refs[N], live[N];
    put_all(fx->store, refs);
    size_t n = take_every(3, refs, live);
    struct pls_seal given = seal(fx->store);
    compact_ok(fx->store, &given, live, n);
    struct outcome outcome;
    live[0] = refs[1];
    compact(fx->store, &given, NULL, live, n, &outcome);
    assert_int_equal(outcome.code, PLS_REF_NOT_KEPT);
    outcome_fini(&outcome);
}

static void a_map_is_not_to_be_had_before_the_commit(void **state)
{
    struct fixture *fx = *state;
    put_filled(fx->store, 10, 1);
    struct pls_seal given = seal(fx->store);
    struct outcome outcome;
    compact(fx->store, &given, &(struct pls_compact_options){.map_only = true}, NULL, 0, &outcome);
    assert_int_equal(outcome.code, PLS_NOT_COMMITTED);
    outcome_fini(&outcome);
    compact(fx->store, &given, NULL, NULL, 0, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    outcome_fini(&outcome);
}

/* Ten compactions whose maps the caller never stored; some records are never given and go. */
static void first_refs_read_through_ten_compactions(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref refs[N], live[N];
    put_all(fx->store, refs);
    size_t n = take_every(2, refs, live);
    for (uint32_t round = 0; round < 10; round++) {
        struct pls_ref more = put_filled(fx->store, 10, 1000 + round);
        struct pls_seal given = seal(fx->store);
        struct outcome outcome;
        compact(fx->store, &given, NULL, live, n, &outcome);
        assert_int_equal(outcome.code, PLS_OK);
        assert_int_equal(outcome.n_map, n);
        assert_int_equal(outcome.summary.live_records, n);
        for (uint32_t i = 0; i < N; i += 2) {
            assert_filled(fx->store, moved(&outcome, &refs[i]), i);
        }
        outcome_fini(&outcome);
        assert_all(fx->store, refs, 2);
        assert_unreadable(fx->store, &refs[1], PLS_NO_RECORD);
        assert_unreadable(fx->store, &more, PLS_NO_RECORD);
        if (round % 3 == 2) {
            fx_crash(fx);
            assert_all(fx->store, refs, 2);
        }
    }
    assert_int_equal(file_count(fx, "s", "relocations."), 1);
}

static void a_name_is_forwarded_until_it_is_not_given(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref old_ref = put_filled(fx->store, 100, 7);
    struct pls_seal given = seal(fx->store);
    struct outcome outcome;
    compact(fx->store, &given, NULL, &old_ref, 1, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    struct pls_ref new_ref = *moved(&outcome, &old_ref);
    outcome_fini(&outcome);

    put_filled(fx->store, 10, 8);
    given = seal(fx->store);
    compact_ok(fx->store, &given, &new_ref, 1);
    assert_filled(fx->store, &new_ref, 7);
    assert_unreadable(fx->store, &old_ref, PLS_NO_RECORD);
}

/* Both names of a record, the older one alone in place: the map knows the given ones, and no other.
 */
static void a_ref_is_answered_under_the_name_it_was_given_by(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref a = put_filled(fx->store, 300 * KIB, 1), b = put_filled(fx->store, 300 * KIB, 2);
    struct pls_ref live[] = {a, b};
    struct pls_seal given = seal(fx->store);
    struct outcome outcome;
    compact(fx->store, &given, NULL, live, 2, &outcome);
    struct pls_ref new_a = *moved(&outcome, &a), new_b = *moved(&outcome, &b);
    outcome_fini(&outcome);

    /* Nothing of the outputs is garbage: they stay, and `a` is still to be found in the map. */
    struct pls_compact_options stay = {.min_garbage_percent = 50};
    struct pls_ref next[] = {a, new_b};
    put_filled(fx->store, 10, 3);
    given = seal(fx->store);
    compact(fx->store, &given, &stay, next, 2, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    assert_int_equal(outcome.summary.kept_segments, 1);
    assert_int_equal(outcome.n_map, 1);
    assert_memory_equal(&moved(&outcome, &a)->offset, &new_a.offset, sizeof new_a.offset);
    outcome_fini(&outcome);
    assert_filled(fx->store, &a, 1);
    assert_filled(fx->store, &new_b, 2);
}

/* Appends, seals; then every call from number `at` on fails in the compaction, and the process
 * dies. */
static bool cut_compaction(struct fixture *fx, long at, struct pls_ref *refs,
                           struct pls_seal *given, enum pls_code *code)
{
    struct pls_ref live[N];
    struct outcome outcome;
    size_t n = take_every(3, refs, live);
    plsi_sys_fail_from(at, EIO);
    compact(fx->store, given, NULL, live, n, &outcome);
    bool cut = plsi_sys_calls() >= at;
    plsi_sys_fail_at(0, 0);
    *code = outcome.code;
    outcome_fini(&outcome);
    return cut;
}

static void a_crash_anywhere_in_a_compaction_loses_nothing(void **state)
{
    struct fixture *fx = *state;
    bool cut = true;
    plsi_sys_pretend_syncs(true);
    for (long at = 1; cut; at++) {
        char name[32];
        snprintf(name, sizeof name, "cut-%ld", at);
        pls_store_release(fx->store);
        assert_int_equal(pls_store_open(fx->dir, name, 0, &fx->store, NULL), PLS_OK);
        struct pls_ref refs[N], live[N];
        put_all(fx->store, refs);
        struct pls_seal given = seal(fx->store);
        enum pls_code code;
        cut = cut_compaction(fx, at, refs, &given, &code);
        assert_all(fx->store, refs, 3); /* the reads of the running process, too */

        fx_crash(fx);
        pls_store_release(fx->store);
        assert_int_equal(pls_store_open(fx->dir, name, 0, &fx->store, NULL), PLS_OK);
        assert_all(fx->store, refs, 3);
        struct outcome outcome;
        size_t n = take_every(3, refs, live);
        compact(fx->store, &given, NULL, live, n, &outcome);
        assert_int_equal(outcome.code, PLS_OK);
        assert_int_equal(outcome.n_map, n);
        for (uint32_t i = 0; i < N; i += 3) {
            assert_filled(fx->store, moved(&outcome, &refs[i]), i);
        }
        outcome_fini(&outcome);
        assert_all(fx->store, refs, 3);
        assert_unreadable(fx->store, &refs[1], PLS_NO_RECORD);
        assert_int_equal(file_count(fx, name, "compact_"), 0);
        assert_int_equal(file_count(fx, name, "relocations.tmp"), 0);
        assert_int_equal(pls_store_delete(fx->dir, name, 0, NULL, NULL), PLS_OK);
    }
    plsi_sys_pretend_syncs(false);
}

/* A store of a name of its own, compacted and cut at call number `at`. */
static enum pls_code cut_new_store(struct fixture *fx, const char *name, long at)
{
    struct pls_ref refs[N];
    enum pls_code code;
    pls_store_release(fx->store);
    assert_int_equal(pls_store_open(fx->dir, name, 0, &fx->store, NULL), PLS_OK);
    put_all(fx->store, refs);
    struct pls_seal given = seal(fx->store);
    cut_compaction(fx, at, refs, &given, &code);
    return code;
}

/* A store cut at the first call after which the table is in place, and the outputs are not yet. */
static void cut_behind_the_commit(struct fixture *fx, char name[32])
{
    char table[64], output[64];
    long at = 1;
    plsi_sys_pretend_syncs(true);
    do {
        snprintf(name, 32, "cut-%ld", at);
        snprintf(table, sizeof table, "%s/relocations.tab", name);
        cut_new_store(fx, name, at++);
    } while (!file_exists(fx, table));
    plsi_sys_pretend_syncs(false);
    snprintf(output, sizeof output, "%s/compact_0002.tmp", name);
    assert_true(file_exists(fx, output));
}

/* Its sources are kept; the other stores work. */
static void assert_stays_closed(struct fixture *fx, const char *name, const char *words)
{
    char source[64];
    snprintf(source, sizeof source, "%s/payload_0000.dat", name);
    pls_store_release(fx->store);
    fx->store = NULL;
    pls_dir_close(fx->dir);
    assert_int_equal(pls_dir_open(fx->path, &fx->options, &fx->dir, NULL), PLS_OK);
    struct pls_error error;
    assert_int_not_equal(pls_store_find(fx->dir, name, &fx->store, &error), PLS_OK);
    assert_non_null(strstr(error.text, words));
    assert_true(file_exists(fx, source));
    assert_int_equal(pls_store_open(fx->dir, "s", 0, &fx->store, NULL), PLS_OK);
}

static void an_output_that_is_missing_keeps_the_store_closed_and_its_sources(void **state)
{
    struct fixture *fx = *state;
    char name[32], output[64];
    cut_behind_the_commit(fx, name);
    snprintf(output, sizeof output, "%s/compact_0002.tmp", name);
    file_cut(fx, output, 10);
    assert_stays_closed(fx, name, "payload_0002.dat");
}

/* Somebody's file bears the output's name, and is even of its size. */
static void an_output_never_replaces_a_file(void **state)
{
    struct fixture *fx = *state;
    char name[32], output[64], taken[64], byte;
    cut_behind_the_commit(fx, name);
    snprintf(output, sizeof output, "%s/compact_0002.tmp", name);
    snprintf(taken, sizeof taken, "%s/payload_0002.dat", name);
    uint64_t bytes = file_size(fx, output);
    file_write(fx, taken, bytes - 1, "!", 1);
    assert_stays_closed(fx, name, "payload_0002.dat");
    file_read(fx, taken, bytes - 1, &byte, 1);
    assert_int_equal(byte, '!');
    assert_true(file_exists(fx, output));
}

/* Between a clean close and the next open another program may have used a source's id. */
static void a_table_whose_work_is_done_deletes_nothing_again(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_text(fx->store, "moved");
    struct pls_seal given = seal(fx->store);
    compact_ok(fx->store, &given, &ref, 1);
    fx_close(fx);
    assert_false(file_exists(fx, "s/payload_0000.dat"));
    file_write(fx, "s/payload_0000.dat", 0, "\6\0\0\0theirs", 10);
    fx_open(fx);
    struct pls_ref theirs = {.length = 6};
    assert_text(fx->store, &theirs, "theirs");
}

static void a_damaged_table_is_never_followed_to_wrong_bytes(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref refs[N], live[N];
    put_all(fx->store, refs);
    size_t n = take_every(3, refs, live);
    struct pls_seal given = seal(fx->store);
    compact_ok(fx->store, &given, live, n);
    uint64_t bytes = file_size(fx, "s/relocations.tab");
    for (uint64_t at = 0; at < bytes; at += 61) {
        file_flip(fx, "s/relocations.tab", at);
        struct pls_view view = {0};
        enum pls_code code = try_read(fx->store, &refs[3], &view);
        assert_true(code == PLS_OK || code == PLS_DAMAGED);
        pls_view_release(&view);
        file_flip(fx, "s/relocations.tab", at);
    }
    assert_all(fx->store, refs, 3);
}

/* The name's checksum is another's: as for a damaged record in place, it is reported, and what it
 * names stays. */
static void an_old_name_with_a_wrong_checksum_keeps_what_it_names(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref a = put_filled(fx->store, 300 * KIB, 1);
    struct pls_seal given = seal(fx->store);
    compact_ok(fx->store, &given, &a, 1);
    put_filled(fx->store, 10, 2);
    given = seal(fx->store);
    struct pls_ref wrong = a;
    wrong.crc32c ^= 1;
    struct outcome outcome;
    compact(fx->store, &given, &(struct pls_compact_options){.keep_damaged = true}, &wrong, 1,
            &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    assert_int_equal(outcome.n_damaged, 1);
    assert_int_equal(outcome.summary.kept_segments, 1);
    outcome_fini(&outcome);
    assert_filled(fx->store, &a, 1);
}

/* Found damaged while it is rewritten, the caller knows it by the name they gave alone. */
static void a_damaged_record_is_reported_by_the_name_it_was_given_by(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref live[] = {put_filled(fx->store, 1000, 1), put_filled(fx->store, 1000, 2)};
    struct pls_seal given = seal(fx->store);
    struct outcome outcome;
    compact(fx->store, &given, NULL, live, 2, &outcome);
    struct pls_ref now = *moved(&outcome, &live[1]);
    outcome_fini(&outcome);
    char name[64];
    snprintf(name, sizeof name, "s/payload_%04u.dat", now.file_id);
    file_flip(fx, name, now.offset + 100);

    put_filled(fx->store, 10, 3);
    given = seal(fx->store);
    compact(fx->store, &given, &(struct pls_compact_options){.keep_damaged = true}, live, 2,
            &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    assert_int_equal(outcome.n_damaged, 1);
    assert_ref(&outcome.damaged[0].ref, live[1].file_id, live[1].offset, live[1].length);
    outcome_fini(&outcome);
    assert_filled(fx->store, &live[0], 1);
}

/* Some four blocks of entries, one of which is damaged. */
static void a_damaged_block_of_the_table_harms_no_other(void **state)
{
    enum { MANY = 500, A_BLOCK = 127, BLOCK = 4096 };
    struct fixture *fx = *state;
    static struct pls_ref refs[MANY];
    for (uint32_t i = 0; i < MANY; i++) {
        refs[i] = put_filled(fx->store, 20, i);
    }
    struct pls_seal given = seal(fx->store);
    compact_ok(fx->store, &given, refs, MANY);
    for (uint32_t block = 0; block * A_BLOCK < MANY; block++) {
        uint64_t at = (block + 1) * BLOCK + 9; /* behind the segments' */
        file_flip(fx, "s/relocations.tab", at);
        fx_reopen(fx); /* with no block in the cache */
        for (uint32_t i = 0; i < MANY; i++) {
            if (i / A_BLOCK == block) {
                assert_unreadable(fx->store, &refs[i], PLS_DAMAGED);
            } else {
                assert_filled(fx->store, &refs[i], i);
            }
        }
        file_flip(fx, "s/relocations.tab", at);
    }
}

static void names_in_a_damaged_block_are_reported_and_the_others_forwarded(void **state)
{
    enum { MANY = 200, A_BLOCK = 127 };
    struct fixture *fx = *state;
    static struct pls_ref refs[MANY];
    for (uint32_t i = 0; i < MANY; i++) {
        refs[i] = put_filled(fx->store, 20, i);
    }
    struct pls_seal given = seal(fx->store);
    compact_ok(fx->store, &given, refs, MANY);
    file_flip(fx, "s/relocations.tab", 4096 + 9);
    struct pls_ref live[] = {refs[0], refs[A_BLOCK], refs[MANY - 1]};
    put_filled(fx->store, 10, MANY);
    given = seal(fx->store);
    struct outcome outcome;
    compact(fx->store, &given, NULL, live, 3, &outcome);
    assert_int_equal(outcome.code, PLS_LIVE_DAMAGED);
    outcome_fini(&outcome);
    compact(fx->store, &given, &(struct pls_compact_options){.keep_damaged = true}, live, 3,
            &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    assert_int_equal(outcome.n_damaged, 1);
    assert_int_equal(outcome.n_map, 2);
    outcome_fini(&outcome);
    assert_filled(fx->store, &refs[A_BLOCK], A_BLOCK);
    assert_filled(fx->store, &refs[MANY - 1], MANY - 1);
}

/* It may read the next time: to report the name and drop it now would be to lose it. */
static void a_table_the_disk_does_not_read_ends_the_compaction(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_filled(fx->store, 100, 1);
    struct pls_seal given = seal(fx->store);
    compact_ok(fx->store, &given, &ref, 1);
    put_filled(fx->store, 10, 2);
    given = seal(fx->store);
    const struct pls_compact_options options = {.keep_damaged = true};
    pls_compact *compaction;
    assert_int_equal(pls_compact_begin(fx->store, &given, &options, &compaction, NULL), PLS_OK);
    plsi_sys_fail_at(1, EIO);
    assert_int_equal(pls_compact_live(compaction, &ref, 1, NULL), PLS_IO);
    plsi_sys_fail_at(0, 0);
    pls_compact_destroy(compaction);
    compact_ok(fx->store, &given, &ref, 1);
    assert_filled(fx->store, &ref, 1);
}

/* Without the state nobody knows whether the table's deletions are still to be done. */
static void a_table_without_a_state_keeps_the_store_closed(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_filled(fx->store, 100, 1);
    struct pls_seal given = seal(fx->store);
    compact_ok(fx->store, &given, &ref, 1);
    fx_close(fx);
    char path[PATH_MAX + 16];
    snprintf(path, sizeof path, "%s/s/store.state", fx->path);
    assert_int_equal(remove(path), 0);
    assert_int_equal(pls_dir_open(fx->path, &fx->options, &fx->dir, NULL), PLS_OK);
    struct pls_error error;
    assert_int_equal(pls_store_find(fx->dir, "s", &fx->store, &error), PLS_BAD_FORMAT);
    assert_non_null(strstr(error.text, "store.state"));
    assert_false(file_exists(fx, "s/store.state"));
}

struct sealer {
    pls_store *store;
    struct pls_ref dead;
    struct pls_seal first, next;
};

/* Seals in the moment in which the commit can be seen. */
static void *seal_after_commit(void *arg)
{
    struct sealer *sealer = arg;
    struct pls_view view = {0};
    while (try_read(sealer->store, &sealer->dead, &view) == PLS_OK) {
        pls_view_release(&view);
    }
    if (pls_store_seal(sealer->store, 0, &sealer->next, NULL) != PLS_OK) {
        sealer->next = sealer->first;
    }
    return NULL;
}

static void a_seal_behind_the_commit_gives_a_new_handle(void **state)
{
    struct fixture *fx = *state;
    for (uint32_t round = 0; round < 10; round++) {
        /* Nothing is live: no output is there to look like an append since the seal. */
        struct sealer sealer = {.store = fx->store, .dead = put_filled(fx->store, 100, 1000)};
        sealer.first = seal(fx->store);
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, seal_after_commit, &sealer), 0);
        compact_ok(fx->store, &sealer.first, NULL, 0);
        pthread_join(thread, NULL);
        assert_true(sealer.next.sealed_id > sealer.first.sealed_id);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(an_old_ref_reads_after_its_record_was_moved),
        STORE_TEST(a_wrong_length_or_checksum_is_not_followed),
        STORE_TEST(the_same_call_again_gives_the_same_answer),
        STORE_TEST(a_ref_that_was_not_kept_is_refused_the_second_time),
        STORE_TEST(a_map_is_not_to_be_had_before_the_commit),
        STORE_TEST(first_refs_read_through_ten_compactions),
        STORE_TEST(a_name_is_forwarded_until_it_is_not_given),
        STORE_TEST(a_ref_is_answered_under_the_name_it_was_given_by),
        STORE_TEST(a_crash_anywhere_in_a_compaction_loses_nothing),
        STORE_TEST(an_output_that_is_missing_keeps_the_store_closed_and_its_sources),
        STORE_TEST(an_output_never_replaces_a_file),
        STORE_TEST(a_table_whose_work_is_done_deletes_nothing_again),
        STORE_TEST(a_damaged_table_is_never_followed_to_wrong_bytes),
        STORE_TEST(an_old_name_with_a_wrong_checksum_keeps_what_it_names),
        STORE_TEST(a_damaged_record_is_reported_by_the_name_it_was_given_by),
        STORE_TEST(a_damaged_block_of_the_table_harms_no_other),
        STORE_TEST(names_in_a_damaged_block_are_reported_and_the_others_forwarded),
        STORE_TEST(a_table_the_disk_does_not_read_ends_the_compaction),
        STORE_TEST(a_table_without_a_state_keeps_the_store_closed),
        STORE_TEST(a_seal_behind_the_commit_gives_a_new_handle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
