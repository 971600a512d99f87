/*
 * The store's operations against bare loops over the same bytes, alternately, in one run.
 *
 *   append    pls_append                     a checksum and one pwritev (SYNCED: and one fdatasync)
 *                                            a record, on one thread
 *   read      pls_read of random records     a pread and a checksum a record, on one thread
 *   compact   a compaction                   cp of the live bytes, and a sync
 *   refs      a compaction of small records  the same
 *   open      pls_dir_open                   open and fstat of each file
 *
 * The files of these names say what exactly is measured. Each round measures both sides, every
 * other one ours first. Machines are shared and noisy: the ratios are what counts.
 *
 *   bench_store [OPTION]... --data-dir DIRECTORY MEASUREMENT
 *
 *   --rounds N       3
 *   --bytes N        of a payload
 *   --ops N          a round: appends, reads, or records of the store
 *   --records N      read, of one segment: as many as ops at least, and where not given
 *   --callers N      append: threads
 *   --in-flight N    append, read: of each caller
 *   --segments N     append, read, open: that the store has
 *   --live-every N   compact: each so manieth record is live
 *   --synced         append
 *   --sealed         read: the segment is not the active one
 *   --cold           read: what is read is taken out of memory before
 *   --unclean        open: after a process that ended without closing it
 *   --json           all figures, as JSON
 *
 * The directory is made, must not be there before, and is removed.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench.h"

#define ROUNDS_MAX    1000u
#define SECONDS_MAX   1200u /* a run that takes longer has met with something else */
#define FILES_BESIDE  100u
#define A_ROUND_BYTES (64 * MIB)

static pid_t main_process;
static const char *data;

struct round {
    struct taken ours, bare;
};

static const struct measure *const measures[] = {&measure_append, &measure_read, &measure_compact,
                                                 &measure_refs,   &measure_open, NULL};

static void refuse(const char *what)
{
    fprintf(stderr, "bench_store: %s; the head of tests/bench/store/main.c says how\n", what);
    exit(2);
}

/* -- the command line -------------------------------------------------------------------------- */

enum { ROUNDS = 1, BYTES, OPS, RECORDS, CALLERS, IN_FLIGHT, SEGMENTS, LIVE_EVERY, DATA_DIR, FLAG };

struct command {
    const struct measure *measure;
    struct options options;
    uint32_t rounds;
    int json;
};

static uint32_t number(const char *text)
{
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno != 0 || *end != '\0' || value == 0 || value > 1000000000) {
        refuse("a number is one from 1 to 1000000000");
    }
    return (uint32_t)value;
}

static void take_option(struct command *command, int option)
{
    uint32_t *const numbers[] = {
        [ROUNDS] = &command->rounds,
        [BYTES] = &command->options.bytes,
        [OPS] = &command->options.ops,
        [RECORDS] = &command->options.records,
        [CALLERS] = &command->options.callers,
        [IN_FLIGHT] = &command->options.in_flight,
        [SEGMENTS] = &command->options.segments,
        [LIVE_EVERY] = &command->options.live_every,
    };
    if (option == DATA_DIR) {
        command->options.directory = optarg;
    } else if (option < DATA_DIR) {
        *numbers[option] = number(optarg);
    } else if (option != FLAG) {
        refuse("an option is unknown, or lacks its value");
    }
}

static uint32_t first_of(uint32_t given, uint32_t otherwise, uint32_t last)
{
    return given != 0 ? given : otherwise != 0 ? otherwise : last;
}

static void set_defaults(struct command *command)
{
    struct options *options = &command->options;
    const struct options *with = &command->measure->defaults;
    options->bytes = first_of(options->bytes, with->bytes, 1);
    options->callers = first_of(options->callers, with->callers, 1);
    options->in_flight = first_of(options->in_flight, with->in_flight, 1);
    options->segments = first_of(options->segments, with->segments, 1);
    options->live_every = first_of(options->live_every, with->live_every, 1);
    uint32_t ops = with->ops, fit = (uint32_t)(A_ROUND_BYTES / options->bytes);
    if (command->measure->any_size && fit < ops) {
        ops = fit;
    }
    options->ops = first_of(options->ops, ops, 1);
    if (options->segments > 1) { /* each has as many */
        options->ops =
            (options->ops - 1) / options->segments * options->segments + options->segments;
    }
}

static const struct measure *find(const char *name)
{
    for (size_t i = 0; measures[i] != NULL; i++) {
        if (strcmp(measures[i]->name, name) == 0) {
            return measures[i];
        }
    }
    refuse("there is no such measurement");
    return NULL;
}

static void parse(struct command *command, int argc, char **argv)
{
    struct options *options = &command->options;
    int synced = 0, sealed = 0, cold = 0, unclean = 0, option;
    const struct option known[] = {
        {"rounds", required_argument, NULL, ROUNDS},
        {"bytes", required_argument, NULL, BYTES},
        {"ops", required_argument, NULL, OPS},
        {"records", required_argument, NULL, RECORDS},
        {"callers", required_argument, NULL, CALLERS},
        {"in-flight", required_argument, NULL, IN_FLIGHT},
        {"segments", required_argument, NULL, SEGMENTS},
        {"live-every", required_argument, NULL, LIVE_EVERY},
        {"data-dir", required_argument, NULL, DATA_DIR},
        {"synced", no_argument, &synced, 1},
        {"sealed", no_argument, &sealed, 1},
        {"cold", no_argument, &cold, 1},
        {"unclean", no_argument, &unclean, 1},
        {"json", no_argument, &command->json, 1},
        {NULL, 0, NULL, 0},
    };
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        take_option(command, option == 0 ? FLAG : option);
    }
    options->synced = synced;
    options->sealed = sealed;
    options->cold = cold;
    options->unclean = unclean;
    if (optind + 1 != argc || options->directory == NULL || command->rounds > ROUNDS_MAX) {
        refuse("it takes a data directory and one measurement");
    }
    command->measure = find(argv[optind]);
    set_defaults(command);
}

