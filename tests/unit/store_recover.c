/* Opening what was left behind: clean closes, crashes, damage, other programs' directories. */
#include "store_fixture.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "sys.h"

static void old_refs_read_after_a_restart(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref a = put_text(fx->store, "a");
    struct pls_ref b = put_text(fx->store, "bb");
    fx_reopen(fx);
    assert_text(fx->store, &a, "a");
    assert_text(fx->store, &b, "bb");
}

static void an_append_after_a_clean_close_goes_on_in_the_same_segment(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref a = put_text(fx->store, "abc");
    fx_reopen(fx);
    assert_int_equal(active_id(fx->store), 0);
    struct pls_ref b = put_text(fx->store, "def");
    assert_ref(&b, 0, 7, 3);
    fx_reopen(fx);
    fx_reopen(fx); /* without an append in between */
    struct pls_ref c = put_text(fx->store, "ghi");
    assert_ref(&c, 0, 14, 3);
    assert_text(fx->store, &a, "abc");
    assert_text(fx->store, &b, "def");
    assert_text(fx->store, &c, "ghi");
}

static void an_append_after_a_crash_goes_to_a_new_segment(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref a = put_text(fx->store, "abc");
    fx_crash(fx);
    assert_int_equal(active_id(fx->store), 1);
    struct pls_ref b = put_text(fx->store, "def");
    assert_ref(&b, 1, 0, 3);
    assert_text(fx->store, &a, "abc");
    assert_int_equal(file_size(fx, "s/payload_0000.dat"), 7);
}

static void a_crash_after_the_first_append_since_a_clean_close_is_seen(void **state)
{
    struct fixture *fx = *state;
    put_text(fx->store, "abc");
    fx_reopen(fx);
    struct pls_ref b = put_text(fx->store, "def");
    fx_crash(fx);
    struct pls_ref c = put_text(fx->store, "ghi");
    assert_ref(&c, 1, 0, 3);
    assert_text(fx->store, &b, "def");
}

static void a_segment_that_grew_after_the_clean_close_is_not_gone_on_with(void **state)
{
    struct fixture *fx = *state;
    put_text(fx->store, "abc");
    fx_close(fx);
    file_write(fx, "s/payload_0000.dat", 7, "\2\0\0\0xy", 6); /* another program has been here */
    fx_open(fx);
    struct pls_ref ref = put_text(fx->store, "def");
    assert_ref(&ref, 1, 0, 3);
    struct pls_ref theirs = {.offset = 7, .length = 2};
    assert_text(fx->store, &theirs, "xy");
}

static void a_full_segment_is_followed_by_the_next_after_a_clean_close(void **state)
{
    struct fixture *fx = *state;
    put_filled(fx->store, MIB, 1);
    fx_reopen(fx);
    struct pls_ref ref = put_text(fx->store, "next");
    assert_ref(&ref, 1, 0, 4);
}

/* Descriptors of this process whose file below `path` has been deleted: disk that is not given
 * back. */
static size_t deleted_and_open(const char *path)
{
    size_t n = 0;
    for (int fd = 0; fd < 256; fd++) {
        char name[32], target[PATH_MAX];
        snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(name, target, sizeof target - 1);
        target[length > 0 ? length : 0] = '\0';
        n += strncmp(target, path, strlen(path)) == 0 && strstr(target, "(deleted)") != NULL;
    }
    return n;
}

static void a_deleted_segment_gives_its_disk_back(void **state)
{
    struct fixture *fx = *state;
    put_filled(fx->store, MIB, 1);
    fx_reopen(fx); /* it could be gone on with, but is full */
    put_text(fx->store, "next");
    struct pls_seal given = seal(fx->store);
    compact_ok(fx->store, &given, NULL, 0);
    /* The thread that answered the append may hold its segment a moment longer. */
    time_t deadline = time(NULL) + 20;
    while (deleted_and_open(fx->path) > 0 && time(NULL) < deadline) {
        sched_yield();
    }
    assert_int_equal(deleted_and_open(fx->path), 0);
}

static void a_compaction_output_on_top_does_not_take_appends(void **state)
{
    struct fixture *fx = *state;
    fx->options.segment_max_bytes = 100;
    fx_reopen(fx);
    struct pls_ref refs[6];
    for (uint32_t i = 0; i < 6; i++) {
        refs[i] = put_filled(fx->store, 60, i);
    }
    struct pls_seal given = seal(fx->store);
    compact_ok(fx->store, &given, refs, 6); /* to ids 3, 5 and 6, 4 being the active one */
    assert_int_equal(active_id(fx->store), 4);
    fx_reopen(fx);
    struct pls_ref next = put_text(fx->store, "next");
    assert_ref(&next, 7, 0, 4);
}

