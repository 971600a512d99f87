/* The C client's appender and plc_read_many against a real server, which dies under them. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client_c_fixture.h"
#include "payloadstore-client/appender.h"

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

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(what_is_streamed_in_is_streamed_out),
        TEST(a_server_killed_under_an_appender_loses_no_answered_payload),
        TEST(a_zombie_s_stream_and_a_payload_too_large_are_told_by_code),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
