/*
 * Load on a server of the contract, light enough that the server is what is measured.
 *
 *   load --address ADDRESS --method append|read|append-stream|read-stream [...]
 *
 * Every answer is checked: status, message, ref or payload. Latencies are kept one by one, so that
 * percentiles are exact. With --rate calls begin when they are due, whatever the server does, and
 * their latency counts from then. Reads append what they read first, or are told of what lies there
 * already, and each run is preceded by a short one that is not counted. SIGINT ends a run early,
 * and it tells what it has. Exits with 0 where all answers were right, with 1 where not.
 */
#include <getopt.h>
#include <signal.h>
#include <sys/prctl.h>

#include "run.h"

#define REFS     4096u
#define WARM_UP  1000u
#define BATCH    64u
#define STREAMED "-stream"

struct options {
    const char *address, *store, *method, *refs_file;
    uint32_t connections, in_flight, streams, batch, durability, refs, max_frame;
    size_t bytes;
    uint64_t calls;
    double seconds, rate;
    pid_t server;
    bool prompted, json;
};

static const char usage[] =
    "Usage: load --address ADDRESS --method append|read|append-stream|read-stream\n"
    "  --address ADDRESS     host:port or unix:path\n"
    "  --connections N       1\n"
    "  --in-flight N         calls, or batches of a stream, over all connections; 64\n"
    "  --bytes N             of a payload; 1024\n"
    "  --seconds S           for so long; 5\n"
    "  --calls N             instead: so many calls or batches\n"
    "  --rate N              open loop: so many calls or batches begin a second\n"
    "  --durability D        of appends: buffered (the default) or synced\n"
    "  --store NAME          load\n"
    "  --refs N              payloads that are read, in random order, over and over; 4096\n"
    "  --refs-file FILE      reads these and appends none: a line a payload of this program's,\n"
    "                        FILE_ID OFFSET LENGTH CRC32C NUMBER\n"
    "  --batch N             payloads a message of a stream; 64\n"
    "  --streams N           of streamed calls; one a connection\n"
    "  --max-frame N         bytes of a frame that the server may send; 16384\n"
    "  --server-pid PID      tells the server's processor time a call\n"
    "  --prompted            says 'ready' after the warm-up, and begins at a line on stdin\n"
    "  --json                the result as one JSON object\n";

_Noreturn static void refuse(const char *what, const char *value)
{
    fprintf(stderr, "load: %s '%s'\n%s", what, value, usage);
    exit(2);
}

static double number(const char *text, double least, double most)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= least && value <= most)) {
        refuse("not a number that makes sense here:", text);
    }
    return value;
}

static uint32_t count(const char *text, uint32_t most)
{
    return (uint32_t)number(text, 1, most);
}

static void set(struct options *options, int option, const char *value)
{
    switch (option) {
    case 'a':
        options->address = value;
        break;
    case 'm':
        options->method = value;
        break;
    case 'c':
        options->connections = count(value, 4096);
        break;
    case 'i':
        options->in_flight = count(value, 65536);
        break;
    case 'b':
        options->bytes = (size_t)number(value, 0, 1 << 30);
        break;
    case 's':
        options->seconds = number(value, 0.001, 1e6);
        break;
    case 'n':
        options->calls = (uint64_t)number(value, 1, 1e12);
        break;
    case 'r':
        options->rate = number(value, 0.001, 1e9);
        break;
    case 'd':
        if (strcmp(value, "buffered") != 0 && strcmp(value, "synced") != 0) {
            refuse("there is no durability", value);
        }
        options->durability = value[0] == 'b' ? 1 : 2;
        break;
    case 't':
        options->store = value;
        break;
    case 'f':
        options->refs = count(value, 1u << 30);
        break;
    case 'R':
        options->refs_file = value;
        break;
    case 'B':
        options->batch = count(value, 32768);
        break;
    case 'S':
        options->streams = count(value, 65536);
        break;
    case 'F':
        options->max_frame = (uint32_t)number(value, 16384, (1 << 24) - 1);
        break;
    case 'p':
        options->server = (pid_t)count(value, INT32_MAX);
        break;
    case 'P':
        options->prompted = true;
        break;
    case 'j':
        options->json = true;
        break;
    case 'h':
        fputs(usage, stdout);
        exit(0);
    default:
        refuse("see", "--help");
    }
}