static void a_compaction_after_a_restart_leaves_the_close_clean(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref a = put_text(fx->store, "a");
    struct pls_seal given = seal(fx->store);
    fx_reopen(fx);
    compact_ok(fx->store, &given, &a, 1);
    fx_reopen(fx);
    assert_int_equal(active_id(fx->store), 2);
}

static void a_truncated_last_record_is_left_alone(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref a = put_text(fx->store, "first");
    struct pls_ref b = put_text(fx->store, "second");
    const uint64_t cuts[] = {b.offset + 9, b.offset + 4, b.offset + 1};
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        fx_close(fx);
        file_cut(fx, "s/payload_0000.dat", cuts[i]);
        fx_open(fx);
        assert_true(fx_logged(fx, "bad_record: segment 0"));
        assert_text(fx->store, &a, "first");
        assert_unreadable(fx->store, &b, PLS_NO_RECORD);
        struct pls_ref next = put_text(fx->store, "next");
        assert_int_equal(next.file_id, 1);
        assert_int_equal(file_size(fx, "s/payload_0000.dat"), cuts[i]);
        assert_text(fx->store, &next, "next");
    }
}

static void without_an_index_a_bad_prefix_hides_only_its_own_record(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref a = put_text(fx->store, "first");
    struct pls_ref b = put_text(fx->store, "second");
    struct pls_ref c = put_text(fx->store, "third");
    fx_close(fx);
    uint64_t size = file_size(fx, "s/payload_0000.dat");
    file_write(fx, "s/payload_0000.dat", b.offset, "\377\377\377\377", 4);
    file_remove(fx, "s/index_0000.idx");
    fx_open(fx);
    assert_int_equal(file_size(fx, "s/payload_0000.dat"), size); /* nothing is cut */
    assert_text(fx->store, &a, "first");
    assert_unreadable(fx->store, &b, PLS_NO_RECORD);
    assert_text(fx->store, &c, "third"); /* its checksum vouches for it */
    struct pls_ref bare = c;
    bare.crc32c = 0;
    assert_unreadable(fx->store, &bare, PLS_NO_RECORD);
    bare.crc32c = c.crc32c + 1;
    assert_unreadable(fx->store, &bare, PLS_NO_RECORD);
    struct pls_ref next = put_text(fx->store, "next");
    assert_ref(&next, 1, 0, 4);
    fx_reopen(fx);
    assert_text(fx->store, &c, "third");
    assert_text(fx->store, &next, "next");
}

/* The walk goes on one byte too late, or with a record that swallows others. */
static void a_length_that_is_off_hides_no_neighbour(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref a = put_text(fx->store, "first");
    struct pls_ref b = put_text(fx->store, "second");
    struct pls_ref c = put_text(fx->store, "third");
    struct pls_ref d = put_text(fx->store, "fourth");
    const char *lengths[] = {"\4\0\0\0", "\6\0\0\0", "\17\0\0\0", "\30\0\0\0"};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        fx_close(fx);
        file_write(fx, "s/payload_0000.dat", a.offset, lengths[i], 4);
        file_remove(fx, "s/index_0000.idx");
        fx_open(fx);
        for (int again = 0; again < 2; again++) {
            assert_unreadable(fx->store, &a, PLS_NO_RECORD);
            assert_text(fx->store, &b, "second");
            assert_text(fx->store, &c, "third");
            assert_text(fx->store, &d, "fourth");
            struct pls_ref bare = b;
            bare.crc32c = 0;
            assert_unreadable(fx->store, &bare, PLS_NO_RECORD);
            fx_reopen(fx); /* marked complete now, as walked */
        }
    }
    /* A compaction takes none of them for lost. */
    struct pls_ref live[] = {b, c, d};
    struct pls_seal given = seal(fx->store);
    compact_ok(fx->store, &given, live, 3);
    assert_text(fx->store, &b, "second");
    assert_text(fx->store, &d, "fourth");
}

