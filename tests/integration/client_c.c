/* The C client library against a real server: each call, its errors, and compactions whose server
 * dies at every moment. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "payloadstore-client/appender.h"
#include "payloadstore-client/client.h"
#include "payloadstore-client/compact.h"
#include "server_process.h"

#define STORE    "orders"
#define N_REFS   100000
#define PATIENCE 300000 /* ms: a server under a sanitizer is slow */

static const char *const flags[] = {
    "--segment-max-mb", "1", "--max-payload-mb", "2", "--drain-seconds", "2", NULL};
static const struct plc_options patient = {
    .store = STORE, .deadline_ms = PATIENCE, .wait_for_server = true};

struct fixture {
    struct server_process server;
    plc_client *client;
    struct plc_error error;
};

#define assert_code(f, expression, expected)                                     \
    do {                                                                         \
        enum plc_code code_ = (expression);                                      \
        if (code_ != (expected)) {                                               \
            print_message("%s: %s\n", plc_code_name(code_), (f)->error.message); \
        }                                                                        \
        assert_int_equal(code_, expected);                                       \
        assert_int_equal((f)->error.code, expected);                             \
        assert_int_equal((f)->error.message[0] == '\0', (expected) == PLC_OK);   \
    } while (0)
#define assert_ok(f, expression) assert_code(f, expression, PLC_OK)

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    server_process_init(&f->server);
    server_process_start(&f->server, flags);
    assert_ok(f, plc_client_open(f->server.address, &patient, &f->client, &f->error));
    /* One that is not up yet would die of a SIGTERM. */
    struct plc_stat stat;
    assert_code(f, plc_stat(f->client, NULL, &stat, &f->error), PLC_NOT_FOUND);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    plc_client_close(f->client);
    int status = f->server.pid > 0 ? server_process_stop(&f->server, SIGTERM) : 0;
    server_process_fini(&f->server);
    free(f);
    return status;
}

static struct plc_ref append(struct fixture *f, const void *payload, size_t length)
{
    struct plc_ref ref;
    assert_ok(f, plc_append(f->client, NULL, payload, length, PLC_BUFFERED, &ref, &f->error));
    return ref;
}

static void assert_reads_in(struct fixture *f, const struct plc_call *call,
                            const struct plc_ref *ref, const void *payload)
{
    struct plc_payload stored;
    assert_ok(f, plc_read(f->client, call, ref, &stored, &f->error));
    assert_int_equal(stored.length, ref->length);
    if (ref->length > 0) {
        assert_memory_equal(stored.data, payload, ref->length);
    }
    plc_payload_fini(&stored);
    plc_payload_fini(&stored);
}

static void assert_reads(struct fixture *f, const struct plc_ref *ref, const void *payload)
{
    assert_reads_in(f, NULL, ref, payload);
}

/* -- single calls ------------------------------------------------------------------------------ */

static void what_is_appended_is_read(void **state)
{
    struct fixture *f = *state;
    size_t large = 2u << 20;
    uint8_t *payload = malloc(large);
    memset(payload, 0x5a, large);
    struct plc_ref empty = append(f, NULL, 0), small = append(f, "abc", 3),
                   big = append(f, payload, large);
    assert_int_equal(empty.length, 0);
    assert_int_equal(small.offset, 4);
    assert_int_equal(big.offset, 11);
    assert_reads(f, &empty, NULL);
    assert_reads(f, &small, "abc");
    assert_reads(f, &big, payload);
    struct plc_ref ref;
    assert_ok(f, plc_append(f->client, NULL, "x", 1, PLC_SYNCED, &ref, NULL));
    assert_ok(f, plc_append(f->client, NULL, "x", 1, PLC_SERVER_DEFAULT, &ref, &f->error));
    free(payload);
}

static void stores_are_apart(void **state)
{
    struct fixture *f = *state;
    const struct plc_call other = {.store = "other"}, none = {.store = "none"};
    struct plc_ref ref = append(f, "mine", 4), others;
    struct plc_payload payload;
    assert_ok(f, plc_append(f->client, &other, "theirs", 6, PLC_BUFFERED, &others, &f->error));
    assert_int_equal(others.offset, ref.offset);
    assert_code(f, plc_read(f->client, NULL, &others, &payload, &f->error), PLC_NOT_FOUND);
    assert_code(f, plc_read(f->client, &none, &ref, &payload, &f->error), PLC_NOT_FOUND);
    assert_non_null(strstr(f->error.message, "none"));
    assert_int_equal(f->error.status, 5);
    assert_string_equal(f->error.reason, "");
}