static void parse(struct options *options, int argc, char **argv)
{
    static const struct option known[] = {{"address", required_argument, NULL, 'a'},
                                          {"method", required_argument, NULL, 'm'},
                                          {"connections", required_argument, NULL, 'c'},
                                          {"in-flight", required_argument, NULL, 'i'},
                                          {"bytes", required_argument, NULL, 'b'},
                                          {"seconds", required_argument, NULL, 's'},
                                          {"calls", required_argument, NULL, 'n'},
                                          {"rate", required_argument, NULL, 'r'},
                                          {"durability", required_argument, NULL, 'd'},
                                          {"store", required_argument, NULL, 't'},
                                          {"refs", required_argument, NULL, 'f'},
                                          {"refs-file", required_argument, NULL, 'R'},
                                          {"batch", required_argument, NULL, 'B'},
                                          {"streams", required_argument, NULL, 'S'},
                                          {"max-frame", required_argument, NULL, 'F'},
                                          {"server-pid", required_argument, NULL, 'p'},
                                          {"prompted", no_argument, NULL, 'P'},
                                          {"json", no_argument, NULL, 'j'},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
    int option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        set(options, option, optarg);
    }
    if (optind < argc || !options->address || !options->method) {
        refuse(optind < argc ? "unexpected" : "takes",
               optind < argc ? argv[optind] : "--address, --method");
    }
}

static volatile sig_atomic_t interrupted;

static void interrupt(int signal)
{
    (void)signal;
    interrupted = 1;
}

static enum method method_of(const char *name)
{
    static const char *const names[] = {"append", "read", "append-stream", "read-stream"};
    for (int i = 0; i < 4; i++) {
        if (strcmp(name, names[i]) == 0) {
            return (enum method)i;
        }
    }
    refuse("there is no method", name);
}

/* False where the line is no ref of a payload that this program would make. */
static bool parse_ref(const char *line, const struct payloads *payloads, struct ref *ref)
{
    uint64_t values[5];
    char *end = NULL;
    for (int i = 0; i < 5; i++) {
        values[i] = strtoull(line, &end, 10);
        if (end == line) {
            return false;
        }
        line = end;
    }
    *ref = (struct ref){.file_id = (uint32_t)values[0],
                        .offset = values[1],
                        .length = (uint32_t)values[2],
                        .crc32c = (uint32_t)values[3],
                        .number = (uint32_t)values[4]};
    return *end == '\n' && values[2] == payloads->bytes && values[4] < payloads->distinct &&
           values[3] == payloads->checksums[ref->number];
}

/* Refs of payloads that somebody else has appended. */
static struct ref *load_refs(const struct payloads *payloads, struct options *options)
{
    FILE *file = fopen(options->refs_file, "r");
    struct buffer refs = {0};
    struct ref ref;
    char line[128];
    if (!file) {
        load_fail("there is no file of refs by that name");
    }
    while (fgets(line, sizeof line, file)) {
        if (!parse_ref(line, payloads, &ref)) {
            load_fail("a line of the file is no ref of such a payload");
        }
        buffer_add(&refs, &ref, sizeof ref);
    }
    fclose(file);
    options->refs = (uint32_t)(refs.n / sizeof ref);
    if (options->refs == 0) {
        load_fail("there is no ref in the file");
    }
    return (struct ref *)(void *)refs.data;
}

/* What is to be read is appended first, where it is not there already. NULL where that failed. */
static struct ref *gather(struct connections *connections, struct options *options,
                          const struct payloads *payloads)
{
    if (options->refs_file) {
        return load_refs(payloads, options);
    }
    struct ref *refs = load_alloc(NULL, options->refs * sizeof *refs);
    struct work work;
    struct pace pace = {.in_flight = options->in_flight, .ops = options->refs};
    struct result result;
    work_init_append(&work, payloads, options->store, 1, 1, false, refs);
    run(connections, &work, &pace, 0, 0, &result);
    free(result.latencies);
    work_fini(&work);
    if (result.wrong != 0 || result.ops != options->refs) {
        free(refs);
        return NULL;
    }
    return refs;
}

