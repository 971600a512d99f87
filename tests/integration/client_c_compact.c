/* plc_compact against a real server, which dies at every moment. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "client_c_fixture.h"

#define N_REFS 100000

/* When the server is killed, and started again. */
enum moment { NEVER, IN_LIVE_BEGIN, IN_FIRST_LIVE, AT_END_OF_LIST, IN_FIRST_RELOCATED };

#define DEAD_EVERY 8
#define N_DEAD     (N_REFS / DEAD_EVERY)
#define N_LIVE     (N_REFS - N_DEAD)

static bool is_live(size_t i)
{
    return i % DEAD_EVERY != 0;
}

/* A broker that has consumed an eighth: so the map is larger than a stream's window, and a server
 * that dies as the first of it arrives has not sent all. */
struct broker {
    struct fixture *f;
    struct plc_call call;
    struct plc_ref refs[N_REFS];
    struct plc_ref moved[N_REFS]; /* of those that are: where to */
    unsigned times[N_REFS];       /* told of */
    size_t next;                  /* to list */
    unsigned lists;
    size_t n_damaged;
    enum moment moment;
    int signal;
};

static void strike(struct broker *b, enum moment moment)
{
    if (b->moment != moment) {
        return;
    }
    b->moment = NEVER;
    server_process_stop(&b->f->server, b->signal);
    server_process_start(&b->f->server, flags);
}

static bool live_begin(void *arg, const struct plc_seal *seal)
{
    struct broker *b = arg;
    assert_int_equal(seal->compaction_id, seal->sealed_id + 1);
    b->next = 0;
    b->lists++;
    strike(b, IN_LIVE_BEGIN);
    return true;
}

static size_t live(void *arg, struct plc_ref *refs, size_t max)
{
    struct broker *b = arg;
    size_t n = 0;
    if (b->next > 0) {
        strike(b, IN_FIRST_LIVE);
    }
    for (; n < max && b->next < N_REFS; b->next++) {
        if (is_live(b->next)) {
            refs[n++] = b->refs[b->next];
        }
    }
    if (n == 0) {
        strike(b, AT_END_OF_LIST);
    }
    return n;
}

static int by_place(const void *a, const void *b)
{
    const struct plc_ref *x = a, *y = b;
    if (x->file_id != y->file_id) {
        return x->file_id < y->file_id ? -1 : 1;
    }
    return (x->offset > y->offset) - (x->offset < y->offset);
}

static bool relocated(void *arg, const struct plc_relocation *relocations, size_t n)
{
    struct broker *b = arg;
    for (size_t i = 0; i < n; i++) {
        /* They are in order. */
        const struct plc_ref *found =
            bsearch(&relocations[i].old_ref, b->refs, N_REFS, sizeof b->refs[0], by_place);
        assert_non_null(found);
        size_t at = (size_t)(found - b->refs);
        assert_true(b->times[at] == 0 || by_place(&b->moved[at], &relocations[i].new_ref) == 0);
        b->moved[at] = relocations[i].new_ref;
        b->times[at]++;
    }
    strike(b, IN_FIRST_RELOCATED);
    return true;
}

static void damaged(void *arg, const struct plc_damaged *refs, size_t n)
{
    struct broker *b = arg;
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(refs[i].code, PLC_NOT_FOUND);
        assert_string_not_equal(refs[i].message, "");
    }
    b->n_damaged += n;
}

static struct plc_compact_callbacks callbacks_of(struct broker *b)
{
    return (struct plc_compact_callbacks){.live_begin = live_begin,
                                          .live = live,
                                          .relocated = relocated,
                                          .damaged = damaged,
                                          .arg = b};
}

/* A segment as another program leaves it: a directory of those is a store. */
static void write_segment(struct broker *b)
{
    char dir[PATH_MAX + 100], path[PATH_MAX + 200];
    snprintf(dir, sizeof dir, "%s/data/%s", b->f->server.dir, b->call.store);
    snprintf(path, sizeof path, "%s/payload_0000.dat", dir);
    assert_int_equal(mkdir(dir, 0777), 0);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    for (uint32_t i = 0; i < N_REFS; i++) {
        const uint32_t record[2] = {sizeof i, i};
        assert_int_equal(fwrite(record, sizeof record, 1, file), 1);
        b->refs[i] = (struct plc_ref){.offset = i * sizeof record, .length = sizeof i};
    }
    assert_int_equal(fclose(file), 0);
}