static void a_damaged_payload_is_data_loss(void **state)
{
    struct fixture *f = *state;
    struct plc_ref ref = append(f, "payload", 7);
    struct plc_payload payload;
    ref.crc32c ^= 1;
    assert_code(f, plc_read(f->client, NULL, &ref, &payload, &f->error), PLC_DATA_LOSS);
}

static void a_stat_tells_what_there_is(void **state)
{
    struct fixture *f = *state;
    struct plc_stat stat = {0};
    struct plc_seal seal;
    uint64_t epoch;
    assert_code(f, plc_stat(f->client, NULL, &stat, &f->error), PLC_NOT_FOUND);
    append(f, "four", 4);
    assert_ok(f, plc_stat(f->client, NULL, &stat, &f->error));
    assert_string_equal(stat.store, STORE);
    assert_string_equal(stat.owner, "");
    assert_int_equal(strlen(stat.incarnation), 32);
    assert_int_equal(stat.disk_usage_bytes, 8);
    assert_int_equal(stat.records, 1);
    assert_int_equal(stat.max_payload_bytes, 2u << 20);
    assert_false(stat.sealed);
    assert_int_equal(stat.n_segments, 1);
    assert_true(stat.segments[0].active);
    assert_int_equal(stat.segments[0].bytes, 8);
    plc_stat_fini(&stat);
    plc_stat_fini(&stat);

    assert_ok(f, plc_seal_store(f->client, NULL, &seal, &f->error));
    assert_ok(f, plc_claim(f->client, NULL, "a test", NULL, &epoch, &f->error));
    assert_ok(f, plc_stat(f->client, NULL, &stat, &f->error));
    assert_true(stat.sealed);
    assert_int_equal(stat.last_seal.sealed_id, seal.sealed_id);
    assert_int_equal(stat.last_seal.compaction_id, seal.sealed_id + 1);
    assert_int_equal(stat.epoch, epoch);
    assert_string_equal(stat.owner, "a test");
    plc_stat_fini(&stat);
}

static void a_seal_with_nothing_new_is_the_same_one(void **state)
{
    struct fixture *f = *state;
    struct plc_seal first, again, next;
    append(f, "a", 1);
    assert_ok(f, plc_seal_store(f->client, NULL, &first, &f->error));
    assert_ok(f, plc_seal_store(f->client, NULL, &again, &f->error));
    assert_memory_equal(&first, &again, sizeof first);
    append(f, "b", 1);
    assert_ok(f, plc_seal_store(f->client, NULL, &next, &f->error));
    assert_true(next.sealed_id > first.sealed_id);
}

static size_t no_live(void *arg, struct plc_ref *refs, size_t max)
{
    (void)arg;
    (void)refs;
    (void)max;
    return 0;
}

static bool nothing_moves(void *arg, const struct plc_relocation *relocations, size_t n)
{
    (void)arg;
    (void)relocations;
    return n == 0;
}

static const struct plc_compact_callbacks nothing_live = {.live = no_live,
                                                          .relocated = nothing_moves};

static void a_zombie_is_told_apart_by_its_code(void **state)
{
    struct fixture *f = *state;
    const uint64_t never = 0;
    uint64_t epoch = 0, later = 0;
    struct plc_ref ref;
    struct plc_seal seal;
    assert_ok(f, plc_claim(f->client, NULL, "first", &never, &epoch, &f->error));
    const struct plc_call mine = {.epoch = epoch};
    assert_ok(f, plc_append(f->client, &mine, "a", 1, PLC_BUFFERED, &ref, &f->error));
    /* Somebody else's, by which ours is not to be confused with a stale one. */
    assert_code(f, plc_claim(f->client, NULL, "late", &never, &later, &f->error),
                PLC_FAILED_PRECONDITION);
    assert_int_equal(later, 0);
    assert_ok(f, plc_claim(f->client, NULL, "second", &epoch, &later, &f->error));
    assert_int_equal(later, epoch + 1);

    assert_code(f, plc_append(f->client, &mine, "b", 1, PLC_BUFFERED, &ref, &f->error),
                PLC_EPOCH_STALE);
    assert_string_equal(f->error.reason, "EPOCH_STALE");
    assert_int_equal(f->error.status, 9);
    assert_code(f, plc_seal_store(f->client, &mine, &seal, &f->error), PLC_EPOCH_STALE);
    assert_code(f, plc_compact(f->client, &mine, NULL, &nothing_live, NULL, &f->error),
                PLC_EPOCH_STALE);
    const struct plc_call mine_named = {.store = STORE, .epoch = epoch};
    assert_code(f, plc_delete_store(f->client, &mine_named, NULL, &f->error), PLC_EPOCH_STALE);
}

