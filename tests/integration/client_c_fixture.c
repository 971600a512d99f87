#include "client_c_fixture.h"

#include <signal.h>
#include <stdlib.h>

const char *const flags[] = {
    "--segment-max-mb", "1", "--max-payload-mb", "2", "--drain-seconds", "2", NULL};
const struct plc_options patient = {
    .store = STORE, .deadline_ms = PATIENCE, .wait_for_server = true};

int set_up(void **state)
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

int tear_down(void **state)
{
    struct fixture *f = *state;
    plc_client_close(f->client);
    int status = f->server.pid > 0 ? server_process_stop(&f->server, SIGTERM) : 0;
    server_process_fini(&f->server);
    free(f);
    return status;
}

struct plc_ref append(struct fixture *f, const void *payload, size_t length)
{
    struct plc_ref ref;
    assert_ok(f, plc_append(f->client, NULL, payload, length, PLC_BUFFERED, &ref, &f->error));
    return ref;
}

void assert_reads_in(struct fixture *f, const struct plc_call *call, const struct plc_ref *ref,
                     const void *payload)
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

void assert_reads(struct fixture *f, const struct plc_ref *ref, const void *payload)
{
    assert_reads_in(f, NULL, ref, payload);
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

const struct plc_compact_callbacks nothing_live = {.live = no_live, .relocated = nothing_moves};