/* With a store of its own. */
static struct broker *broker_create(struct fixture *f, const char *store)
{
    struct broker *b = calloc(1, sizeof *b);
    b->f = f;
    b->signal = SIGKILL;
    b->call.store = store;
    server_process_stop(&f->server, SIGTERM);
    write_segment(b);
    server_process_start(&f->server, flags);
    return b;
}

static void assert_the_live_were_kept(struct broker *b)
{
    struct plc_payload payload;
    for (uint32_t i = 0; i < N_REFS; i++) {
        assert_int_equal(b->times[i] > 0, is_live(i));
        if (i % 1000 > 1) {
            continue;
        }
        if (is_live(i)) {
            assert_reads_in(b->f, &b->call, &b->refs[i], &i);
            assert_reads_in(b->f, &b->call, &b->moved[i], &i);
        } else {
            assert_code(b->f, plc_read(b->f->client, &b->call, &b->refs[i], &payload, &b->f->error),
                        PLC_NOT_FOUND);
        }
    }
}

static const struct plc_compact_options all_of_it = {.carry_nothing = true, .retry_ms = PATIENCE};

static void a_compaction_keeps_what_is_live(void **state)
{
    struct fixture *f = *state;
    struct broker *b = broker_create(f, STORE);
    const struct plc_compact_callbacks callbacks = callbacks_of(b);
    struct plc_compact_summary summary;
    assert_ok(f, plc_compact(f->client, NULL, &all_of_it, &callbacks, &summary, &f->error));
    assert_the_live_were_kept(b);
    assert_int_equal(b->lists, 1);
    assert_int_equal(summary.tries, 1);
    assert_int_equal(summary.live_records, N_LIVE);
    assert_int_equal(summary.relocated_records, N_LIVE);
    assert_int_equal(summary.relocated_bytes, N_LIVE * 8);
    assert_int_equal(summary.reclaimed_bytes, N_DEAD * 8);
    assert_int_equal(summary.deleted_segments, 1);
    assert_false(summary.damaged_incomplete);
    free(b);
}

static void a_dry_run_tells_and_changes_nothing(void **state)
{
    struct fixture *f = *state;
    struct broker *b = broker_create(f, STORE);
    struct plc_compact_callbacks callbacks = callbacks_of(b);
    callbacks.relocated = NULL;
    const struct plc_compact_options dry = {.dry_run = true, .carry_nothing = true};
    struct plc_compact_summary summary;
    assert_ok(f, plc_compact(f->client, NULL, &dry, &callbacks, &summary, &f->error));
    assert_int_equal(summary.relocated_records, N_LIVE);
    for (uint32_t i = 0; i < N_REFS; i += 2000) {
        assert_reads(f, &b->refs[i], &i);
    }
    free(b);
}

static void what_may_have_been_appended_lately_is_carried(void **state)
{
    struct fixture *f = *state;
    struct broker *b = broker_create(f, STORE);
    const struct plc_compact_callbacks callbacks = callbacks_of(b);
    struct plc_compact_summary summary;
    /* Since this start of the server nothing can be dated, and the client says its deadline. */
    assert_ok(f, plc_compact(f->client, NULL, NULL, &callbacks, &summary, &f->error));
    assert_int_equal(summary.live_records, N_LIVE);
    assert_int_equal(summary.relocated_records, N_REFS);
    for (uint32_t i = 0; i < N_REFS; i += 2000) {
        assert_int_equal(b->times[i], 0);
        assert_reads(f, &b->refs[i], &i);
    }
    free(b);
}

static void a_server_that_dies_at_any_moment_compacts_once(void **state)
{
    struct fixture *f = *state;
    static const struct {
        enum moment moment;
        unsigned lists, tries;
    } cases[] = {
        {IN_LIVE_BEGIN, 2, 2},
        {IN_FIRST_LIVE, 2, 2},
        /* The commit was sent to a dead server: asked for the map first, then the list. */
        {AT_END_OF_LIST, 2, 3},
        /* It has committed: the map is asked for, and no list. */
        {IN_FIRST_RELOCATED, 1, 2},
    };
    static const int signals[] = {SIGKILL, SIGTERM};
    for (size_t i = 0; i < 2 * sizeof cases / sizeof cases[0]; i++) {
        char store[20];
        snprintf(store, sizeof store, "round-%zu", i);
        struct broker *b = broker_create(f, store);
        const struct plc_compact_callbacks callbacks = callbacks_of(b);
        struct plc_compact_summary summary;
        b->moment = cases[i / 2].moment;
        b->signal = signals[i % 2];
        assert_ok(f, plc_compact(f->client, &b->call, &all_of_it, &callbacks, &summary, &f->error));
        assert_int_equal(b->moment, NEVER);
        assert_the_live_were_kept(b);
        assert_int_equal(b->lists, cases[i / 2].lists);
        /* More where the server was not up again at once; fewer where one that was told to stop
         * sent the rest of its answer first. */
        if (b->signal == SIGKILL) {
            assert_true(summary.tries >= cases[i / 2].tries);
        }
        assert_int_equal(summary.live_records, N_LIVE);
        assert_int_equal(summary.relocated_records, N_LIVE);
        assert_int_equal(b->times[1] > 1,
                         cases[i / 2].moment == IN_FIRST_RELOCATED && summary.tries > 1);
        free(b);
    }
}

