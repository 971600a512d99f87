/*
 * The broker of the mixed load: fills a store, and compacts it when told.
 *
 *   mixed_compact ADDRESS STORE BYTES RECORDS REFS_FILE SAMPLE
 *
 * Appends RECORDS payloads as tests/bench/load makes them, of BYTES bytes each, through a stream,
 * and seals. Every other one is live; of these about SAMPLE, evenly spread, are written to
 * REFS_FILE for load's --refs-file: they read by these refs before, during and after the
 * compaction. For each line on stdin it compacts: once sealed, so that what is appended from then
 * on stays where it is, and once at its end a line is printed, an object in JSON. Whatever a call
 * answers but success, and a live record that was not moved, end it with exit status 1.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "load/work.h"
#include "payloadstore-client/appender.h"
#include "payloadstore-client/compact.h"

struct broker {
    plc_client *client;
    struct plc_call call;
    struct payloads payloads;
    uint64_t records;
    struct plc_ref *refs; /* of all records, by number, as they were appended */
    uint64_t n_appended;
    uint64_t next; /* live one to list */
    uint64_t n_moved;
    double begun, listed, moved; /* moments of the compaction that runs */
};

_Noreturn static void fail(const char *what, const struct plc_error *error)
{
    fprintf(stderr, "mixed_compact: %s: %s %s\n", what, plc_code_name((int)error->code),
            error->message);
    exit(1);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* -- filling ----------------------------------------------------------------------------------- */

/* Results come in the order of the appends, one at a time. */
static void keep_ref(void *arg, const struct plc_appended *appended)
{
    struct broker *broker = arg;
    if (appended->code != PLC_OK) {
        fail("appending", appended->error);
    }
    broker->refs[broker->n_appended++] = appended->ref;
}

static void fill(struct broker *broker)
{
    struct plc_error error;
    plc_appender *appender;
    struct plc_seal seal;
    const struct plc_appender_options options = {
        .appended = keep_ref, .arg = broker, .durability = PLC_BUFFERED};
    if (plc_appender_open(broker->client, &broker->call, &options, &appender, &error) != PLC_OK) {
        fail("opening an appender", &error);
    }
    uint8_t *payload = load_alloc(NULL, broker->payloads.bytes);
    for (uint64_t i = 0; i < broker->records; i++) {
        payload_write(&broker->payloads, (uint32_t)(i % broker->payloads.distinct), payload);
        if (plc_appender_append(appender, payload, broker->payloads.bytes, NULL, &error) !=
            PLC_OK) {
            fail("appending", &error);
        }
    }
    free(payload);
    if (plc_appender_flush(appender, &error) != PLC_OK) {
        fail("appending", &error);
    }
    plc_appender_close(appender);
    if (plc_seal_store(broker->client, &broker->call, &seal, &error) != PLC_OK) {
        fail("sealing", &error);
    }
}

static void write_refs(const struct broker *broker, const char *path, uint64_t sample)
{
    uint64_t step = broker->records / 2 / (sample ? sample : 1);
    FILE *file = fopen(path, "w");
    if (!file) {
        load_fail("the file of refs cannot be written");
    }
    step = step ? 2 * step : 2; /* even ones: the live */
    for (uint64_t i = 0; i < broker->records; i += step) {
        const struct plc_ref *ref = &broker->refs[i];
        fprintf(file, "%" PRIu32 " %" PRIu64 " %" PRIu32 " %" PRIu32 " %" PRIu64 "\n", ref->file_id,
                ref->offset, ref->length, ref->crc32c, i % broker->payloads.distinct);
    }
    if (fclose(file) != 0) {
        load_fail("the file of refs cannot be written");
    }
}

/* -- compacting -------------------------------------------------------------------------------- */

/* The server waits for the list for a minute. */
static bool await_line(void *arg, const struct plc_seal *seal)
{
    struct broker *broker = arg;
    char line[64];
    printf("{\"sealed_id\": %" PRIu32 "}\n", seal->sealed_id);
    fflush(stdout);
    bool told = fgets(line, sizeof line, stdin) != NULL;
    broker->next = 0;
    broker->begun = now();
    return told;
}

static size_t list_live(void *arg, struct plc_ref *refs, size_t max)
{
    struct broker *broker = arg;
    size_t n = 0;
    for (; n < max && broker->next < broker->records; broker->next += 2) {
        refs[n++] = broker->refs[broker->next];
    }
    if (n == 0) {
        broker->listed = now();
    }
    return n;
}

static bool count_moved(void *arg, const struct plc_relocation *relocations, size_t n)
{
    struct broker *broker = arg;
    (void)relocations;
    if (broker->n_moved == 0) {
        broker->moved = now();
    }
    broker->n_moved += n;
    return true;
}

static void compact(struct broker *broker)
{
    const struct plc_compact_callbacks callbacks = {
        .live_begin = await_line, .live = list_live, .relocated = count_moved, .arg = broker};
    /* What the load appends nobody reads after it. */
    const struct plc_compact_options options = {.carry_nothing = true};
    struct plc_compact_summary summary;
    struct plc_error error;
    broker->n_moved = 0;
    if (plc_compact(broker->client, &broker->call, &options, &callbacks, &summary, &error) !=
        PLC_OK) {
        fail("compacting", &error);
    }
    uint64_t live = (broker->records + 1) / 2;
    if (broker->n_moved != live || summary.tries != 1) {
        load_fail("the compaction moved other than what is live");
    }
    printf("{\"seconds\": %.6f, \"listing_seconds\": %.6f, \"copying_seconds\": %.6f, "
           "\"live_records\": %" PRIu64 ", \"relocated_bytes\": %" PRIu64
           ", \"reclaimed_bytes\": %" PRIu64 "}\n",
           now() - broker->begun, broker->listed - broker->begun, broker->moved - broker->listed,
           live, summary.relocated_bytes, summary.reclaimed_bytes);
    fflush(stdout);
}

static uint64_t number(const char *text)
{
    char *end;
    uint64_t value = strtoull(text, &end, 10);
    if (end == text || *end || value == 0) {
        load_fail("a number is not one");
    }
    return value;
}

int main(int argc, char **argv)
{
    struct broker broker = {0};
    struct plc_error error;
    char line[64];
    if (argc != 7) {
        load_fail("takes ADDRESS STORE BYTES RECORDS REFS_FILE SAMPLE");
    }
    broker.call.store = argv[2];
    broker.records = number(argv[4]);
    broker.refs = load_alloc(NULL, broker.records * sizeof *broker.refs);
    payloads_init(&broker.payloads, number(argv[3]));
    if (plc_client_open(argv[1], NULL, &broker.client, &error) != PLC_OK) {
        fail("opening a client", &error);
    }
    double began = now();
    fill(&broker);
    write_refs(&broker, argv[5], number(argv[6]));
    printf("{\"filled_seconds\": %.6f, \"records\": %" PRIu64 "}\n", now() - began, broker.records);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        compact(&broker);
    }
    plc_client_close(broker.client);
    payloads_fini(&broker.payloads);
    free(broker.refs);
    return 0;
}
