/*
 * What a call of 1 KiB costs the server: processor time of a payloadstored process, beside that of
 * a bare loop on gRPC core (bare_core.c) under the same load, and streamed beside unary.
 *
 *             unary, 16 callers     streamed, batches of 64
 *   append    Append, BUFFERED      AppendStream, BUFFERED
 *   read      Read                  ReadStream, 64 refs a request: those of a batch, side by side
 * in the file; or scattered, those of one caller among 16
 *
 * All of it in turn in each round, so that what else the machine does falls on all alike; a ratio
 * is one of neighbours in one round. Prints medians, of the ratios also the least and the greatest.
 *
 *   PAYLOADSTORED=... BARE_CORE=... TMPDIR=... bench_server [ROUNDS [CALLS [BATCHES]]]
 *
 * CALLS a caller and round: 500; BATCHES a stream and round: 250; 41 ROUNDS.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "server_process.h"
#include "service_client.h"

#define ROUNDS_MAX 1000u
#define PAYLOAD    1024u
#define BATCH      64u
#define CALLERS    16u /* of unary calls, at once */
#define STREAMS    2u
#define WINDOW     16u /* batches in flight a stream */

static const struct grpc_c_call_options patient = {.timeout_ms = 300000, .wait_for_ready = true};
static uint8_t payload[PAYLOAD];
static unsigned rounds = 41, calls = 500, batches = 250;

/* A server and the refs it gave. */
struct target {
    struct server_process process;
    clockid_t clock;      /* of its processor time */
    struct ref *refs;     /* `calls` of each caller */
    struct ref *streamed; /* `batches` of each stream */
};

/* One thread's part of a load. */
struct load {
    struct target *target;
    struct ref *refs; /* the thread's own */
    size_t n;
};

static struct target bare, server;

static void kill_server(const struct target *target)
{
    if (target->process.pid > 0) {
        kill(target->process.pid, SIGKILL);
    }
}

/* Leaves no server behind, but its directory, to look into. */
static void must(int ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "bench_server: %s\n", what);
        kill_server(&bare);
        kill_server(&server);
        _exit(1); /* other threads are at their calls */
    }
}

/* -- unary ------------------------------------------------------------------------------------- */

static void *unary_append(void *arg)
{
    const struct load *load = arg;
    for (unsigned i = 0; i < calls; i++) {
        must(client_append(load->target->process.channel, "s", payload, PAYLOAD,
                           PAYLOADSTORE__V1__DURABILITY__DURABILITY_BUFFERED,
                           &load->refs[i]) == GRPC_C_OK,
             "Append");
    }
    return NULL;
}

static void *unary_read(void *arg)
{
    const struct load *load = arg;
    for (unsigned i = 0; i < calls; i++) {
        uint8_t *got;
        size_t n;
        must(client_read(load->target->process.channel, "s", &load->refs[i], &got, &n) ==
                     GRPC_C_OK &&
                 n == PAYLOAD && memcmp(got, payload, n) == 0,
             "Read");
        free(got);
    }
    return NULL;
}

/* -- streamed ---------------------------------------------------------------------------------- */

static void write_batch(grpc_c_stream *stream, unsigned i)
{
    Payloadstore__V1__AppendStreamRequest request = PAYLOADSTORE__V1__APPEND_STREAM_REQUEST__INIT;
    ProtobufCBinaryData payloads[BATCH];
    for (size_t k = 0; k < BATCH; k++) {
        payloads[k] = (ProtobufCBinaryData){.len = PAYLOAD, .data = payload};
    }
    request.store = (char *)(i == 0 ? "s" : "");
    request.durability = i == 0 ? PAYLOADSTORE__V1__DURABILITY__DURABILITY_BUFFERED
                                : PAYLOADSTORE__V1__DURABILITY__DURABILITY_UNSPECIFIED;
    request.payloads = payloads;
    request.n_payloads = BATCH;
    must(payloadstore__v1__payload_store__append_stream__write(stream, &request) == 0, "write");
}