static void zero_words_at_the_tail_are_kept_as_empty_records(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref a = put_text(fx->store, "abc");
    char *zeros = calloc(1, 100 * KIB);
    assert_non_null(zeros);
    file_write(fx, "s/payload_0000.dat", 7, zeros, 100 * KIB);
    free(zeros);
    fx_crash(fx);
    assert_true(fx_logged(fx, "zero_tail: segment 0 ends in 25600 zero words"));
    assert_int_equal(file_size(fx, "s/payload_0000.dat"), 7 + 100 * KIB);
    assert_text(fx->store, &a, "abc");
    struct pls_ref empty = {.offset = 7 + 99 * KIB};
    assert_text(fx->store, &empty, "");
    struct pls_ref next = put_text(fx->store, "def");
    assert_ref(&next, 1, 0, 3);
}

static void very_many_empty_payloads_survive_a_restart(void **state)
{
    enum { N = 20000 };
    struct fixture *fx = *state;
    struct pls_ref last = {0};
    for (int i = 0; i < N; i++) {
        last = put(fx->store, NULL, 0);
    }
    struct pls_ref after = put_text(fx->store, "after");
    after.crc32c = 0;
    fx_reopen(fx);
    assert_ref(&last, 0, (uint64_t)(N - 1) * 4, 0);
    assert_text(fx->store, &last, "");
    assert_text(fx->store, &after, "after");
    assert_int_equal(active_id(fx->store), 0);
    assert_false(fx_logged(fx, "bad_record"));
}

static void an_unfinished_output_is_deleted(void **state)
{
    struct fixture *fx = *state;
    put_text(fx->store, "abc");
    fx_close(fx);
    file_write(fx, "s/compact_0001.tmp", 0, "junk", 4);
    file_write(fx, "s/compact_1.tmp", 0, "not ours", 8);
    file_write(fx, "s/compact_0001.tmp2", 0, "not ours", 8);
    fx_open(fx);
    assert_false(file_exists(fx, "s/compact_0001.tmp"));
    assert_true(file_exists(fx, "s/compact_1.tmp"));
    assert_true(file_exists(fx, "s/compact_0001.tmp2"));
    assert_int_equal(active_id(fx->store), 0);
}

/* Of the directory of the store that is being opened. */
static atomic_int store_fd, name_syncs;

static void count_name_syncs(const struct plsi_sys_event *event)
{
    if (event->op == PLSI_SYS_OPENED && strcmp(event->name, "s") == 0) {
        atomic_store(&store_fd, event->fd);
    } else if (event->op == PLSI_SYS_SYNCED && event->fd == atomic_load(&store_fd)) {
        atomic_fetch_add(&name_syncs, 1);
    }
}

/* A process died behind the rename of a state with a seal, before the rename was synced. */
static void an_open_makes_durable_what_it_goes_by(void **state)
{
    struct fixture *fx = *state;
    struct pls_seal given, again;
    put_text(fx->store, "abc");
    given = seal(fx->store);
    fx_crash(fx);
    fx_close(fx);
    atomic_store(&name_syncs, 0);
    plsi_sys_watch(count_name_syncs);
    fx_open(fx);
    again = seal(fx->store); /* from what the open has read: nothing was appended since */
    plsi_sys_watch(NULL);
    assert_seal(&again, given.sealed_id, given.compaction_id);
    assert_true(atomic_load(&name_syncs) > 0);
}

static void an_unfinished_state_is_overwritten(void **state)
{
    struct fixture *fx = *state;
    put_text(fx->store, "abc");
    fx_close(fx);
    file_write(fx, "s/store.state.tmp", 0, "half", 4);
    fx_open(fx);
    put_text(fx->store, "def");
    assert_false(file_exists(fx, "s/store.state.tmp"));
}

/* -- directories of other programs -- */

static void open_store(struct fixture *fx, const char *name, pls_store **store)
{
    struct pls_error error;
    if (pls_store_find(fx->dir, name, store, &error) != PLS_OK) {
        fail_msg("%s", error.text);
    }
}

