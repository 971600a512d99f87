/* Deleting: what goes, what the name keeps, and who is in the way. */
#include "store_fixture.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static void delete_s(struct fixture *fx)
{
    struct pls_error error;
    pls_store_release(fx->store);
    fx->store = NULL;
    if (pls_store_delete(fx->dir, "s", 0, NULL, &error) != PLS_OK) {
        fail_msg("%s", error.text);
    }
}

static void make_s(struct fixture *fx)
{
    struct pls_error error;
    if (pls_store_open(fx->dir, "s", 0, &fx->store, &error) != PLS_OK) {
        fail_msg("%s", error.text);
    }
}

static void incarnation_of(pls_store *store, char text[33])
{
    struct pls_stat stat;
    assert_int_equal(pls_store_stat(store, &stat, NULL), PLS_OK);
    memcpy(text, stat.incarnation, 33);
    pls_stat_fini(&stat);
}

static void a_deleted_store_is_gone(void **state)
{
    struct fixture *fx = *state;
    put_text(fx->store, "payload");
    delete_s(fx);
    pls_store *store;
    assert_int_equal(pls_store_find(fx->dir, "s", &store, NULL), PLS_NO_STORE);
    assert_int_equal(pls_store_delete(fx->dir, "s", 0, NULL, NULL), PLS_NO_STORE);
    assert_int_equal(file_count(fx, "s", "payload_"), 0);
    bool more;
    assert_int_equal(pls_dir_list(fx->dir, "", NULL, 0, &more), 0);
    assert_false(more);
}

static void a_deleted_store_stays_deleted_over_a_restart(void **state)
{
    struct fixture *fx = *state;
    put_text(fx->store, "payload");
    delete_s(fx);
    assert_int_equal(pls_dir_close(fx->dir), PLS_OK);
    assert_int_equal(pls_dir_open(fx->path, &fx->options, &fx->dir, NULL), PLS_OK);
    pls_store *store;
    assert_int_equal(pls_store_find(fx->dir, "s", &store, NULL), PLS_NO_STORE);
    make_s(fx);
    struct pls_ref ref = put_text(fx->store, "new");
    assert_ref(&ref, 1, 0, 3);
}

static void old_refs_and_handles_never_meet_a_new_store(void **state)
{
    struct fixture *fx = *state;
    char before[33], after[33];
    struct pls_ref old = put_text(fx->store, "payload");
    struct pls_seal handle = seal(fx->store);
    incarnation_of(fx->store, before);
    delete_s(fx);
    make_s(fx);
    incarnation_of(fx->store, after);
    assert_string_not_equal(before, after);
    struct pls_ref ref = put_text(fx->store, "PAYLOAD");
    assert_ref(&ref, 3, 0, 7);
    assert_unreadable(fx->store, &old, PLS_NO_RECORD);
    struct outcome outcome;
    compact(fx->store, &handle, NULL, NULL, 0, &outcome);
    assert_int_equal(outcome.code, PLS_HANDLE_UNKNOWN);
    struct pls_seal again = seal(fx->store);
    assert_seal(&again, 3, 4);
    compact(fx->store, &handle, NULL, NULL, 0, &outcome);
    assert_int_equal(outcome.code, PLS_HANDLE_SUPERSEDED);
    assert_text(fx->store, &ref, "PAYLOAD");
    fx_reopen(fx);
    incarnation_of(fx->store, before);
    assert_string_equal(before, after);
}

static void the_incarnation_guards_a_repeated_delete(void **state)
{
    struct fixture *fx = *state;
    char first[33];
    incarnation_of(fx->store, first);
    assert_int_equal(pls_store_delete(fx->dir, "s", 0, "0123", NULL), PLS_INCARNATION_DIFFERS);
    pls_store_release(fx->store);
    assert_int_equal(pls_store_delete(fx->dir, "s", 0, first, NULL), PLS_OK);
    make_s(fx);
    struct pls_ref ref = put_text(fx->store, "new");
    assert_int_equal(pls_store_delete(fx->dir, "s", 0, first, NULL), PLS_INCARNATION_DIFFERS);
    assert_int_equal(pls_store_delete(fx->dir, "s", 5, NULL, NULL), PLS_EPOCH_STALE);
    assert_text(fx->store, &ref, "new");
}

