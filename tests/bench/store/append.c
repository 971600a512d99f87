/*
 * pls_append against a checksum and one gathered write a record, on one thread.
 *
 * The store takes appends of `callers` threads with `in_flight` each, BUFFERED or SYNCED; the bare
 * loop has an fdatasync for each where they are SYNCED. Both begin with a new file in every round,
 * for what a store writes is new to the file system; but where there are to be many segments the
 * store stays, and goes on in its last one.
 */
#include <pthread.h>
#include <stdlib.h>

#include "bare.h"
#include "window.h"

struct caller {
    const struct options *options;
    pls_store *store;
    struct pls_ref *refs;
    uint32_t first, end; /* which of the operations are its own */
    pthread_t thread;
};

/* -- several in flight -- */

static void on_appended(struct pls_append *append, enum pls_code code)
{
    struct slot *slot = append->data;
    struct caller *caller = slot->owner;
    must_be_ok(code, "an append");
    caller->refs[slot->i] = append->ref;
    window_give(slot);
}

static void *run_caller(void *arg)
{
    struct caller *caller = arg;
    const struct options *options = caller->options;
    struct window window;
    window_init(&window, options->in_flight);
    for (uint32_t i = caller->first; i < caller->end; i++) {
        struct slot *slot = window_take(&window);
        slot->i = i;
        slot->owner = caller;
        slot->payload = (struct iovec){(void *)payload_of(i), options->bytes};
        slot->append =
            (struct pls_append){.payload = &slot->payload,
                                .n_payload = 1,
                                .durability = options->synced ? PLS_SYNCED : PLS_BUFFERED,
                                .done = on_appended,
                                .data = slot};
        pls_append(caller->store, &slot->append);
    }
    window_fini(&window);
    return NULL;
}

static struct taken run_callers(const struct options *options, pls_store *store,
                                struct pls_ref *refs)
{
    struct caller *callers = allocate(options->callers, sizeof *callers);
    uint32_t share = options->ops / options->callers;
    struct instant start = now();
    for (uint32_t i = 0; i < options->callers; i++) {
        bool last = i + 1 == options->callers;
        callers[i] = (struct caller){.options = options,
                                     .store = store,
                                     .refs = refs,
                                     .first = i * share,
                                     .end = last ? options->ops : (i + 1) * share};
        must(pthread_create(&callers[i].thread, NULL, run_caller, &callers[i]) == 0, "a thread");
    }
    for (uint32_t i = 0; i < options->callers; i++) {
        pthread_join(callers[i].thread, NULL);
    }
    struct taken taken = taken_since(start, options->ops);
    free(callers);
    return taken;
}

/* -- one at a time: answered before pls_append returns, but where a segment is full -- */

static void set_flag(struct pls_append *append, enum pls_code code)
{
    must_be_ok(code, "an append");
    flag_set(append->data);
}

static struct taken run_inline(const struct options *options, pls_store *store,
                               struct pls_ref *refs)
{
    struct instant start = now();
    for (uint32_t i = 0; i < options->ops; i++) {
        atomic_bool done = false;
        struct iovec payload = {(void *)payload_of(i), options->bytes};
        struct pls_append append = {
            .payload = &payload, .n_payload = 1, .done = set_flag, .data = &done};
        pls_append(store, &append);
        flag_wait(&done);
        refs[i] = append.ref;
    }
    return taken_since(start, options->ops);
}

/* -- a round -- */

static void set_up(const struct options *options)
{
    if (options->segments > 1) {
        struct options empty = *options;
        empty.ops = options->segments; /* one record each */
        make_store(&empty, NULL);
    }
}

static struct taken run_ours(const struct options *options)
{
    struct place place;
    struct pls_ref *refs = allocate(options->ops, sizeof *refs);
    if (options->segments <= 1) {
        remove_tree(path_of(options, "store"));
    }
    place_open(&place, options, 0);
    bool one = options->callers == 1 && options->in_flight == 1 && !options->synced;
    struct taken taken =
        one ? run_inline(options, place.store, refs) : run_callers(options, place.store, refs);
    check_some(place.store, refs, options->ops, options->bytes, 1);
    place_close(&place);
    free(refs);
    return taken;
}

const struct measure measure_append = {
    .name = "append",
    .ours = "pls_append",
    .bare = "a checksum and one pwritev each, on one thread",
    .defaults = {.bytes = KIB, .ops = 50000},
    .any_size = true,
    .set_up = set_up,
    .run_ours = run_ours,
    .run_bare = bare_append,
};