static void a_directory_of_segments_alone_is_a_store(void **state)
{
    struct fixture *fx = *state;
    fx_close(fx);
    file_write(fx, "old/payload_0003.dat", 0, "\3\0\0\0abc\0\0\0\0", 11);
    file_write(fx, "old/payload_0012.dat", 0, "\3\0\0\0def", 7);
    file_write(fx, "old/index.db", 0, "theirs", 6);
    file_write(fx, "old/compact_0001.tmp", 0, "theirs", 6);
    fx_open(fx);
    pls_store *old;
    open_store(fx, "old", &old);
    struct pls_ref abc = {.file_id = 3, .length = 3}, empty = {.file_id = 3, .offset = 7};
    struct pls_ref def = {.file_id = 12, .length = 3};
    assert_text(old, &abc, "abc");
    assert_text(old, &empty, "");
    assert_text(old, &def, "def");
    struct pls_ref next = put_text(old, "new");
    assert_ref(&next, 13, 0, 3);
    assert_int_equal(disk_usage(old), 11 + 7 + 7);
    struct pls_ref live[] = {abc, def};
    struct pls_seal given = seal(old);
    assert_seal(&given, 13, 14);
    struct outcome outcome;
    compact(old, &given, NULL, live, 2, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    assert_text(old, moved(&outcome, &abc), "abc");
    outcome_fini(&outcome);
    assert_int_equal(file_size(fx, "old/index.db"), 6);
    assert_int_equal(file_size(fx, "old/compact_0001.tmp"), 6);
    pls_store_release(old);
}

static void what_is_no_store_is_left_alone(void **state)
{
    struct fixture *fx = *state;
    fx_close(fx);
    file_write(fx, "notes/readme.txt", 0, "x", 1);
    file_write(fx, "notes/compact_0001.tmp", 0, "x", 1);
    file_write(fx, "readme", 0, "x", 1);
    file_write(fx, ".hidden/payload_0000.dat", 0, "\1\0\0\0x", 5);
    fx_open(fx);
    pls_store *store;
    assert_int_equal(pls_store_find(fx->dir, "notes", &store, NULL), PLS_NO_STORE);
    assert_int_equal(pls_store_find(fx->dir, "readme", &store, NULL), PLS_NO_STORE);
    char names[4][PLS_NAME_MAX + 1];
    bool more;
    assert_int_equal(pls_dir_list(fx->dir, "", names, 4, &more), 1);
    assert_string_equal(names[0], "s");
    assert_true(file_exists(fx, "notes/compact_0001.tmp"));
    assert_false(file_exists(fx, "notes/store.state"));
    assert_int_not_equal(pls_store_open(fx->dir, "readme", 0, &store, NULL), PLS_OK);
}

static void stray_payload_files_count_as_usage_and_nothing_else(void **state)
{
    struct fixture *fx = *state;
    put_text(fx->store, "four");
    fx_close(fx);
    const char *names[] = {"payload_x.dat",
                           "payload_00001.dat",
                           "payload_1.dat",
                           "payload_0001.dat.bak",
                           "payload_",
                           "payload_4294967296.dat",
                           "payload_99999999999999999999999999.dat"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[64];
        snprintf(path, sizeof path, "s/%s", names[i]);
        file_write(fx, path, 0, "stray", 5);
    }
    fx_open(fx);
    assert_int_equal(disk_usage(fx->store), 8 + 5 * (sizeof names / sizeof *names));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char words[64];
        snprintf(words, sizeof words, "stray_file: %s is", names[i]);
        assert_true(fx_logged(fx, words));
    }
    struct pls_ref next = put_text(fx->store, "next");
    assert_ref(&next, 0, 8, 4);
    struct pls_seal given = seal(fx->store);
    compact_ok(fx->store, &given, NULL, 0);
    assert_int_equal(disk_usage(fx->store), 5 * (sizeof names / sizeof *names));
}

/* -- the end of the numbers -- */

static void open_with_last_id(struct fixture *fx, const char *name)
{
    put_text(fx->store, "old");
    fx_close(fx);
    char path[64];
    snprintf(path, sizeof path, "s/%s", name);
    file_write(fx, path, 0, "\3\0\0\0top", 7);
    fx_open(fx);
}

static void with_no_id_left_nothing_wraps(void **state)
{
    struct fixture *fx = *state;
    open_with_last_id(fx, "payload_4294967295.dat");
    struct pls_ref old = {.length = 3}, top = {.file_id = UINT32_MAX, .length = 3}, ref;
    struct pls_seal given;
    for (int i = 0; i < 2; i++) {
        assert_text(fx->store, &old, "old");
        assert_text(fx->store, &top, "top");
        assert_int_equal(try_append(fx->store, "new", 3, PLS_SYNCED, &ref), PLS_IDS_USED_UP);
        assert_int_equal(pls_store_seal(fx->store, 0, &given, NULL), PLS_IDS_USED_UP);
        assert_int_equal(active_id(fx->store), UINT32_MAX);
        fx_reopen(fx);
    }
    assert_int_equal(disk_usage(fx->store), 14);
}