static void who_still_holds_a_deleted_store_is_told_so(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_text(fx->store, "payload");
    struct pls_view view;
    assert_int_equal(try_read(fx->store, &ref, &view), PLS_OK);
    assert_int_equal(pls_store_delete(fx->dir, "s", 0, "", NULL), PLS_OK);
    struct pls_seal given;
    struct pls_stat stat;
    assert_unreadable(fx->store, &ref, PLS_NO_STORE);
    assert_int_equal(try_append(fx->store, "x", 1, PLS_SYNCED, &ref), PLS_NO_STORE);
    assert_int_equal(pls_store_seal(fx->store, 0, &given, NULL), PLS_NO_STORE);
    assert_int_equal(pls_store_stat(fx->store, &stat, NULL), PLS_NO_STORE);
    assert_memory_equal(view.data, "payload", 7);
    pls_view_release(&view);
    /* The new one of that name is another. */
    pls_store *fresh;
    assert_int_equal(pls_store_open(fx->dir, "s", 0, &fresh, NULL), PLS_OK);
    put_text(fresh, "x");
    assert_int_equal(try_append(fx->store, "x", 1, PLS_SYNCED, &ref), PLS_NO_STORE);
    pls_store_release(fresh);
}

static void a_crash_half_way_is_finished_by_the_next_open(void **state)
{
    struct fixture *fx = *state;
    put_text(fx->store, "payload");
    delete_s(fx);
    file_write(fx, "s/payload_0000.dat", 0, "\3\0\0\0abc", 7); /* not yet deleted */
    make_s(fx);
    assert_false(file_exists(fx, "s/payload_0000.dat"));
    struct pls_ref old = {.length = 3};
    assert_unreadable(fx->store, &old, PLS_NO_RECORD);
    delete_s(fx);
    file_write(fx, "s/payload_0001.dat", 0, "\3\0\0\0abc", 7);
    assert_int_equal(pls_dir_close(fx->dir), PLS_OK);
    assert_int_equal(pls_dir_open(fx->path, &fx->options, &fx->dir, NULL), PLS_OK);
    assert_false(file_exists(fx, "s/payload_0001.dat"));
}

static void a_compaction_that_gathers_is_cancelled(void **state)
{
    struct fixture *fx = *state;
    struct pls_ref ref = put_text(fx->store, "payload");
    struct pls_seal given = seal(fx->store);
    const struct pls_compact_options options = {0};
    pls_compact *compaction;
    assert_int_equal(pls_compact_begin(fx->store, &given, &options, &compaction, NULL), PLS_OK);
    delete_s(fx);
    make_s(fx);
    assert_int_equal(pls_compact_live(compaction, &ref, 1, NULL), PLS_OK);
    assert_int_equal(pls_compact_run(compaction, NULL, NULL, NULL), PLS_CANCELLED);
    pls_compact_destroy(compaction);
    assert_int_equal(file_count(fx, "s", "compact_"), 0);
    assert_int_equal(file_count(fx, "s", "payload_"), 1);
}

struct runner {
    pls_compact *compaction;
    atomic_bool started;
    enum pls_code code;
};

static void *run_compaction(void *arg)
{
    struct runner *runner = arg;
    atomic_store(&runner->started, true);
    runner->code = pls_compact_run(runner->compaction, NULL, NULL, NULL);
    return NULL;
}

