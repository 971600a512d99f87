/*
 * Compaction's plan: which segments are rewritten, and what of that the disk has room for.
 *
 * Sources are deleted after the commit only, so outputs, their indexes and the relocation table
 * must find room beside them. Where they do not, the segments that give back most go first, and
 * those that do not fit stay, and those that give nothing back. One without a live record needs no
 * output: it always goes.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "compact.h"
#include "error.h"
#include "store.h"

#define BLOCK  4096u                 /* bytes that files are taken to grow by */
#define OTHERS (8 * (uint64_t)BLOCK) /* store.state anew, names in the directory */

/* What is to be written, as far as it has been decided. */
struct need {
    uint64_t segment_max;
    uint64_t n_sealed; /* each is named in the table */
    uint64_t n_names;  /* older ones that the table carries on */
    uint64_t records, bytes;
};

static uint64_t blocks(uint64_t n, uint64_t a_block)
{
    return n / a_block + (n % a_block != 0);
}

/* Never too little, and less than a few blocks an output too much. */
static uint64_t bytes_needed(const struct need *need)
{
    uint64_t outputs = need->records > 0 ? need->bytes / need->segment_max + 1 : 0;
    uint64_t payloads = need->bytes + outputs * BLOCK;
    uint64_t indexes = (blocks(need->records, PLSI_INDEX_A_BLOCK) + 2 * outputs) * BLOCK;
    return payloads + indexes + OTHERS +
           plsi_relocations_bytes((uint32_t)(need->n_sealed + outputs),
                                  need->n_names + need->records);
}

static void add(struct need *need, const struct plsi_victim *victim)
{
    need->records += victim->live_records;
    need->bytes += victim->live_bytes;
}

static uint64_t garbage_of(const struct plsi_victim *victim)
{
    return atomic_load(&victim->segment->bytes) - victim->live_bytes;
}

static bool is_suspect(const struct plsi_victim *victim)
{
    return victim->segment->was_suspect || atomic_load(&victim->segment->suspect);
}

/* A segment stays where too little of it is garbage, unless it is small, and would pile up with
 * others, or suspect. */
static bool worth_rewriting(const struct plsi_rewrite *rw, const struct plsi_victim *victim)
{
    uint64_t bytes = atomic_load(&victim->segment->bytes);
    return bytes < rw->store->dir->options.segment_max_bytes / 4 || is_suspect(victim) ||
           (double)garbage_of(victim) * 100 >=
               (double)bytes * rw->compact->options.min_garbage_percent;
}

/* -- what fits --------------------------------------------------------------------------------- */

static int by_garbage_descending(const void *a, const void *b)
{
    const struct plsi_victim *const *x = a, *const *y = b;
    uint64_t left = garbage_of(*x), right = garbage_of(*y);
    if (left != right) {
        return left > right ? -1 : 1;
    }
    return ((*x)->id > (*y)->id) - ((*x)->id < (*y)->id);
}

/* Of use even where the disk is short of room; anything else may stay then, and calling again would
 * change nothing about it. */
static bool gives_back(const struct plsi_victim *victim)
{
    return garbage_of(victim) > 0 || is_suspect(victim);
}

/* Lets stay what does not fit. */
static enum pls_code choose(struct plsi_rewrite *rw, struct need need, uint64_t room)
{
    struct pls_compact *compact = rw->compact;
    struct plsi_victim **order = calloc(compact->n_victims + 1, sizeof(struct plsi_victim *));
    if (order == NULL) {
        return plsi_fail(rw->error, PLS_NO_MEMORY, "out of memory");
    }
    size_t n = 0;
    for (size_t i = 0; i < compact->n_victims; i++) {
        if (!compact->victims[i].keep && compact->victims[i].live_records > 0) {
            order[n++] = &compact->victims[i];
        }
    }
    qsort(order, n, sizeof(struct plsi_victim *), by_garbage_descending);
    for (size_t i = 0; i < n; i++) {
        struct need with = need;
        add(&with, order[i]);
        if (gives_back(order[i]) && bytes_needed(&with) <= room) {
            need = with;
        } else {
            order[i]->keep = true;
            compact->summary.short_of_room |= gives_back(order[i]);
        }
    }
    free(order);
    return PLS_OK;
}

static enum pls_code fit(struct plsi_rewrite *rw)
{
    struct pls_compact *compact = rw->compact;
    pls_dir *dir = rw->store->dir;
    struct plsi_space space;
    struct need need = {.segment_max = dir->options.segment_max_bytes,
                        .n_sealed = compact->n_victims,
                        .n_names = plsi_names_forwarded(compact)};
    if (dir->root->ops->space(dir->root, &space) != PLS_OK) {
        return PLS_OK; /* the writes will tell */
    }
    struct need all = need;
    for (size_t i = 0; i < compact->n_victims; i++) {
        if (!compact->victims[i].keep) {
            add(&all, &compact->victims[i]);
        }
    }
    if (bytes_needed(&all) <= space.free) {
        return PLS_OK;
    }
    if (bytes_needed(&need) > space.free) {
        return plsi_fail(rw->error, PLS_NO_SPACE,
                         "the disk has %" PRIu64
                         " bytes free, the relocation table alone needs %" PRIu64
                         "; nothing was changed",
                         space.free, bytes_needed(&need));
    }
    return choose(rw, need, space.free);
}

/* -- the plan ---------------------------------------------------------------------------------- */

enum pls_code plsi_plan(struct plsi_rewrite *rw)
{
    struct pls_compact *compact = rw->compact;
    if (compact->options.check_expected_live &&
        compact->options.expected_live != compact->n_given) {
        return plsi_fail(rw->error, PLS_EXPECTED_LIVE_DIFFERS,
                         "%" PRIu64 " live refs were given, %" PRIu64 " expected", compact->n_given,
                         compact->options.expected_live);
    }
    enum pls_code code = plsi_carry(compact, rw->error);
    if (code != PLS_OK) {
        return code;
    }
    for (size_t i = 0; i < compact->n_victims; i++) {
        struct plsi_victim *victim = &compact->victims[i];
        victim->keep = victim->keep || (victim->live_records > 0 && !worth_rewriting(rw, victim));
    }
    code = fit(rw);
    for (size_t i = 0; i < compact->n_victims && code == PLS_OK; i++) {
        if (!compact->victims[i].keep) {
            rw->progress.records_total += compact->victims[i].live_records;
            rw->progress.bytes_total += compact->victims[i].live_bytes;
        }
    }
    return code;
}
