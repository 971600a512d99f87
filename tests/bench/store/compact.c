/*
 * A compaction, from begin to the end of its map, against the program cp and a sync of the bytes
 * that are live in it.
 *
 * Each live_every-th record is live: with 1 whole runs are copied at once, with 2 there is garbage
 * beside every record. Both sides find what they copy in memory and on the device; both leave their
 * copy on the device.
 */
#include "bare.h"

static uint32_t n_live(const struct options *options)
{
    return (options->ops - 1) / options->live_every + 1;
}

/* The map's new refs take the place of the old ones. */
static void read_map(pls_compact *compact, struct pls_ref *live, uint32_t n)
{
    struct pls_relocation map[1000];
    size_t done = 0, got;
    do {
        must_be_ok(pls_compact_next_map(compact, map, 1000, &got), "the map");
        for (size_t i = 0; i < got && done < n; i++) {
            live[done++] = map[i].new_ref;
        }
    } while (got > 0);
    must_agree(done == n, "the map leaves records out");
}

static struct taken compact(pls_store *store, const struct pls_seal *given, struct pls_ref *live,
                            uint32_t n)
{
    struct pls_error error;
    pls_compact *compact;
    struct pls_compact_options with = {.check_expected_live = true, .expected_live = n};
    struct instant start = now();
    must_tell(pls_compact_begin(store, given, &with, &compact, &error), &error);
    must_tell(pls_compact_live(compact, live, n, &error), &error);
    must_tell(pls_compact_run(compact, NULL, NULL, &error), &error);
    read_map(compact, live, n);
    struct taken taken = taken_since(start, 1);
    pls_compact_destroy(compact);
    return taken;
}

/* -- a round -- */

static struct taken run_ours(const struct options *options)
{
    struct place place;
    uint32_t n = n_live(options);
    struct pls_ref *refs = shared((size_t)options->ops * sizeof *refs);
    make_store(options, refs);
    for (uint32_t i = 0; i < n; i++) {
        refs[i] = refs[(size_t)i * options->live_every];
    }
    place_open(&place, options, 0);
    struct pls_seal given = seal(place.store);
    struct taken taken = compact(place.store, &given, refs, n);
    check_some(place.store, refs, n, options->bytes, options->live_every);
    place_close(&place);
    shared_end(refs, (size_t)options->ops * sizeof *refs);
    return taken;
}

static struct taken run_bare(const struct options *options)
{
    return bare_copy(options, n_live(options) * (uint64_t)(options->bytes + 4));
}

const struct measure measure_compact = {
    .name = "compact",
    .ours = "a compaction, from begin to the end of its map",
    .bare = "cp of the live bytes, and a sync",
    .defaults = {.bytes = KIB, .ops = 131072, .live_every = 1},
    .run_ours = run_ours,
    .run_bare = run_bare,
};