static void a_compaction_that_runs_is_cancelled(void **state)
{
    struct fixture *fx = *state;
    for (uint32_t round = 0; round < 6; round++) {
        struct pls_ref refs[16];
        for (uint32_t i = 0; i < 16; i++) {
            refs[i] = put_filled(fx->store, MIB, i);
        }
        struct pls_seal given = seal(fx->store);
        const struct pls_compact_options options = {0};
        struct runner runner = {0};
        pthread_t thread;
        assert_int_equal(pls_compact_begin(fx->store, &given, &options, &runner.compaction, NULL),
                         PLS_OK);
        assert_int_equal(pls_compact_live(runner.compaction, refs, 16, NULL), PLS_OK);
        assert_int_equal(pthread_create(&thread, NULL, run_compaction, &runner), 0);
        while (round > 0 && !atomic_load(&runner.started)) {
        }
        /* Now and then it is in the middle of it. */
        while (round > 2 && runner.compaction != NULL && file_count(fx, "s", "compact_") == 0 &&
               file_exists(fx, "s/payload_0000.dat")) {
        }
        delete_s(fx);
        pthread_join(thread, NULL);
        assert_true(runner.code == PLS_CANCELLED || runner.code == PLS_NO_STORE ||
                    runner.code == PLS_OK);
        pls_compact_destroy(runner.compaction);
        assert_int_equal(file_count(fx, "s", "compact_"), 0);
        assert_int_equal(file_count(fx, "s", "payload_"), 0);
        make_s(fx);
        assert_unreadable(fx->store, &refs[0], PLS_NO_RECORD);
    }
}

/* -- with calls from all sides -- */

struct caller {
    pls_dir *dir;
    atomic_bool *stop;
    unsigned wrong, answered;
};

static void *append_and_read(void *arg)
{
    struct caller *caller = arg;
    while (!atomic_load(caller->stop)) {
        pls_store *store;
        struct pls_ref ref;
        struct pls_view view;
        if (pls_store_open(caller->dir, "s", 0, &store, NULL) != PLS_OK) {
            continue; /* deleted this very moment */
        }
        enum pls_code code = try_append(store, "payload", 7, PLS_BUFFERED, &ref);
        if (code == PLS_OK) {
            caller->answered++;
            code = try_read(store, &ref, &view);
            caller->wrong += code == PLS_OK && memcmp(view.data, "payload", 7) != 0;
            pls_view_release(&view);
        }
        caller->wrong += code != PLS_OK && code != PLS_NO_STORE;
        pls_store_release(store);
    }
    return NULL;
}

static void deleting_under_load_is_clean(void **state)
{
    struct fixture *fx = *state;
    atomic_bool stop = false;
    struct caller callers[2];
    pthread_t threads[2];
    for (size_t i = 0; i < 2; i++) {
        callers[i] = (struct caller){.dir = fx->dir, .stop = &stop};
        assert_int_equal(pthread_create(&threads[i], NULL, append_and_read, &callers[i]), 0);
    }
    for (int i = 0; i < 30; i++) {
        enum pls_code code = pls_store_delete(fx->dir, "s", 0, NULL, NULL);
        assert_true(code == PLS_OK || code == PLS_NO_STORE);
    }
    atomic_store(&stop, true);
    for (size_t i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(callers[i].wrong, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(a_deleted_store_is_gone),
        STORE_TEST(a_deleted_store_stays_deleted_over_a_restart),
        STORE_TEST(old_refs_and_handles_never_meet_a_new_store),
        STORE_TEST(the_incarnation_guards_a_repeated_delete),
        STORE_TEST(who_still_holds_a_deleted_store_is_told_so),
        STORE_TEST(a_crash_half_way_is_finished_by_the_next_open),
        STORE_TEST(a_compaction_that_gathers_is_cancelled),
        STORE_TEST(a_compaction_that_runs_is_cancelled),
        STORE_TEST(deleting_under_load_is_clean),
    };
    return cmocka_run_group_tests_name("store_delete", tests, NULL, NULL);
}
