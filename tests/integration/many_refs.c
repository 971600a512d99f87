/*
 * Ten million live refs in one call: what the server needs for them, by the names the records were
 * appended under, and again by these names when they have moved.
 *
 * The segments are written by hand, 4-byte payloads end to end, as an older broker would have left
 * them. MANY_REFS sets another number.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "server_process.h"
#include "service_client.h"

#define STORE       "many"
#define RECORD      8u       /* bytes */
#define A_SEGMENT   4000000u /* records */
#define A_MESSAGE   20000u   /* refs */
#define ROOM_KIB    65536u
#define N_DEFAULT   10000000u
#define N_SANITIZED 300000u

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

static uint32_t n_records;

static uint32_t payload_of(uint32_t i)
{
    return i * 2654435761u;
}

static struct ref name_of(uint32_t i)
{
    return (struct ref){.file_id = i / A_SEGMENT,
                        .offset = (uint64_t)(i % A_SEGMENT) * RECORD,
                        .length = sizeof(uint32_t)};
}

/* -- the segments ------------------------------------------------------------------------------ */

static void write_segments(const char *dir)
{
    char path[PATH_MAX + 64];
    FILE *file = NULL;
    snprintf(path, sizeof path, "%s/data", dir);
    mkdir(path, 0755);
    snprintf(path, sizeof path, "%s/data/" STORE, dir);
    assert_int_equal(mkdir(path, 0755), 0);
    for (uint32_t i = 0; i < n_records; i++) {
        if (i % A_SEGMENT == 0) {
            assert_int_equal(file != NULL ? fclose(file) : 0, 0);
            snprintf(path, sizeof path, "%s/data/" STORE "/payload_%04u.dat", dir, i / A_SEGMENT);
            file = fopen(path, "wb");
            assert_non_null(file);
        }
        const uint32_t record[] = {sizeof(uint32_t), payload_of(i)};
        assert_int_equal(fwrite(record, sizeof record, 1, file), 1);
    }
    assert_int_equal(fclose(file), 0);
}

/* -- the server's memory ----------------------------------------------------------------------- */

static unsigned long memory_kib(pid_t pid, const char *what)
{
    char path[64], line[256];
    unsigned long kib = 0;
    snprintf(path, sizeof path, "/proc/%ld/status", (long)pid);
    FILE *status = fopen(path, "r");
    assert_non_null(status);
    while (fgets(line, sizeof line, status) != NULL) {
        if (strncmp(line, what, strlen(what)) == 0) {
            kib = strtoul(line + strlen(what), NULL, 10);
        }
    }
    fclose(status);
    return kib;
}

/* From now on VmHWM is the peak since now. */
static void reset_peak(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld/clear_refs", (long)pid);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs("5", file) > 0);
    assert_int_equal(fclose(file), 0);
}

/* -- a compaction ------------------------------------------------------------------------------ */

struct moves {
    uint32_t next, step; /* the record whose relocation comes next */
    bool wrong;
    struct ref last;
};

static void note_move(void *arg, const struct ref *old_ref, const struct ref *new_ref)
{
    struct moves *moves = arg;
    struct ref name = name_of(moves->next);
    moves->wrong = moves->wrong || old_ref->file_id != name.file_id ||
                   old_ref->offset != name.offset || new_ref->length != name.length;
    moves->next += moves->step;
    moves->last = *new_ref;
}

static void send_live(grpc_c_stream *stream, uint32_t step)
{
    static struct ref refs[A_MESSAGE];
    size_t n = 0;
    for (uint32_t i = 0; i < n_records; i += step) {
        refs[n++] = name_of(i);
        if (n == A_MESSAGE || i + step >= n_records) {
            client_compact_live(stream, refs, n, 1);
            n = 0;
        }
    }
}

static void assert_reads(grpc_c_channel *channel, uint32_t i, enum grpc_c_code expected)
{
    struct ref name = name_of(i);
    uint8_t *payload = NULL;
    size_t length = 0;
    uint32_t value = payload_of(i);
    assert_int_equal(client_read(channel, STORE, &name, &payload, &length), expected);
    if (expected == GRPC_C_OK) {
        assert_int_equal(length, sizeof value);
        assert_memory_equal(payload, &value, sizeof value);
        free(payload);
    }
}

/* Every step-th record is live, by the name it was appended under, whatever became of it since. */
static void compact_by_first_names(struct server_process *server, uint32_t step, unsigned long idle)
{
    uint32_t sealed_id;
    struct ref other;
    struct moves moves = {.step = step};
    struct client_summary summary = {0};
    struct timespec from, to;
    uint32_t n_live = (n_records + step - 1) / step;
    assert_int_equal(client_append(server->channel, STORE, "x", 1,
                                   PAYLOADSTORE__V1__DURABILITY__DURABILITY_BUFFERED, &other),
                     GRPC_C_OK);
    assert_int_equal(client_seal(server->channel, STORE, &sealed_id), GRPC_C_OK);
    reset_peak(server->pid);
    clock_gettime(CLOCK_MONOTONIC, &from);
    grpc_c_stream *stream = client_compact_open(server->channel, STORE, sealed_id);
    send_live(stream, step);
    client_compact_commit(stream);
    assert_int_equal(client_compact_finish(stream, note_move, &moves, &summary), GRPC_C_OK);
    clock_gettime(CLOCK_MONOTONIC, &to);
    unsigned long peak = memory_kib(server->pid, "VmHWM:");
    printf("# %u live refs: %.1f s, %lu KiB above the %lu KiB of an idle server\n", n_live,
           (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9,
           peak > idle ? peak - idle : 0, idle);
    assert_int_equal(summary.live, n_live);
    assert_false(moves.wrong);
    assert_int_equal(moves.next / step, n_live);
    assert_true(SANITIZED || peak < idle + ROOM_KIB);
    assert_reads(server->channel, 0, GRPC_C_OK);
    assert_reads(server->channel, (n_live - 1) * step, GRPC_C_OK);
    if (step > 1) {
        assert_reads(server->channel, 1, GRPC_C_NOT_FOUND);
    }
}

static void ten_million_live_refs_take_little_memory(void **state)
{
    struct server_process *server = *state;
    const char *const flags[] = {"--segment-max-mb", "64", NULL};
    write_segments(server->dir);
    server_process_start(server, flags);
    assert_reads(server->channel, n_records - 1, GRPC_C_OK);
    assert_int_equal(server_process_stop(server, SIGTERM), 0);
    server_process_start(server, flags);
    assert_reads(server->channel, n_records / 2, GRPC_C_OK);
    unsigned long idle = memory_kib(server->pid, "VmRSS:");
    compact_by_first_names(server, 1, idle);
    compact_by_first_names(server, 1, idle);
    compact_by_first_names(server, 2, idle);
    assert_int_equal(server_process_stop(server, SIGTERM), 0);
}

static int set_up(void **state)
{
    static struct server_process server;
    const char *n = getenv("MANY_REFS");
    n_records = SANITIZED ? N_SANITIZED : N_DEFAULT;
    n_records = n != NULL ? (uint32_t)strtoul(n, NULL, 10) : n_records;
    server_process_init(&server);
    *state = &server;
    return 0;
}

static int tear_down(void **state)
{
    server_process_fini(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ten_million_live_refs_take_little_memory),
    };
    return cmocka_run_group_tests_name("many_refs", tests, set_up, tear_down);
}