static void the_last_id_can_be_used(void **state)
{
    struct fixture *fx = *state;
    fx->options.segment_max_bytes = 100;
    open_with_last_id(fx, "payload_4294967294.dat");
    struct pls_ref last = put_filled(fx->store, 200, 1);
    assert_ref(&last, UINT32_MAX, 0, 200);
    struct pls_ref ref;
    struct pls_seal given;
    assert_int_equal(try_append(fx->store, "x", 1, PLS_BUFFERED, &ref), PLS_IDS_USED_UP);
    assert_int_equal(pls_store_seal(fx->store, 0, &given, NULL), PLS_IDS_USED_UP);
    fx_reopen(fx);
    assert_filled(fx->store, &last, 1);
    assert_int_equal(try_append(fx->store, "x", 1, PLS_BUFFERED, &ref), PLS_IDS_USED_UP);
}

static void the_last_two_ids_make_a_seal(void **state)
{
    struct fixture *fx = *state;
    open_with_last_id(fx, "payload_4294967293.dat");
    struct pls_seal given = seal(fx->store);
    assert_seal(&given, UINT32_MAX - 2, UINT32_MAX - 1);
    struct pls_ref top = {.file_id = UINT32_MAX - 2, .length = 3};
    struct outcome outcome;
    compact(fx->store, &given, NULL, &top, 1, &outcome);
    assert_int_equal(outcome.code, PLS_OK);
    assert_text(fx->store, moved(&outcome, &top), "top");
    outcome_fini(&outcome);
    struct pls_ref last = put_text(fx->store, "x");
    assert_int_equal(last.file_id, UINT32_MAX);
    assert_int_equal(pls_store_seal(fx->store, 0, &given, NULL), PLS_IDS_USED_UP);
}

/* Spilling over, a compaction runs out of ids: it aborts, and everything stays. */
static void a_compaction_without_ids_aborts(void **state)
{
    struct fixture *fx = *state;
    fx->options.segment_max_bytes = 10;
    fx_reopen(fx);
    struct pls_ref refs[2] = {put_filled(fx->store, 20, 0), put_filled(fx->store, 20, 1)};
    open_with_last_id(fx, "payload_4294967293.dat");
    struct pls_seal given = seal(fx->store);
    struct outcome outcome;
    compact(fx->store, &given, NULL, refs, 2, &outcome);
    assert_int_equal(outcome.code, PLS_IDS_USED_UP);
    assert_filled(fx->store, &refs[0], 0);
    assert_filled(fx->store, &refs[1], 1);
    assert_int_equal(file_count(fx, "s", "compact_"), 0);
    compact_ok(fx->store, &given, refs, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(old_refs_read_after_a_restart),
        STORE_TEST(an_append_after_a_clean_close_goes_on_in_the_same_segment),
        STORE_TEST(an_append_after_a_crash_goes_to_a_new_segment),
        STORE_TEST(a_crash_after_the_first_append_since_a_clean_close_is_seen),
        STORE_TEST(a_segment_that_grew_after_the_clean_close_is_not_gone_on_with),
        STORE_TEST(a_full_segment_is_followed_by_the_next_after_a_clean_close),
        STORE_TEST(a_deleted_segment_gives_its_disk_back),
        STORE_TEST(a_compaction_output_on_top_does_not_take_appends),
        STORE_TEST(a_compaction_after_a_restart_leaves_the_close_clean),
        STORE_TEST(a_truncated_last_record_is_left_alone),
        STORE_TEST(without_an_index_a_bad_prefix_hides_only_its_own_record),
        STORE_TEST(a_length_that_is_off_hides_no_neighbour),
        STORE_TEST(zero_words_at_the_tail_are_kept_as_empty_records),
        STORE_TEST(very_many_empty_payloads_survive_a_restart),
        STORE_TEST(an_unfinished_output_is_deleted),
        STORE_TEST(an_open_makes_durable_what_it_goes_by),
        STORE_TEST(an_unfinished_state_is_overwritten),
        STORE_TEST(a_directory_of_segments_alone_is_a_store),
        STORE_TEST(what_is_no_store_is_left_alone),
        STORE_TEST(stray_payload_files_count_as_usage_and_nothing_else),
        STORE_TEST(with_no_id_left_nothing_wraps),
        STORE_TEST(the_last_id_can_be_used),
        STORE_TEST(the_last_two_ids_make_a_seal),
        STORE_TEST(a_compaction_without_ids_aborts),
    };
    return cmocka_run_group_tests_name("store_recover", tests, NULL, NULL);
}
