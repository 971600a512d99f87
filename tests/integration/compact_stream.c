/* CompactSealed against a real server, ended in every way a stream can end. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server_process.h"
#include "service_client.h"

#define STORE  "streams"
#define N_REFS 200

static const char *const flags[] = {"--segment-max-mb", "1", "--drain-seconds", "2", NULL};

struct fixture {
    struct server_process server;
    struct ref refs[N_REFS];
    uint32_t sealed_id;
};

/* Each payload says which it is, and some are larger than a stream's flow-control window. */
static size_t make_payload(size_t i, uint8_t *payload)
{
    size_t length = i % 10 == 0 ? 100000 : 100 + i;
    memset(payload, (int)i, length);
    memcpy(payload, &i, sizeof i);
    return length;
}

static void append_all(struct fixture *f)
{
    uint8_t *payload = malloc(100000);
    for (size_t i = 0; i < N_REFS; i++) {
        size_t length = make_payload(i, payload);
        assert_int_equal(client_append(f->server.channel, STORE, payload, length,
                                       PAYLOADSTORE__V1__DURABILITY__DURABILITY_BUFFERED,
                                       &f->refs[i]),
                         GRPC_C_OK);
    }
    free(payload);
}

static void assert_readable(struct fixture *f)
{
    uint8_t *payload = malloc(100000);
    for (size_t i = 0; i < N_REFS; i++) {
        uint8_t *stored;
        size_t length = make_payload(i, payload), stored_length;
        assert_int_equal(
            client_read(f->server.channel, STORE, &f->refs[i], &stored, &stored_length), GRPC_C_OK);
        assert_int_equal(stored_length, length);
        assert_memory_equal(stored, payload, length);
        free(stored);
    }
    free(payload);
}

static void nothing_moves(void *arg, const struct ref *old_ref, const struct ref *new_ref)
{
    (void)old_ref;
    (void)new_ref;
    ++*(size_t *)arg;
}

static enum grpc_c_code finish(grpc_c_stream *stream, size_t *moved)
{
    struct client_summary summary;
    *moved = 0;
    return client_compact_finish(stream, nothing_moves, moved, &summary);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    server_process_init(&f->server);
    server_process_start(&f->server, flags);
    append_all(f);
    assert_int_equal(client_seal(f->server.channel, STORE, &f->sealed_id), GRPC_C_OK);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    int status = f->server.pid > 0 ? server_process_stop(&f->server, SIGTERM) : 0;
    server_process_fini(&f->server);
    free(f);
    return status;
}

static void a_stream_closed_without_commit_changes_nothing(void **state)
{
    struct fixture *f = *state;
    size_t moved;
    grpc_c_stream *stream = client_compact_open(f->server.channel, STORE, f->sealed_id);
    client_compact_live(stream, f->refs, 10, 1);
    grpc_c_stream_writes_done(stream);
    assert_int_equal(finish(stream, &moved), GRPC_C_INVALID_ARGUMENT);
    assert_int_equal(moved, 0);
    assert_readable(f);
}

static void a_cancelled_stream_changes_nothing_and_lets_the_next_one_in(void **state)
{
    struct fixture *f = *state;
    size_t moved;
    grpc_c_stream *stream = client_compact_open(f->server.channel, STORE, f->sealed_id);
    client_compact_live(stream, f->refs, 10, 1);
    grpc_c_stream_cancel(stream);
    assert_int_equal(finish(stream, &moved), GRPC_C_CANCELLED);
    assert_readable(f);

    /* The server may see the cancellation a moment later: until then the store is taken. */
    enum grpc_c_code code;
    do {
        stream = client_compact_open(f->server.channel, STORE, f->sealed_id);
        client_compact_live(stream, f->refs, N_REFS, 1);
        client_compact_commit(stream);
        code = finish(stream, &moved);
    } while (code == GRPC_C_ABORTED);
    assert_int_equal(code, GRPC_C_OK);
    assert_int_equal(moved, N_REFS);
}