static void a_store_is_deleted_by_name_and_incarnation(void **state)
{
    struct fixture *f = *state;
    const struct plc_call named = {.store = STORE};
    struct plc_stat stat;
    struct plc_ref ref = append(f, "a", 1);
    struct plc_payload payload;
    assert_ok(f, plc_stat(f->client, NULL, &stat, &f->error));
    assert_code(f, plc_delete_store(f->client, NULL, NULL, &f->error), PLC_INVALID_ARGUMENT);
    assert_code(f, plc_delete_store(f->client, &named, "another", &f->error),
                PLC_FAILED_PRECONDITION);
    assert_reads(f, &ref, "a");
    assert_ok(f, plc_delete_store(f->client, &named, stat.incarnation, &f->error));
    assert_code(f, plc_read(f->client, NULL, &ref, &payload, &f->error), PLC_NOT_FOUND);
    assert_code(f, plc_delete_store(f->client, &named, stat.incarnation, &f->error), PLC_NOT_FOUND);
    plc_stat_fini(&stat);
}

static void hostile_arguments_are_refused(void **state)
{
    struct fixture *f = *state;
    char long_name[5000];
    memset(long_name, 'a', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    const struct plc_call calls[] = {
        {.store = "../up"}, {.store = "\xff\xfe"}, {.store = long_name}, {.store = ".hidden"}};
    struct plc_ref ref = {0};
    struct plc_payload payload;
    struct plc_stat stat;
    struct plc_seal seal;
    uint64_t epoch;
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        const struct plc_call *call = &calls[i];
        assert_code(f, plc_append(f->client, call, "a", 1, PLC_BUFFERED, &ref, &f->error),
                    PLC_INVALID_ARGUMENT);
        assert_code(f, plc_read(f->client, call, &ref, &payload, &f->error), PLC_INVALID_ARGUMENT);
        assert_code(f, plc_seal_store(f->client, call, &seal, &f->error), PLC_INVALID_ARGUMENT);
        assert_code(f, plc_claim(f->client, call, NULL, NULL, &epoch, &f->error),
                    PLC_INVALID_ARGUMENT);
        assert_code(f, plc_stat(f->client, call, &stat, &f->error), PLC_INVALID_ARGUMENT);
        assert_code(f, plc_delete_store(f->client, call, NULL, &f->error), PLC_INVALID_ARGUMENT);
        assert_code(f, plc_compact(f->client, call, NULL, &nothing_live, NULL, &f->error),
                    PLC_INVALID_ARGUMENT);
    }
    assert_code(f, plc_claim(f->client, NULL, "\xff", NULL, &epoch, &f->error),
                PLC_INVALID_ARGUMENT);
    assert_code(f, plc_claim(f->client, NULL, long_name, NULL, &epoch, &f->error),
                PLC_INVALID_ARGUMENT);
    assert_code(f, plc_claim(f->client, NULL, NULL, NULL, NULL, &f->error), PLC_INVALID_ARGUMENT);
    assert_code(f, plc_append(f->client, NULL, NULL, 1, PLC_BUFFERED, &ref, &f->error),
                PLC_INVALID_ARGUMENT);
    assert_code(f, plc_append(f->client, NULL, "a", 1, PLC_BUFFERED, NULL, &f->error),
                PLC_INVALID_ARGUMENT);
    assert_code(f, plc_append(f->client, NULL, "a", 1, (enum plc_durability)7, &ref, &f->error),
                PLC_INVALID_ARGUMENT);
    /* Refused before a byte of it is looked at. */
    assert_code(f,
                plc_append(f->client, NULL, "a", (size_t)PLC_PAYLOAD_LIMIT + 1, PLC_BUFFERED, &ref,
                           &f->error),
                PLC_PAYLOAD_TOO_LARGE);
    assert_code(f, plc_read(f->client, NULL, NULL, &payload, &f->error), PLC_INVALID_ARGUMENT);
    append(f, "a", 1);
    const struct plc_ref absurd = {UINT32_MAX, UINT64_MAX, UINT32_MAX, UINT32_MAX};
    assert_code(f, plc_read(f->client, NULL, &absurd, &payload, &f->error), PLC_INVALID_ARGUMENT);
    const struct plc_compact_options absurd_share = {.min_garbage_percent = 101};
    assert_code(f, plc_compact(f->client, NULL, &absurd_share, &nothing_live, NULL, &f->error),
                PLC_INVALID_ARGUMENT);
    const struct plc_compact_callbacks none = {0};
    assert_code(f, plc_compact(f->client, NULL, NULL, &none, NULL, &f->error),
                PLC_INVALID_ARGUMENT);

    plc_client *client;
    const struct plc_options negative = {.deadline_ms = -1};
    const struct plc_options too_large = {.max_payload_bytes = SIZE_MAX};
    assert_code(f, plc_client_open(NULL, NULL, &client, &f->error), PLC_INVALID_ARGUMENT);
    assert_code(f, plc_client_open("", NULL, &client, &f->error), PLC_INVALID_ARGUMENT);
    assert_code(f, plc_client_open("a:1", &negative, &client, &f->error), PLC_INVALID_ARGUMENT);
    assert_code(f, plc_client_open("a:1", &too_large, &client, &f->error), PLC_INVALID_ARGUMENT);
}

