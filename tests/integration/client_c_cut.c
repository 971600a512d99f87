/*
 * The C client library over connections that are cut at any byte. CUT_SEED repeats a run, but for
 * what threads and sockets do side by side.
 *
 * A payload is its number. What the server has stored is read from its segment, so that it is also
 * seen what was stored and not answered.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client_c_fixture.h"
#include "cutting_proxy.h"
#include "payloadstore-client/appender.h"

#define N        3000
#define CUTS     3    /* at least, of every test */
#define CUTS_MAX 1000 /* where a compaction has not come through by then it never will */

/* One number, as it is stored. */
struct record {
    uint32_t length;
    uint32_t number;
};

struct cut {
    struct fixture *f; /* whose client goes straight to the server */
    struct cutting_proxy *proxy;
    plc_client *client; /* goes through the proxy */
    struct plc_ref refs[N];
    enum plc_code codes[N];
    size_t told, n_ok, n_lost, n_unsent;
    struct plc_ref moved[N];
    unsigned times[N];
    size_t next; /* to list */
};

static uint64_t seed(void)
{
    const char *given = getenv("CUT_SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    print_message("CUT_SEED=%" PRIu64 "\n", seed);
    return seed;
}

static struct cut *begin(struct fixture *f, unsigned most_bits, bool wait)
{
    struct cut *c = calloc(1, sizeof *c);
    const struct plc_options options = {
        .store = STORE, .deadline_ms = PATIENCE, .wait_for_server = wait};
    c->f = f;
    c->proxy = cutting_proxy_start(f->server.address, seed(), most_bits);
    assert_ok(f, plc_client_open(cutting_proxy_address(c->proxy), &options, &c->client, &f->error));
    return c;
}

static void end(struct cut *c)
{
    print_message("%u connections were cut\n", cutting_proxy_cuts(c->proxy));
    assert_true(cutting_proxy_cuts(c->proxy) >= CUTS);
    plc_client_close(c->client);
    cutting_proxy_stop(c->proxy);
    free(c);
}

/* How often each number lies in the store's one segment. */
static void count_stored(const struct fixture *f, unsigned counts[N])
{
    char path[PATH_MAX + 100];
    struct record record;
    snprintf(path, sizeof path, "%s/data/%s/payload_0000.dat", f->server.dir, STORE);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    memset(counts, 0, N * sizeof counts[0]);
    while (fread(&record, sizeof record, 1, file) == 1) {
        assert_int_equal(record.length, sizeof record.number);
        assert_true(record.number < N);
        counts[record.number]++;
    }
    fclose(file);
}

/* -- appending --------------------------------------------------------------------------------- */

static void an_append_that_was_answered_is_there(void **state)
{
    struct cut *c = begin(*state, 12, true);
    unsigned counts[N];
    for (uint32_t i = 0; i < 200;) {
        enum plc_code code =
            plc_append(c->client, NULL, &i, sizeof i, PLC_BUFFERED, &c->refs[i], &c->f->error);
        if (code == PLC_OK) {
            assert_reads(c->f, &c->refs[i], &i);
            i++;
        } else if (code != PLC_UNAVAILABLE) {
            fail_msg("%s: %s", plc_code_name(code), c->f->error.message);
        }
    }
    count_stored(c->f, counts);
    for (uint32_t i = 0; i < 200; i++) {
        assert_true(counts[i] > 0);
    }
    end(c);
}

static void appended(void *arg, const struct plc_appended *result)
{
    struct cut *c = arg;
    size_t i = c->told++;
    assert_ptr_equal(result->tag, &c->refs[i]);
    c->refs[i] = result->ref;
    c->codes[i] = result->code;
    c->n_ok += result->code == PLC_OK ? 1 : 0;
    c->n_lost += result->code == PLC_ANSWER_LOST ? 1 : 0;
    if (result->code == PLC_UNAVAILABLE) {
        assert_int_equal(strncmp(result->error->message, "not sent: ", 10), 0);
        c->n_unsent++;
    }
}

static void append_all(struct cut *c, bool resend)
{
    plc_appender *appender;
    const struct plc_appender_options options = {.appended = appended,
                                                 .arg = c,
                                                 .durability = PLC_BUFFERED,
                                                 .batch_payloads = 16,
                                                 .window = 4,
                                                 .resend = resend};
    assert_ok(c->f, plc_appender_open(c->client, NULL, &options, &appender, &c->f->error));
    for (uint32_t i = 0; i < N; i++) {
        assert_ok(c->f, plc_appender_append(appender, &i, sizeof i, &c->refs[i], &c->f->error));
    }
    plc_appender_close(appender);
    print_message("%zu answered, %zu lost, %zu not sent\n", c->n_ok, c->n_lost, c->n_unsent);
    assert_int_equal(c->told, N);
    assert_int_equal(c->n_ok + c->n_lost + c->n_unsent, N);
}

static void what_an_appender_says_of_each_payload_is_so(void **state)
{
    struct cut *c = begin(*state, 14, false);
    unsigned counts[N];
    append_all(c, false);
    count_stored(c->f, counts);
    for (uint32_t i = 0; i < N; i++) {
        if (c->codes[i] == PLC_OK) {
            assert_reads(c->f, &c->refs[i], &i);
            assert_int_equal(counts[i], 1);
        } else if (c->codes[i] == PLC_UNAVAILABLE) {
            assert_int_equal(counts[i], 0);
        } else {
            assert_true(counts[i] <= 1);
        }
    }
    end(c);
}

static void an_appender_that_sends_again_gets_all_through(void **state)
{
    struct cut *c = begin(*state, 14, true);
    append_all(c, true);
    assert_int_equal(c->n_ok, N);
    for (uint32_t i = 0; i < N; i++) {
        assert_reads(c->f, &c->refs[i], &i);
    }
    end(c);
}

/* -- reading ----------------------------------------------------------------------------------- */

/* By the client that is not cut. */
static void fill(struct cut *c)
{
    plc_client *cut = c->client;
    c->client = c->f->client;
    append_all(c, false);
    c->client = cut;
    assert_int_equal(c->n_ok, N);
}

struct progress {
    size_t first; /* the ref that index 0 is */
};

static bool is_its_number(void *arg, const struct plc_read_result *result)
{
    const struct progress *progress = arg;
    uint32_t number = (uint32_t)(progress->first + result->index);
    assert_int_equal(result->code, PLC_OK);
    assert_int_equal(result->length, sizeof number);
    assert_memory_equal(result->data, &number, sizeof number);
    return true;
}

static void read_all(struct cut *c)
{
    struct progress progress = {0};
    while (progress.first < N) {
        size_t n_read;
        enum plc_code code =
            plc_read_many(c->client, NULL, &c->refs[progress.first], N - progress.first,
                          is_its_number, &progress, &n_read, &c->f->error);
        progress.first += n_read;
        assert_true(code == PLC_UNAVAILABLE || (code == PLC_OK && progress.first == N));
    }
}

/* Some seeds let most of a reading through at once. */
static void a_reading_goes_on_where_it_was_cut(void **state)
{
    struct cut *c = begin(*state, 16, true);
    fill(c);
    do {
        read_all(c);
    } while (cutting_proxy_cuts(c->proxy) < CUTS);
    end(c);
}

/* -- compacting -------------------------------------------------------------------------------- */

static bool is_live(size_t number)
{
    return number % 8 != 0;
}

static bool live_begin(void *arg, const struct plc_seal *seal)
{
    struct cut *c = arg;
    (void)seal;
    c->next = 0;
    return true;
}

static size_t live(void *arg, struct plc_ref *refs, size_t max)
{
    struct cut *c = arg;
    size_t n = 0;
    for (; n < max && c->next < N; c->next++) {
        if (is_live(c->next)) {
            refs[n++] = c->refs[c->next];
        }
    }
    return n;
}

static bool relocated(void *arg, const struct plc_relocation *relocations, size_t n)
{
    struct cut *c = arg;
    for (size_t i = 0; i < n; i++) {
        size_t number = relocations[i].old_ref.offset / sizeof(struct record);
        const struct plc_ref *to = &relocations[i].new_ref;
        assert_true(number < N && is_live(number));
        assert_true(c->times[number] == 0 || (c->moved[number].file_id == to->file_id &&
                                              c->moved[number].offset == to->offset));
        c->moved[number] = *to;
        c->times[number]++;
    }
    return true;
}

static void a_compaction_comes_through_and_is_one(void **state)
{
    struct cut *c = begin(*state, 18, true);
    const struct plc_compact_options options = {.carry_nothing = true, .retry_ms = PATIENCE};
    const struct plc_compact_callbacks callbacks = {
        .live_begin = live_begin, .live = live, .relocated = relocated, .arg = c};
    struct plc_compact_summary summary = {0};
    struct plc_payload payload;
    struct plc_stat stat;
    enum plc_code code;
    fill(c);
    do { /* it gives up after some losses of a server that it had reached; its old refs still read
          */
        memset(c->times, 0, sizeof c->times);
        code = plc_compact(c->client, NULL, &options, &callbacks, &summary, &c->f->error);
        print_message("%u tries\n", summary.tries);
    } while (code == PLC_UNAVAILABLE && cutting_proxy_cuts(c->proxy) < CUTS_MAX);
    assert_ok(c->f, code);
    assert_int_equal(summary.live_records, N - N / 8);
    assert_int_equal(summary.relocated_records, N - N / 8);
    for (uint32_t i = 0; i < N; i++) {
        assert_int_equal(c->times[i] > 0, is_live(i));
        if (is_live(i)) {
            assert_reads(c->f, &c->refs[i], &i);
            assert_reads(c->f, &c->moved[i], &i);
        } else {
            assert_code(c->f, plc_read(c->f->client, NULL, &c->refs[i], &payload, &c->f->error),
                        PLC_NOT_FOUND);
        }
    }
    assert_ok(c->f, plc_stat(c->f->client, NULL, &stat, &c->f->error));
    assert_int_equal(stat.records, N - N / 8);
    plc_stat_fini(&stat);
    plc_client_close(c->client); /* a compaction may be through before it is cut thrice */
    cutting_proxy_stop(c->proxy);
    free(c);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(an_append_that_was_answered_is_there),
        TEST(what_an_appender_says_of_each_payload_is_so),
        TEST(an_appender_that_sends_again_gets_all_through),
        TEST(a_reading_goes_on_where_it_was_cut),
        TEST(a_compaction_comes_through_and_is_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