static void print_text(const struct options *options, const struct result *result)
{
    const char *unit = strstr(options->method, STREAMED) ? "a payload" : "a call";
    double payloads = (double)result->payloads;
    printf("%s, %zu bytes, %u connections, %u in flight: %llu in %.2f s, %llu wrong\n",
           options->method, options->bytes, options->connections, result->in_flight,
           (unsigned long long)result->payloads, result->seconds,
           (unsigned long long)result->wrong);
    printf("  a second    %.0f\n", payloads / result->seconds);
    if (options->server) {
        printf("  server CPU  %.2f us %s\n", result->server_cpu * 1e6 / payloads, unit);
    }
    printf("  own CPU     %.2f us %s\n", result->own_cpu * 1e6 / payloads, unit);
    printf("  latency     p50 %.0f  p90 %.0f  p99 %.0f  p99.9 %.0f  max %.0f us\n",
           result_percentile(result, 0.5), result_percentile(result, 0.9),
           result_percentile(result, 0.99), result_percentile(result, 0.999),
           result_percentile(result, 1));
}

static void print_json(const struct options *options, const struct result *result)
{
    double payloads = (double)(result->payloads ? result->payloads : 1);
    printf("{\"method\": \"%s\", \"bytes\": %zu, \"connections\": %u, \"in_flight\": %u, "
           "\"calls\": %llu, \"payloads\": %llu, \"wrong\": %llu, \"seconds\": %.6f, "
           "\"payloads_per_second\": %.1f, ",
           options->method, options->bytes, options->connections, result->in_flight,
           (unsigned long long)result->ops, (unsigned long long)result->payloads,
           (unsigned long long)result->wrong, result->seconds, payloads / result->seconds);
    if (options->server) {
        printf("\"server_cpu_us\": %.4f, ", result->server_cpu * 1e6 / payloads);
    }
    printf("\"own_cpu_us\": %.4f, \"latency_us\": {", result->own_cpu * 1e6 / payloads);
    printf("\"p50\": %.3f, \"p90\": %.3f, \"p99\": %.3f, \"p99.9\": %.3f, \"max\": %.3f}}\n",
           result_percentile(result, 0.5), result_percentile(result, 0.9),
           result_percentile(result, 0.99), result_percentile(result, 0.999),
           result_percentile(result, 1));
}

static uint64_t measure(struct connections *connections, const struct options *options,
                        const struct work *work)
{
    struct pace pace = {.in_flight = options->in_flight, .ops = WARM_UP, .stop = &interrupted};
    struct result result;
    if (options->calls && options->calls < WARM_UP) {
        pace.ops = options->calls;
    }
    run(connections, work, &pace, options->streams, 0, &result);
    free(result.latencies);
    if (result.wrong) {
        return result.wrong;
    }
    if (options->prompted) {
        puts("ready");
        fflush(stdout);
        while (getchar() != '\n' && !feof(stdin)) {
        }
    }
    pace.ops = options->calls ? options->calls : UINT64_MAX;
    pace.seconds = options->calls ? 0 : options->seconds;
    pace.rate = options->rate;
    run(connections, work, &pace, options->streams, options->server, &result);
    (options->json ? print_json : print_text)(options, &result);
    free(result.latencies);
    return result.wrong;
}

int main(int argc, char **argv)
{
    struct options options = {.store = "load",
                              .connections = 1,
                              .in_flight = 64,
                              .bytes = 1024,
                              .seconds = 5,
                              .batch = BATCH,
                              .durability = 1,
                              .refs = REFS,
                              .max_frame = 16384};
    struct payloads payloads;
    struct connections connections;
    struct work work;
    struct ref *refs = NULL;
    uint64_t wrong = 1;
    parse(&options, argc, argv);
    enum method method = method_of(options.method);
    bool streamed = strstr(options.method, STREAMED),
         reads = method == READ || method == READ_STREAM;
    options.streams = options.streams ? options.streams : options.connections;
    options.batch = streamed ? options.batch : 1;
    prctl(PR_SET_TIMERSLACK, 1); /* an op that is due shall not wait 50 us for company */

    payloads_init(&payloads, options.bytes);
    connections_open(&connections, options.address, options.connections, options.in_flight,
                     options.max_frame);
    signal(SIGINT, interrupt);
    if (reads) {
        refs = gather(&connections, &options, &payloads);
    }
    if (!reads || refs) {
        if (reads) {
            work_init_read(&work, &payloads, options.store, options.batch, streamed, refs,
                           options.refs);
        } else {
            work_init_append(&work, &payloads, options.store, options.durability, options.batch,
                             streamed, NULL);
        }
        wrong = measure(&connections, &options, &work);
        work_fini(&work);
    }
    free(refs);
    connections_close(&connections);
    payloads_fini(&payloads);
    if (wrong) {
        fprintf(stderr, "load: %llu answers were wrong\n", (unsigned long long)wrong);
    }
    return wrong != 0;
}