static void read_refs(grpc_c_stream *stream, struct ref *refs)
{
    Payloadstore__V1__AppendStreamResponse *response =
        payloadstore__v1__payload_store__append_stream__read(stream);
    must(response != NULL && response->n_refs == BATCH, "AppendStream");
    for (size_t k = 0; k < BATCH; k++) {
        const Payloadstore__V1__PayloadRef *ref = response->refs[k];
        refs[k] = (struct ref){ref->file_id, ref->offset, ref->length, ref->crc32c};
    }
    payloadstore__v1__append_stream_response__free_unpacked(response, NULL);
}

static void *stream_append(void *arg)
{
    const struct load *load = arg;
    grpc_c_stream *stream = payloadstore__v1__payload_store__append_stream__open(
        load->target->process.channel, &patient);
    for (unsigned i = 0; i < batches + WINDOW; i++) {
        if (i >= WINDOW) {
            read_refs(stream, load->refs + (size_t)(i - WINDOW) * BATCH);
        }
        if (i < batches) {
            write_batch(stream, i);
        }
    }
    grpc_c_stream_finish(stream, NULL);
    return NULL;
}

static void write_refs(grpc_c_stream *stream, const struct load *load, unsigned i)
{
    Payloadstore__V1__ReadStreamRequest request = PAYLOADSTORE__V1__READ_STREAM_REQUEST__INIT;
    Payloadstore__V1__PayloadRef out[BATCH], *pointers[BATCH];
    for (size_t k = 0; k < BATCH; k++) {
        const struct ref *ref = &load->refs[((size_t)i * BATCH + k) % load->n];
        payloadstore__v1__payload_ref__init(&out[k]);
        out[k].file_id = ref->file_id;
        out[k].offset = ref->offset;
        out[k].length = ref->length;
        out[k].crc32c = ref->crc32c;
        pointers[k] = &out[k];
    }
    request.store = (char *)"s";
    request.refs = pointers;
    request.n_refs = BATCH;
    must(payloadstore__v1__payload_store__read_stream__write(stream, &request) == 0, "write");
}

static void read_payloads(grpc_c_stream *stream)
{
    for (size_t n = 0; n < BATCH;) {
        Payloadstore__V1__ReadStreamResponse *response =
            payloadstore__v1__payload_store__read_stream__read(stream);
        must(response != NULL, "ReadStream");
        for (size_t k = 0; k < response->n_results; k++) {
            must(response->results[k]->payload.len == PAYLOAD, "a result");
        }
        n += response->n_results;
        payloadstore__v1__read_stream_response__free_unpacked(response, NULL);
    }
}

static void *stream_read(void *arg)
{
    const struct load *load = arg;
    grpc_c_stream *stream =
        payloadstore__v1__payload_store__read_stream__open(load->target->process.channel, &patient);
    for (unsigned i = 0; i < batches + WINDOW; i++) {
        if (i >= WINDOW) {
            read_payloads(stream);
        }
        if (i < batches) {
            write_refs(stream, load, i);
        }
    }
    grpc_c_stream_finish(stream, NULL);
    return NULL;
}

/* -- measuring --------------------------------------------------------------------------------- */

/* In microseconds. */
static double cpu_of(const struct target *target)
{
    struct timespec used;
    must(clock_gettime(target->clock, &used) == 0, "clock_gettime");
    return (double)used.tv_sec * 1e6 + (double)used.tv_nsec / 1e3;
}

/* Microseconds of the server's processor time a payload. Each thread has `apart` of the refs for
 * its own, and uses `n` of them. */
static double measure(struct target *target, void *(*run)(void *), unsigned n_threads,
                      unsigned payloads, struct ref *refs, size_t apart, size_t n)
{
    pthread_t threads[CALLERS];
    struct load loads[CALLERS];
    double before = cpu_of(target);
    for (unsigned i = 0; i < n_threads; i++) {
        loads[i] = (struct load){target, refs + i * apart, n};
        must(pthread_create(&threads[i], NULL, run, &loads[i]) == 0, "pthread_create");
    }
    for (unsigned i = 0; i < n_threads; i++) {
        pthread_join(threads[i], NULL);
    }
    return (cpu_of(target) - before) / payloads;
}

static double measure_unary(struct target *target, void *(*run)(void *))
{
    return measure(target, run, CALLERS, CALLERS * calls, target->refs, calls, calls);
}

static double measure_streamed(struct target *target, void *(*run)(void *))
{
    size_t each = (size_t)batches * BATCH;
    return measure(target, run, STREAMS, STREAMS * batches * BATCH, target->streamed, each, each);
}