static void a_payload_beyond_a_limit_is_refused_and_harms_nothing(void **state)
{
    struct fixture *f = *state;
    size_t large = (2u << 20) + 1;
    uint8_t *payload = calloc(1, large);
    struct plc_ref ref;
    assert_code(f, plc_append(f->client, NULL, payload, large, PLC_BUFFERED, &ref, &f->error),
                PLC_PAYLOAD_TOO_LARGE);
    assert_string_equal(f->error.reason, "PAYLOAD_TOO_LARGE");
    ref = append(f, payload, 1u << 20);

    plc_client *narrow;
    const struct plc_options options = {
        .store = STORE, .deadline_ms = PATIENCE, .max_payload_bytes = 1000};
    struct plc_payload stored;
    assert_ok(f, plc_client_open(f->server.address, &options, &narrow, &f->error));
    assert_code(f, plc_read(narrow, NULL, &ref, &stored, &f->error), PLC_RESOURCE_EXHAUSTED);
    assert_string_equal(f->error.reason, "");
    plc_client_close(narrow);
    assert_reads(f, &ref, payload);
    free(payload);
}

static void a_target_where_nobody_listens_is_unavailable(void **state)
{
    struct fixture *f = *state;
    static const char *const targets[] = {"unix:/nonexistent/socket", "127.0.0.1:1",
                                          "no-such-scheme:///x"};
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++) {
        plc_client *client;
        struct plc_ref ref;
        const struct plc_compact_options once = {.retry_ms = -1};
        assert_ok(f, plc_client_open(targets[i], NULL, &client, &f->error));
        assert_code(f, plc_append(client, NULL, "a", 1, PLC_BUFFERED, &ref, &f->error),
                    PLC_UNAVAILABLE);
        assert_code(f, plc_compact(client, NULL, &once, &nothing_live, NULL, &f->error),
                    PLC_UNAVAILABLE);
        plc_client_close(client);
    }
    plc_client_close(NULL);
}

static void a_silent_server_runs_into_the_deadline(void **state)
{
    struct fixture *f = *state;
    const struct plc_call hasty = {.deadline_ms = 100};
    struct plc_ref ref = append(f, "a", 1);
    struct plc_payload payload;
    kill(f->server.pid, SIGSTOP);
    assert_int_equal(waitpid(f->server.pid, NULL, WUNTRACED), f->server.pid); /* it has stopped */
    assert_code(f, plc_append(f->client, &hasty, "b", 1, PLC_BUFFERED, &ref, &f->error),
                PLC_DEADLINE_EXCEEDED);
    assert_code(f, plc_read(f->client, &hasty, &ref, &payload, &f->error), PLC_DEADLINE_EXCEEDED);
    assert_code(f, plc_compact(f->client, &hasty, NULL, &nothing_live, NULL, &f->error),
                PLC_DEADLINE_EXCEEDED);
    const struct plc_call past = {.deadline_ms = -5};
    assert_code(f, plc_compact(f->client, &past, NULL, &nothing_live, NULL, &f->error),
                PLC_DEADLINE_EXCEEDED);
    kill(f->server.pid, SIGCONT);
    assert_code(f, plc_append(f->client, &past, "b", 1, PLC_BUFFERED, &ref, &f->error),
                PLC_DEADLINE_EXCEEDED);
    assert_reads(f, &ref, "a");
}

