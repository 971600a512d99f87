/*
 * pls_read of random records against a pread and a checksum each out of the same files, on one
 * thread. One at a time, both read into memory of the caller's, the same over and over; where more
 * are in flight, ours come in the store's.
 *
 * The records lie in one segment, which is still being appended to or, `sealed`, is not any more;
 * or in many: then either side opens them for its turn alone, because a process may not have so
 * many files open twice. They are in memory: or, `cold`, have been taken out of it before either
 * side's turn. No record is read twice in a turn; where there are more `records` than a turn reads,
 * the next turn reads others.
 */
#include <stdlib.h>

#include "bare.h"
#include "window.h"

static uint32_t records;
static bool many; /* segments */
static struct pls_ref *refs;
static uint32_t *order;
static uint32_t turn;
static struct place place;

/* The reads of the next turn. */
static const uint32_t *next_reads(const struct options *options)
{
    uint32_t turns = records / options->ops;
    return order + (size_t)(turn++ % turns) * options->ops;
}

/* By a generator of our own, so that it is the same everywhere. */
static void shuffle(uint32_t n)
{
    uint64_t x = 88172645463325252u;
    for (uint32_t i = 0; i < n; i++) {
        order[i] = i;
    }
    for (uint32_t i = n; i > 1; i--) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        uint32_t k = (uint32_t)((x >> 32) % i), other = order[k];
        order[k] = order[i - 1];
        order[i - 1] = other;
    }
}

/* In this process where it is one segment: after a restart more of its index would be on the disk
 * than there was of one that grew. */
static void make_one(const struct options *options)
{
    remove_tree(path_of(options, "store"));
    place_open(&place, options, 0);
    fill(place.store, records, options->bytes, batch_of(options->bytes), refs);
    if (options->sealed) {
        seal(place.store);
        fill(place.store, 1, options->bytes, 1, NULL); /* so that another one is active */
    }
    check_some(place.store, refs, records, options->bytes, 1);
    bare_read_open(options);
}

static void set_up(const struct options *options)
{
    records = options->records > options->ops ? options->records : options->ops;
    refs = shared((size_t)records * sizeof *refs);
    order = allocate(records, sizeof *order);
    shuffle(records);
    many = options->segments > 1;
    if (many) {
        make_store(options, refs);
    } else {
        make_one(options);
    }
}

static void tear_down(void)
{
    if (!many) {
        bare_read_close();
        place_close(&place);
    }
    shared_end(refs, (size_t)records * sizeof *refs);
    free(order);
}

/* -- a round -- */

static void on_read(struct pls_read *read, enum pls_code code)
{
    must_be_ok(code, "a read");
    pls_view_release(&read->view);
    window_give(read->data);
}

static struct taken run_window(const struct options *options, const uint32_t *reads)
{
    struct window window;
    window_init(&window, options->in_flight);
    struct instant start = now();
    for (uint32_t i = 0; i < options->ops; i++) {
        struct slot *slot = window_take(&window);
        slot->read = (struct pls_read){.ref = refs[reads[i]], .done = on_read, .data = slot};
        pls_read(place.store, &slot->read);
    }
    window_fini(&window);
    return taken_since(start, options->ops);
}

/* One at a time: most often answered before pls_read returns. */

static void set_flag(struct pls_read *read, enum pls_code code)
{
    must_be_ok(code, "a read");
    pls_view_release(&read->view);
    flag_set(read->data);
}

static struct taken run_inline(const struct options *options, const uint32_t *reads)
{
    uint8_t *room = allocate(1, PLS_ROOM(options->bytes));
    struct instant start = now();
    for (uint32_t i = 0; i < options->ops; i++) {
        atomic_bool done = false;
        struct pls_read read = {
            .ref = refs[reads[i]], .room = room, .done = set_flag, .data = &done};
        pls_read(place.store, &read);
        flag_wait(&done);
    }
    struct taken taken = taken_since(start, options->ops);
    free(room);
    return taken;
}

/* What is not in memory is waited for: asleep, not looking again and again. */
static struct taken run(const struct options *options, const uint32_t *reads)
{
    return options->in_flight == 1 && !options->cold ? run_inline(options, reads)
                                                     : run_window(options, reads);
}

static void make_cold(const struct options *options)
{
    if (options->cold) {
        drop_cache(options);
    }
}

/* A store just opened has nothing of its indexes in memory yet: the first time does not count. */
static struct taken run_many(const struct options *options, const uint32_t *reads)
{
    place_open(&place, options, 0);
    check_some(place.store, refs, records, options->bytes, 1);
    run(options, reads);
    struct taken taken = run(options, reads);
    place_close(&place);
    return taken;
}

static struct taken run_ours(const struct options *options)
{
    make_cold(options);
    const uint32_t *reads = next_reads(options);
    return many ? run_many(options, reads) : run(options, reads);
}

static struct taken run_bare(const struct options *options)
{
    make_cold(options);
    if (!many) {
        return bare_read(options, refs, next_reads(options));
    }
    bare_read_open(options);
    struct taken taken = bare_read(options, refs, next_reads(options));
    bare_read_close();
    return taken;
}

const struct measure measure_read = {
    .name = "read",
    .ours = "pls_read",
    .bare = "a pread and a checksum each, on one thread",
    .defaults = {.bytes = KIB, .ops = 50000},
    .any_size = true,
    .set_up = set_up,
    .run_ours = run_ours,
    .run_bare = run_bare,
    .tear_down = tear_down,
};
