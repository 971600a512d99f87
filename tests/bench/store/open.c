/*
 * pls_dir_open of a directory whose one store has `segments` segments, after a clean close or,
 * `unclean`, after a process has ended without one in the middle of appending; against opening the
 * same files and looking at their sizes. What is opened is in memory.
 */
#include <unistd.h>

#include "bare.h"

static void count_segments(pls_store *store, uint32_t expected)
{
    struct pls_stat stat;
    struct pls_error error;
    must_tell(pls_store_stat(store, &stat, &error), &error);
    must_agree(stat.n_segments >= expected, "the store has lost segments");
    pls_stat_fini(&stat);
}

/* Its own process: one that is left unclean ends with all that it has open. */
static void open_store(const struct options *options, void *arg)
{
    struct taken *taken = arg;
    struct place place;
    struct instant start = now();
    place_open(&place, options, 0);
    *taken = taken_since(start, 1);
    count_segments(place.store, options->segments);
    if (options->unclean) {
        fill(place.store, 1, options->bytes, 1, NULL);
    } else {
        place_close(&place);
    }
}

static struct taken run_ours(const struct options *options)
{
    struct taken *result = shared(sizeof *result);
    in_child(open_store, options, result);
    struct taken taken = *result;
    shared_end(result, sizeof *result);
    return taken;
}

static void set_up(const struct options *options)
{
    make_store(options, NULL);
    run_ours(options); /* so that the first round finds what the others do */
}

const struct measure measure_open = {
    .name = "open",
    .ours = "pls_dir_open",
    .bare = "open and fstat of its files",
    .defaults = {.bytes = KIB, .segments = 1, .ops = 1},
    .set_up = set_up,
    .run_ours = run_ours,
    .run_bare = bare_open,
};