static void codes_have_names_and_words(void **state)
{
    (void)state;
    assert_string_equal(plc_code_name(PLC_DISK_RESERVE), "DISK_RESERVE");
    assert_string_equal(plc_code_name(12345), "UNKNOWN");
    assert_string_equal(plc_strerror(PLC_OK), "success");
    assert_string_equal(plc_strerror(-1), "not a code of this library");
}

/* -- compaction -------------------------------------------------------------------------------- */

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

/* -- streams ----------------------------------------------------------------------------------- */

#define N_STREAMED 5000

/* What an appender told; its results come one at a time, and a flush shows them. */
struct told {
    struct fixture *f;
    struct plc_ref refs[N_STREAMED];
    enum plc_code codes[N_STREAMED];
    size_t n, n_ok, n_lost;
    size_t kill_at; /* results */
};

static void appended(void *arg, const struct plc_appended *result)
{
    struct told *t = arg;
    assert_ptr_equal(result->tag, &t->refs[t->n]);
    t->refs[t->n] = result->ref;
    t->codes[t->n] = result->code;
    t->n_ok += result->code == PLC_OK ? 1 : 0;
    t->n_lost += result->code == PLC_ANSWER_LOST ? 1 : 0;
    t->n++;
    if (t->n == t->kill_at) {
        server_process_stop(&t->f->server, SIGKILL);
        server_process_start(&t->f->server, flags);
    }
}

static plc_appender *open_appender(struct told *t, const struct plc_call *call, bool resend)
{
    plc_appender *appender;
    const struct plc_appender_options options = {
        .appended = appended, .arg = t, .durability = PLC_BUFFERED, .resend = resend};
    assert_ok(t->f, plc_appender_open(t->f->client, call, &options, &appender, &t->f->error));
    return appender;
}

static void append_numbers(struct told *t, plc_appender *appender)
{
    for (size_t i = 0; i < N_STREAMED; i++) {
        assert_ok(t->f, plc_appender_append(appender, &i, sizeof i, &t->refs[i], &t->f->error));
    }
}

static bool is_its_number(void *arg, const struct plc_read_result *result)
{
    struct told *t = arg;
    if (t->codes[result->index] == PLC_OK) {
        assert_int_equal(result->code, PLC_OK);
        assert_int_equal(result->length, sizeof result->index);
        assert_memory_equal(result->data, &result->index, sizeof result->index);
    } else {
        assert_int_not_equal(result->code, PLC_OK);
        assert_string_not_equal(result->error->message, "");
    }
    return true;
}

/* Also that what was not answered reads as a failure: its ref is no one's. */
static void assert_all_read(struct told *t)
{
    size_t n_read;
    for (size_t i = 0; i < N_STREAMED; i++) {
        if (t->codes[i] != PLC_OK) {
            t->refs[i] = (struct plc_ref){.file_id = 4000000, .length = 1};
        }
    }
    assert_ok(t->f, plc_read_many(t->f->client, NULL, t->refs, N_STREAMED, is_its_number, t,
                                  &n_read, &t->f->error));
    assert_int_equal(n_read, N_STREAMED);
}

static void what_is_streamed_in_is_streamed_out(void **state)
{
    struct fixture *f = *state;
    struct told *t = calloc(1, sizeof *t);
    t->f = f;
    plc_appender *appender = open_appender(t, NULL, false);
    append_numbers(t, appender);
    assert_ok(f, plc_appender_flush(appender, &f->error));
    assert_int_equal(t->n_ok, N_STREAMED);
    plc_appender_close(appender);
    t->codes[77] = PLC_NOT_FOUND; /* a ref that is none, among the others */
    assert_all_read(t);
    free(t);
}