/* A caller who dies as it is told. */
static bool die(void *arg, const struct plc_relocation *relocations, size_t n)
{
    struct broker *b = arg;
    (void)relocations;
    (void)n;
    b->times[0]++;
    return false;
}

static size_t stop_listing(void *arg, struct plc_ref *refs, size_t max)
{
    struct plc_ref *ref = arg;
    (void)max;
    if (ref->length == 0) {
        return PLC_LIVE_STOP;
    }
    refs[0] = *ref;
    ref->length = 0;
    return 1;
}

static bool never_begin(void *arg, const struct plc_seal *seal)
{
    (void)arg;
    (void)seal;
    return false;
}

static void a_callback_stops_it_and_nothing_is_lost(void **state)
{
    struct fixture *f = *state;
    struct broker *b = broker_create(f, STORE);
    struct plc_compact_callbacks callbacks = callbacks_of(b);
    callbacks.live_begin = never_begin;
    assert_code(f, plc_compact(f->client, NULL, &all_of_it, &callbacks, NULL, &f->error),
                PLC_STOPPED);
    struct plc_ref once = b->refs[1];
    const struct plc_compact_callbacks half = {
        .live = stop_listing, .relocated = relocated, .arg = &once};
    /* The server may see that the one before was cancelled a moment later. */
    enum plc_code code;
    do {
        once = b->refs[1];
        code = plc_compact(f->client, NULL, &all_of_it, &half, NULL, &f->error);
    } while (code == PLC_COMPACTION_RUNNING);
    assert_int_equal(code, PLC_STOPPED);
    for (uint32_t i = 0; i < N_REFS; i += 1999) {
        assert_reads(f, &b->refs[i], &i);
    }
    free(b);
}

static void a_caller_that_dies_while_it_is_told_calls_again(void **state)
{
    struct fixture *f = *state;
    struct broker *b = broker_create(f, STORE);
    struct plc_compact_callbacks callbacks = callbacks_of(b);
    callbacks.relocated = die;
    assert_code(f, plc_compact(f->client, NULL, &all_of_it, &callbacks, NULL, &f->error),
                PLC_STOPPED);
    assert_int_equal(b->times[0], 1);
    b->times[0] = 0;
    /* It knows the old refs alone, and they are live. */
    callbacks.relocated = relocated;
    assert_ok(f, plc_compact(f->client, NULL, &all_of_it, &callbacks, NULL, &f->error));
    assert_the_live_were_kept(b);
    free(b);
}

static void a_live_ref_that_cannot_be_read_ends_it_or_is_reported(void **state)
{
    struct fixture *f = *state;
    struct broker *b = broker_create(f, STORE);
    const struct plc_compact_callbacks callbacks = callbacks_of(b);
    struct plc_compact_options options = all_of_it;
    struct plc_compact_summary summary;
    const struct plc_ref good = b->refs[101];
    b->refs[101].offset++;
    assert_code(f, plc_compact(f->client, NULL, &options, &callbacks, NULL, &f->error),
                PLC_LIVE_REF_UNREADABLE);
    assert_int_equal(f->error.status, 5);
    assert_string_equal(f->error.reason, "LIVE_REF_UNREADABLE");
    uint32_t number = 101;
    assert_reads(f, &good, &number);

    options.keep_damaged = true;
    assert_ok(f, plc_compact(f->client, NULL, &options, &callbacks, &summary, &f->error));
    assert_int_equal(b->n_damaged, 1);
    assert_false(summary.damaged_incomplete);
    assert_int_equal(b->times[99], 1);
    free(b);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_compaction_keeps_what_is_live),
        TEST(a_dry_run_tells_and_changes_nothing),
        TEST(what_may_have_been_appended_lately_is_carried),
        TEST(a_server_that_dies_at_any_moment_compacts_once),
        TEST(a_callback_stops_it_and_nothing_is_lost),
        TEST(a_caller_that_dies_while_it_is_told_calls_again),
        TEST(a_live_ref_that_cannot_be_read_ends_it_or_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
