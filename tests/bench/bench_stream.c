/*
 * What a streamed payload costs the server, against a unary one: processor time of a payloadstored
 * process of its own, over 1 KiB payloads, alternately, in one run.
 *
 *   append   AppendStream, BUFFERED, batches of 64     Append, BUFFERED
 *   read     ReadStream, 64 refs a request             Read
 *
 * Prints for each the median of microseconds a payload, and how many streamed ones a unary one is
 * worth. Machines are shared and noisy: the ratios are what counts.
 *
 *   PAYLOADSTORED=... TMPDIR=... bench_stream
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server_process.h"
#include "service_client.h"

#define ROUNDS       5
#define PAYLOAD      1024u
#define BATCH        64u
#define CALLERS      16u   /* of unary calls, at once */
#define UNARY_OPS    2000u /* a caller and round */
#define STREAMS      2u
#define STREAM_OPS   3000u  /* batches a stream and round */
#define WINDOW       16u    /* batches in flight a stream */
#define CALLS_UNARY  32000u /* CALLERS times UNARY_OPS */
#define CALLS_STREAM (STREAMS * STREAM_OPS * BATCH)

static const struct grpc_c_call_options patient = {.timeout_ms = 300000, .wait_for_ready = true};
static struct server_process server;
static uint8_t payload[PAYLOAD];
static struct ref refs[CALLS_UNARY];

static void must(int ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "bench_stream: %s\n", what);
        exit(1);
    }
}

/* In microseconds; the kernel counts in ticks of 10 ms. */
static double server_cpu(void)
{
    char path[64], line[1024];
    snprintf(path, sizeof path, "/proc/%ld/stat", (long)server.pid);
    FILE *file = fopen(path, "r");
    must(file != NULL && fgets(line, sizeof line, file) != NULL, path);
    fclose(file);
    char *at = strrchr(line, ')'); /* the name, the second field, may hold anything */
    must(at != NULL, path);
    for (int field = 2; field < 14; field++) {
        at = strchr(at + 1, ' ');
        must(at != NULL, path);
    }
    unsigned long user = strtoul(at, &at, 10);
    unsigned long system = strtoul(at, &at, 10);
    return (double)(user + system) * 1e6 / (double)sysconf(_SC_CLK_TCK);
}

/* -- unary ------------------------------------------------------------------------------------- */

static void *unary_append(void *arg)
{
    struct ref *mine = arg;
    for (uint32_t i = 0; i < UNARY_OPS; i++) {
        must(client_append(server.channel, "s", payload, PAYLOAD,
                           PAYLOADSTORE__V1__DURABILITY__DURABILITY_BUFFERED,
                           &mine[i]) == GRPC_C_OK,
             "Append");
    }
    return NULL;
}

static void *unary_read(void *arg)
{
    const struct ref *mine = arg;
    for (uint32_t i = 0; i < UNARY_OPS; i++) {
        uint8_t *got;
        size_t n;
        must(client_read(server.channel, "s", &mine[i], &got, &n) == GRPC_C_OK && n == PAYLOAD,
             "Read");
        free(got);
    }
    return NULL;
}

/* -- streamed ---------------------------------------------------------------------------------- */

static void write_batch(grpc_c_stream *stream, uint32_t i)
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

static void read_refs(grpc_c_stream *stream)
{
    Payloadstore__V1__AppendStreamResponse *response =
        payloadstore__v1__payload_store__append_stream__read(stream);
    must(response != NULL && response->n_refs == BATCH, "AppendStream");
    payloadstore__v1__append_stream_response__free_unpacked(response, NULL);
}

static void *stream_append(void *arg)
{
    (void)arg;
    grpc_c_stream *stream =
        payloadstore__v1__payload_store__append_stream__open(server.channel, &patient);
    for (uint32_t i = 0; i < STREAM_OPS + WINDOW; i++) {
        if (i >= WINDOW) {
            read_refs(stream);
        }
        if (i < STREAM_OPS) {
            write_batch(stream, i);
        }
    }
    grpc_c_stream_finish(stream, NULL);
    return NULL;
}

static void write_refs(grpc_c_stream *stream, const struct ref *mine, uint32_t i)
{
    Payloadstore__V1__ReadStreamRequest request = PAYLOADSTORE__V1__READ_STREAM_REQUEST__INIT;
    Payloadstore__V1__PayloadRef out[BATCH], *pointers[BATCH];
    for (size_t k = 0; k < BATCH; k++) {
        const struct ref *ref = &mine[((size_t)i * BATCH + k) % CALLS_UNARY];
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
    grpc_c_stream *stream =
        payloadstore__v1__payload_store__read_stream__open(server.channel, &patient);
    for (uint32_t i = 0; i < STREAM_OPS + WINDOW; i++) {
        if (i >= WINDOW) {
            read_payloads(stream);
        }
        if (i < STREAM_OPS) {
            write_refs(stream, refs, i);
        }
    }
    grpc_c_stream_finish(stream, NULL);
    return arg;
}

/* -- measuring --------------------------------------------------------------------------------- */

/* Microseconds of the server's processor time a payload. */
static double measure(void *(*run)(void *), uint32_t n, size_t apart, uint32_t payloads)
{
    pthread_t threads[CALLERS];
    double before = server_cpu();
    for (uint32_t i = 0; i < n; i++) {
        must(pthread_create(&threads[i], NULL, run, refs + i * apart) == 0, "pthread_create");
    }
    for (uint32_t i = 0; i < n; i++) {
        pthread_join(threads[i], NULL);
    }
    return (server_cpu() - before) / payloads;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values)
{
    qsort(values, ROUNDS, sizeof *values, compare);
    return values[ROUNDS / 2];
}

static void report(const char *name, double *unary, double *streamed)
{
    double u = median(unary), s = median(streamed);
    printf("%-7s unary %6.2f us   streamed %5.2f us   ratio %5.1f\n", name, u, s, u / s);
}

int main(void)
{
    double unary[2][ROUNDS], streamed[2][ROUNDS];
    memset(payload, 'x', sizeof payload);
    server_process_init(&server);
    server_process_start(&server, NULL);
    for (int i = 0; i < ROUNDS; i++) {
        unary[0][i] = measure(unary_append, CALLERS, UNARY_OPS, CALLS_UNARY);
        streamed[0][i] = measure(stream_append, STREAMS, 0, CALLS_STREAM);
        unary[1][i] = measure(unary_read, CALLERS, UNARY_OPS, CALLS_UNARY);
        streamed[1][i] = measure(stream_read, STREAMS, 0, CALLS_STREAM);
    }
    report("append", unary[0], streamed[0]);
    report("read", unary[1], streamed[1]);
    int status = server_process_stop(&server, SIGTERM);
    server_process_fini(&server);
    return status;
}