static void a_server_killed_under_an_appender_loses_no_answered_payload(void **state)
{
    struct fixture *f = *state;
    for (int resend = 0; resend < 2; resend++) {
        struct told *t = calloc(1, sizeof *t);
        t->f = f;
        t->kill_at = N_STREAMED / 2;
        plc_appender *appender = open_appender(t, NULL, resend != 0);
        append_numbers(t, appender);
        plc_appender_close(appender);
        assert_int_equal(t->n, N_STREAMED);
        assert_int_equal(t->n_ok + t->n_lost, N_STREAMED);
        /* A window of 8 batches of 64 is what one loss can cost, and whoever sends again has none.
         */
        assert_true(t->n_lost <= (resend ? 0 : 8 * 64));
        assert_all_read(t);
        free(t);
    }
}

static void a_zombie_s_stream_and_a_payload_too_large_are_told_by_code(void **state)
{
    struct fixture *f = *state;
    struct told *t = calloc(1, sizeof *t);
    uint64_t epoch;
    size_t large = (2u << 20) + 1;
    uint8_t *payload = calloc(1, large);
    t->f = f;
    plc_appender *appender = open_appender(t, NULL, true);
    assert_ok(f, plc_appender_append(appender, payload, large, &t->refs[0], &f->error));
    assert_code(f, plc_appender_flush(appender, &f->error), PLC_PAYLOAD_TOO_LARGE);
    assert_ok(f, plc_appender_append(appender, payload, 1, &t->refs[1], &f->error));
    assert_ok(f, plc_appender_flush(appender, &f->error));
    assert_ok(f, plc_claim(f->client, NULL, "another", NULL, &epoch, &f->error));
    assert_ok(f, plc_appender_append(appender, payload, 1, &t->refs[2], &f->error));
    assert_code(f, plc_appender_flush(appender, &f->error), PLC_EPOCH_STALE);
    plc_appender_close(appender);
    assert_int_equal(t->n_ok, 1);

    const struct plc_call nameless = {.store = "../up"};
    t->n = 0;
    appender = open_appender(t, &nameless, true);
    assert_ok(f, plc_appender_append(appender, payload, 1, &t->refs[0], &f->error));
    assert_code(f, plc_appender_flush(appender, &f->error), PLC_INVALID_ARGUMENT);
    plc_appender_close(appender);
    free(payload);
    free(t);
}

/* -- the README's example ---------------------------------------------------------------------- */

static void the_example_in_the_readme_says_what_it_should(void **state)
{
    struct fixture *f = *state;
    char command[1024], said[100] = "";
    const char *example = getenv("CLIENT_C_EXAMPLE");
    assert_non_null(example);
    snprintf(command, sizeof command, "'%s' '%s'", example, f->server.address);
    FILE *output = popen(command, "r");
    assert_non_null(output);
    assert_non_null(fgets(said, sizeof said, output));
    assert_int_equal(pclose(output), 0);
    assert_string_equal(said, "hello world, in segment 1\n");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(what_is_appended_is_read),
        TEST(stores_are_apart),
        TEST(a_damaged_payload_is_data_loss),
        TEST(a_stat_tells_what_there_is),
        TEST(a_seal_with_nothing_new_is_the_same_one),
        TEST(a_zombie_is_told_apart_by_its_code),
        TEST(a_store_is_deleted_by_name_and_incarnation),
        TEST(hostile_arguments_are_refused),
        TEST(a_payload_beyond_a_limit_is_refused_and_harms_nothing),
        TEST(a_target_where_nobody_listens_is_unavailable),
        TEST(a_silent_server_runs_into_the_deadline),
        TEST(codes_have_names_and_words),
        TEST(a_compaction_keeps_what_is_live),
        TEST(a_dry_run_tells_and_changes_nothing),
        TEST(what_may_have_been_appended_lately_is_carried),
        TEST(a_server_that_dies_at_any_moment_compacts_once),
        TEST(a_callback_stops_it_and_nothing_is_lost),
        TEST(a_caller_that_dies_while_it_is_told_calls_again),
        TEST(a_live_ref_that_cannot_be_read_ends_it_or_is_reported),
        TEST(what_is_streamed_in_is_streamed_out),
        TEST(a_server_killed_under_an_appender_loses_no_answered_payload),
        TEST(a_zombie_s_stream_and_a_payload_too_large_are_told_by_code),
        TEST(the_example_in_the_readme_says_what_it_should),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