static void a_second_compaction_is_aborted_and_harms_nothing(void **state)
{
    struct fixture *f = *state;
    size_t moved;
    grpc_c_stream *first = client_compact_open(f->server.channel, STORE, f->sealed_id);
    client_compact_live(first, f->refs, N_REFS, 1);

    /* Whichever reaches the server first is let in; the other is turned away at once. */
    grpc_c_stream *second = client_compact_open(f->server.channel, STORE, f->sealed_id);
    grpc_c_stream_writes_done(second);
    enum grpc_c_code turned_away = finish(second, &moved);
    client_compact_commit(first);
    enum grpc_c_code code = finish(first, &moved);
    if (code == GRPC_C_ABORTED) {
        assert_int_equal(turned_away, GRPC_C_INVALID_ARGUMENT);
    } else {
        assert_int_equal(turned_away, GRPC_C_ABORTED);
        assert_int_equal(code, GRPC_C_OK);
        assert_int_equal(moved, N_REFS);
    }
}

static void a_bad_live_ref_ends_the_call_and_everything_still_reads(void **state)
{
    struct fixture *f = *state;
    size_t moved;
    struct ref bad = f->refs[5];
    bad.offset++;
    grpc_c_stream *stream = client_compact_open(f->server.channel, STORE, f->sealed_id);
    client_compact_live(stream, f->refs, N_REFS, 1);
    client_compact_live(stream, &bad, 1, 1);
    client_compact_commit(stream);
    assert_int_equal(finish(stream, &moved), GRPC_C_NOT_FOUND);
    assert_int_equal(moved, 0);
    assert_readable(f);
}

static void a_server_killed_in_the_middle_has_changed_nothing(void **state)
{
    struct fixture *f = *state;
    size_t moved;
    grpc_c_stream *stream = client_compact_open(f->server.channel, STORE, f->sealed_id);
    client_compact_live(stream, f->refs, 10, 1);
    /* A stream is tied to its channel: the server goes first, then both. */
    kill(f->server.pid, SIGKILL);
    assert_int_equal(finish(stream, &moved), GRPC_C_UNAVAILABLE);
    server_process_stop(&f->server, SIGKILL);
    server_process_start(&f->server, flags);
    assert_readable(f);
}

/* The whole list again, as a broker does that never saw the answer. */
static size_t compact_all(struct fixture *f)
{
    size_t moved;
    grpc_c_stream *stream = client_compact_open(f->server.channel, STORE, f->sealed_id);
    client_compact_live(stream, f->refs, N_REFS, 1);
    client_compact_commit(stream);
    assert_int_equal(finish(stream, &moved), GRPC_C_OK);
    return moved;
}

static void a_lost_answer_is_given_again_and_old_refs_still_read(void **state)
{
    struct fixture *f = *state;
    struct ref never_live;
    assert_int_equal(client_append(f->server.channel, STORE, "x", 1,
                                   PAYLOADSTORE__V1__DURABILITY__DURABILITY_BUFFERED, &never_live),
                     GRPC_C_OK);
    assert_int_equal(client_seal(f->server.channel, STORE, &f->sealed_id), GRPC_C_OK);
    assert_int_equal(compact_all(f), N_REFS);
    assert_readable(f);
    assert_int_equal(compact_all(f), N_REFS);

    server_process_stop(&f->server, SIGKILL);
    server_process_start(&f->server, flags);
    assert_readable(f);
    assert_int_equal(compact_all(f), N_REFS);

    size_t moved;
    grpc_c_stream *stream = client_compact_open(f->server.channel, STORE, f->sealed_id);
    client_compact_live(stream, &never_live, 1, 1);
    client_compact_commit(stream);
    assert_int_equal(finish(stream, &moved), GRPC_C_NOT_FOUND);
}

static void a_server_told_to_stop_ends_a_waiting_stream_within_its_drain(void **state)
{
    struct fixture *f = *state;
    size_t moved;
    grpc_c_channel *channel = grpc_c_channel_create(f->server.address, NULL);
    grpc_c_stream *stream = client_compact_open(channel, STORE, f->sealed_id);
    client_compact_live(stream, f->refs, 10, 1);
    assert_int_equal(server_process_stop(&f->server, SIGTERM), 0);
    assert_int_not_equal(finish(stream, &moved), GRPC_C_OK);
    grpc_c_channel_destroy(channel);
    server_process_start(&f->server, flags);
    assert_readable(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_stream_closed_without_commit_changes_nothing, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_cancelled_stream_changes_nothing_and_lets_the_next_one_in,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_second_compaction_is_aborted_and_harms_nothing, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_bad_live_ref_ends_the_call_and_everything_still_reads,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_server_killed_in_the_middle_has_changed_nothing, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_lost_answer_is_given_again_and_old_refs_still_read,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            a_server_told_to_stop_ends_a_waiting_stream_within_its_drain, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
