/*
 * A compaction of very many small records, every one of them live: what it takes in time, and in
 * memory of a process that holds the store and does not hold the refs. They come from a file, as
 * they would from a stream.
 *
 * The reference is cp of the same bytes and a sync, as for compact.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "bare.h"

#define A_PART 20000u /* refs given at once */

static char refs_path[PATH_MAX];

static double peak_bytes(void)
{
    struct rusage usage;
    must(getrusage(RUSAGE_SELF, &usage) == 0, "getrusage");
    return (double)usage.ru_maxrss * 1024;
}

static FILE *open_refs(const char *mode)
{
    FILE *file = fopen(refs_path, mode);
    must(file != NULL, refs_path);
    return file;
}

static void make_refs(const struct options *options, void *arg)
{
    struct pls_ref *refs = arg;
    make_store(options, refs);
    FILE *file = open_refs("wb");
    must(fwrite(refs, sizeof *refs, options->ops, file) == options->ops && fclose(file) == 0,
         refs_path);
}

static void give_refs(pls_compact *compact)
{
    static struct pls_ref part[A_PART];
    struct pls_error error;
    size_t n;
    FILE *file = open_refs("rb");
    while ((n = fread(part, sizeof *part, A_PART, file)) > 0) {
        must_tell(pls_compact_live(compact, part, n, &error), &error);
    }
    fclose(file);
}

static void count_map(pls_compact *compact, uint64_t expected)
{
    struct pls_relocation map[1000];
    uint64_t n = 0;
    size_t got;
    do {
        must_be_ok(pls_compact_next_map(compact, map, 1000, &got), "the map");
        n += got;
    } while (got > 0);
    must_agree(n == expected, "the map leaves records out");
}

static void compact_refs(const struct options *options, void *arg)
{
    struct taken *taken = arg;
    struct place place;
    struct pls_error error;
    pls_compact *compact;
    struct pls_compact_options with = {.check_expected_live = true, .expected_live = options->ops};
    place_open(&place, options, 0);
    struct pls_seal given = seal(place.store);
    double peak = peak_bytes();
    struct instant start = now();
    must_tell(pls_compact_begin(place.store, &given, &with, &compact, &error), &error);
    give_refs(compact);
    must_tell(pls_compact_run(compact, NULL, NULL, &error), &error);
    count_map(compact, options->ops);
    *taken = taken_since(start, options->ops);
    taken->peak_bytes = (peak_bytes() - peak) / options->ops;
    pls_compact_destroy(compact);
    place_close(&place);
}

static struct taken run_ours(const struct options *options)
{
    struct taken *result = shared(sizeof *result);
    size_t size = options->ops * sizeof(struct pls_ref);
    struct pls_ref *refs = shared(size);
    snprintf(refs_path, sizeof refs_path, "%s", path_of(options, "refs"));
    in_child(make_refs, options, refs);
    shared_end(refs, size);
    in_child(compact_refs, options, result);
    struct taken taken = *result;
    shared_end(result, sizeof *result);
    return taken;
}

static struct taken run_bare(const struct options *options)
{
    struct taken taken = bare_copy(options, options->ops * (uint64_t)(options->bytes + 4));
    taken.ns /= options->ops;
    taken.cpu_ns /= options->ops;
    return taken;
}

const struct measure measure_refs = {
    .name = "refs",
    .ours = "a compaction, a live ref of it; peak: resident memory a ref",
    .bare = "cp of the same bytes and a sync, a record of them",
    .defaults = {.bytes = 16, .ops = 100000},
    .run_ours = run_ours,
    .run_bare = run_bare,
};