/* The refs of unary appends: one caller's neighbours have those of others between them. */
static double measure_scattered(struct target *target)
{
    return measure(target, stream_read, STREAMS, STREAMS * batches * BATCH, target->refs, 0,
                   (size_t)CALLERS * calls);
}

struct costs {
    double bare[ROUNDS_MAX], unary[ROUNDS_MAX], streamed[ROUNDS_MAX], scattered[ROUNDS_MAX];
};

/* The one that comes second may find the machine warmer, or busier: so they take turns. */
static void measure_both(void *(*run)(void *), struct costs *costs, unsigned i)
{
    if (i % 2 == 0) {
        costs->bare[i] = measure_unary(&bare, run);
    }
    costs->unary[i] = measure_unary(&server, run);
    if (i % 2 != 0) {
        costs->bare[i] = measure_unary(&bare, run);
    }
}

static void run_round(struct costs *append, struct costs *read, unsigned i)
{
    measure_both(unary_append, append, i);
    append->streamed[i] = measure_streamed(&server, stream_append);
    measure_both(unary_read, read, i);
    read->streamed[i] = measure_streamed(&server, stream_read);
    read->scattered[i] = measure_scattered(&server);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts them. */
static double median(double *values)
{
    qsort(values, rounds, sizeof *values, compare);
    return values[rounds / 2];
}

/* `a` over `b`, round by round. */
static void print_ratio(const char *name, const double *a, const double *b)
{
    double ratios[ROUNDS_MAX];
    for (unsigned i = 0; i < rounds; i++) {
        ratios[i] = a[i] / b[i];
    }
    double middle = median(ratios);
    printf("  %-15s %5.2f  (%.2f to %.2f)\n", name, middle, ratios[rounds / 4],
           ratios[rounds - 1 - rounds / 4]);
}

static void report(const char *name, struct costs *costs, bool scattered)
{
    printf("%s\n", name);
    print_ratio("server/bare", costs->unary, costs->bare);
    print_ratio("unary/streamed", costs->unary, costs->streamed);
    if (scattered) {
        print_ratio("unary/scattered", costs->unary, costs->scattered);
    }
    printf("  us a payload    bare %.2f, unary %.2f, streamed %.2f", median(costs->bare),
           median(costs->unary), median(costs->streamed));
    if (scattered) {
        printf(", scattered %.2f", median(costs->scattered));
    }
    printf("\n");
}

/* -- the servers ------------------------------------------------------------------------------- */

static void start(struct target *target, const char *program)
{
    must(program != NULL, "PAYLOADSTORED and BARE_CORE name the programs");
    server_process_init(&target->process);
    target->process.program = program;
    server_process_start(&target->process, NULL);
    must(clock_getcpuclockid(target->process.pid, &target->clock) == 0, "clock_getcpuclockid");
    target->refs = calloc((size_t)CALLERS * calls, sizeof *target->refs);
    target->streamed = calloc((size_t)STREAMS * batches * BATCH, sizeof *target->streamed);
    must(target->refs != NULL && target->streamed != NULL, "memory");
}

static int stop(struct target *target)
{
    int status = server_process_stop(&target->process, SIGTERM);
    server_process_fini(&target->process);
    free(target->streamed);
    free(target->refs);
    return status;
}

static unsigned number(int argc, char **argv, int i, unsigned otherwise, unsigned most)
{
    unsigned long given = argc > i ? strtoul(argv[i], NULL, 10) : otherwise;
    must(given >= 1 && given <= most, "usage: bench_server [ROUNDS [CALLS [BATCHES]]]");
    return (unsigned)given;
}

int main(int argc, char **argv)
{
    static struct costs append, read;
    rounds = number(argc, argv, 1, rounds, ROUNDS_MAX);
    calls = number(argc, argv, 2, calls, 1000000);
    batches = number(argc, argv, 3, batches, 1000000);
    memset(payload, 'x', sizeof payload);
    start(&bare, getenv("BARE_CORE"));
    start(&server, getenv("PAYLOADSTORED"));
    for (unsigned i = 0; i < rounds; i++) {
        run_round(&append, &read, i);
    }
    report("append", &append, false);
    report("read", &read, true);
    int failed = stop(&server) != 0;
    return stop(&bare) != 0 || failed;
}