/* -- running ----------------------------------------------------------------------------------- */

static void run_rounds(const struct command *command, struct round *rounds)
{
    const struct measure *measure = command->measure;
    const struct options *options = &command->options;
    if (measure->set_up != NULL) {
        measure->set_up(options);
    }
    for (uint32_t i = 0; i < command->rounds; i++) {
        if (i % 2 == 1) {
            rounds[i].ours = measure->run_ours(options);
            rounds[i].bare = measure->run_bare(options);
        } else {
            rounds[i].bare = measure->run_bare(options);
            rounds[i].ours = measure->run_ours(options);
        }
    }
    if (measure->tear_down != NULL) {
        measure->tear_down();
    }
}

/* A store of thousands of segments has twice as many files open. */
static void allow_many_files(uint32_t segments)
{
    rlim_t needed = 2 * (rlim_t)segments + FILES_BESIDE;
    struct rlimit limit;
    must(getrlimit(RLIMIT_NOFILE, &limit) == 0, "getrlimit");
    if (limit.rlim_max < needed) { /* root may */
        limit.rlim_max = needed;
    }
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
        fprintf(stderr, "bench_store: %lu open files are needed; allowed are fewer (ulimit -Hn)\n",
                (unsigned long)needed);
        exit(1);
    }
}

/* Whatever ends the program. Its children, copies of it, end without this or leave it to it. */
static void remove_data(void)
{
    if (getpid() == main_process) {
        remove_tree(data);
    }
}

/* -- telling ----------------------------------------------------------------------------------- */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void show_spread(const char *what, double *values, uint32_t n, int digits)
{
    qsort(values, n, sizeof *values, ascending);
    printf("  %s %.*f (%.*f to %.*f)\n", what, digits, values[n / 2], digits, values[0], digits,
           values[n - 1]);
}

static void print_text(const struct command *command, const struct round *rounds)
{
    double ours[ROUNDS_MAX], bare[ROUNDS_MAX], ratio[ROUNDS_MAX], cpu[ROUNDS_MAX];
    double peak[ROUNDS_MAX];
    for (uint32_t i = 0; i < command->rounds; i++) {
        ours[i] = rounds[i].ours.ns;
        bare[i] = rounds[i].bare.ns;
        ratio[i] = bare[i] / ours[i];
        cpu[i] = rounds[i].bare.cpu_ns / rounds[i].ours.cpu_ns;
        peak[i] = rounds[i].ours.peak_bytes;
    }
    printf("%s, %u bytes, %u a round: %s; bare: %s\n", command->measure->name,
           command->options.bytes, command->options.ops, command->measure->ours,
           command->measure->bare);
    show_spread("store      ns", ours, command->rounds, 0);
    show_spread("bare       ns", bare, command->rounds, 0);
    show_spread("bare/store   ", ratio, command->rounds, 2);
    show_spread("       by CPU", cpu, command->rounds, 2);
    if (rounds[0].ours.peak_bytes > 0) {
        show_spread("peak    bytes", peak, command->rounds, 1);
    }
}

static void print_side(const char *name, const struct taken *taken)
{
    printf("\"%s\": {\"ns\": %.1f, \"cpu_ns\": %.1f, \"peak_bytes\": %.3f}", name, taken->ns,
           taken->cpu_ns, taken->peak_bytes);
}

static void print_json(const struct command *command, const struct round *rounds)
{
    const struct options *options = &command->options;
    printf("{\"name\": \"%s\", \"ours\": \"%s\", \"reference\": \"%s\",\n", command->measure->name,
           command->measure->ours, command->measure->bare);
    printf(" \"bytes\": %u, \"ops\": %u, \"callers\": %u, \"in_flight\": %u, \"segments\": %u,\n",
           options->bytes, options->ops, options->callers, options->in_flight, options->segments);
    printf(" \"rounds\": [");
    for (uint32_t i = 0; i < command->rounds; i++) {
        printf("%s\n  {", i > 0 ? "," : "");
        print_side("store", &rounds[i].ours);
        printf(", ");
        print_side("bare", &rounds[i].bare);
        printf("}");
    }
    printf("]}\n");
}

int main(int argc, char **argv)
{
    struct command command = {.rounds = 3};
    parse(&command, argc, argv);
    struct round *rounds = allocate(command.rounds, sizeof *rounds);
    allow_many_files(command.options.segments);
    must(mkdir(command.options.directory, 0755) == 0, command.options.directory);
    main_process = getpid();
    data = command.options.directory;
    atexit(remove_data);
    alarm(SECONDS_MAX);
    payloads_init(command.options.bytes > MIB ? command.options.bytes : MIB);
    run_rounds(&command, rounds);
    if (command.json) {
        print_json(&command, rounds);
    } else {
        print_text(&command, rounds);
    }
    free(rounds);
    return 0;
}
