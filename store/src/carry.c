/*
 * carry_recent_ms: what was appended shortly before the Seal is carried over, live or not, since
 * its caller may hear of it only after the live refs were listed.
 *
 * A carried record is copied and forwarded as a live one is, but was not given: it is in no map. It
 * keeps the moment at which it was first appended, and so is carried until it is old, or given.
 */
#include <inttypes.h>

#include "ages.h"
#include "bits.h"
#include "clock.h"
#include "compact.h"
#include "error.h"
#include "log.h"
#include "store.h"

/* What is recent: the ages of the seal, and the moment before which nothing is. */
struct recent {
    struct plsi_runs ages;
    int64_t oldest;
};

/* Of a run's number; where there is none nothing is known. */
static bool is_recent_run(const struct recent *recent, size_t run)
{
    return run >= recent->ages.n || recent->ages.at[run].ms >= recent->oldest;
}

static bool is_recent(const struct recent *recent, uint32_t file, uint64_t offset)
{
    return is_recent_run(recent, plsi_runs_find(&recent->ages, file, offset));
}

/* The first record that begins at `offset` or behind it; n_records where there is none. */
static enum pls_code record_from(struct plsi_cursor *entries, uint64_t n_records, uint64_t offset,
                                 uint64_t *i)
{
    uint64_t high = n_records;
    enum pls_code code = PLS_OK;
    *i = 0;
    while (*i < high && code == PLS_OK) {
        struct plsi_entry entry;
        uint64_t middle = *i + (high - *i) / 2;
        code = plsi_cursor_get(entries, middle, &entry);
        if (code == PLS_OK && entry.offset < offset) {
            *i = middle + 1;
        } else {
            high = middle;
        }
    }
    return code;
}

/* True also where nobody can tell now: whoever follows the name will see. */
static bool is_record(const struct plsi_victim *victim, uint64_t offset)
{
    struct plsi_found found;
    enum pls_code code;
    plsi_index_find(victim->segment->index, offset, PLSI_MAY_WAIT, &found, &code);
    return code != PLS_NO_RECORD;
}

/* -- records ----------------------------------------------------------------------------------- */

static enum pls_code carry_records(struct plsi_victim *victim, struct plsi_cursor *entries,
                                   uint64_t first, uint64_t last)
{
    enum pls_code code = PLS_OK;
    for (uint64_t i = first; i < last && code == PLS_OK; i++) {
        struct plsi_entry entry;
        if (plsi_bit(victim->live, i)) {
            continue;
        }
        code = plsi_cursor_get(entries, i, &entry);
        if (code == PLS_OK) {
            plsi_bit_set(victim->live, i);
            plsi_bit_set(victim->carried, i);
            victim->carried_records++;
            victim->live_records++;
            victim->live_bytes += plsi_record_bytes(entry.length);
        }
    }
    return code;
}

/* Bytes behind the last whole record may be records by refs that nobody has heard of yet. */
static void carry_tail(const pls_store *store, const struct recent *recent,
                       struct plsi_victim *victim)
{
    uint64_t end = atomic_load(&victim->segment->end);
    if (end < atomic_load(&victim->segment->bytes) && is_recent(recent, victim->id, end)) {
        victim->keep = true;
        plsi_log(store->dir, PLS_LOG_INFO, store->name, "recent_tail",
                 "segment %" PRIu32 " stays: nobody knows what its last bytes are, and they may be "
                 "recent",
                 victim->id);
    }
}

static enum pls_code carry_runs(const struct recent *recent, struct plsi_victim *victim,
                                struct plsi_cursor *entries)
{
    const struct plsi_runs *ages = &recent->ages;
    enum pls_code code = PLS_OK;
    uint64_t first = 0;
    size_t run = plsi_runs_find(ages, victim->id, 0);
    while (first < victim->n_records && code == PLS_OK) {
        size_t next = run < ages->n ? run + 1 : 0;
        uint64_t last = victim->n_records;
        if (next < ages->n && ages->at[next].file == victim->id) {
            code = record_from(entries, victim->n_records, ages->at[next].offset, &last);
        }
        if (code == PLS_OK && is_recent_run(recent, run)) {
            code = carry_records(victim, entries, first, last);
        }
        first = last;
        run = next;
    }
    return code;
}

/* NO_MEMORY. Where the index does not say what is recent, the segment stays. */
static enum pls_code carry_victim(const pls_store *store, const struct recent *recent,
                                  struct plsi_victim *victim)
{
    struct plsi_cursor entries;
    victim->carried = plsi_bits_create(victim->n_records);
    if (victim->carried == NULL) {
        return PLS_NO_MEMORY;
    }
    plsi_cursor_init(&entries, victim->segment->index);
    enum pls_code code = carry_runs(recent, victim, &entries);
    plsi_cursor_fini(&entries);
    if (code == PLS_NO_MEMORY) {
        return code;
    }
    if (code != PLS_OK) {
        victim->keep = true;
        plsi_log(store->dir, PLS_LOG_WARNING, store->name, "damaged",
                 "segment %" PRIu32 " stays: its index does not say which records are recent",
                 victim->id);
    }
    carry_tail(store, recent, victim);
    return PLS_OK;
}

/* -- older names ------------------------------------------------------------------------------- */

/* What lies beyond the seal is not looked at, and stays as it is. */
static bool is_name_carried(struct pls_compact *compact, const struct recent *recent,
                            const struct plsi_moved *name)
{
    struct plsi_victim *victim = plsi_victim_of(compact, name->new_file);
    if (victim != NULL) {
        return is_recent(recent, name->new_file, name->new_offset) &&
               (victim->keep || is_record(victim, name->new_offset));
    }
    struct plsi_segment *later = plsi_table_find(&compact->store->table, name->new_file);
    plsi_segment_release(later);
    return later != NULL;
}

/* A block that is damaged holds no name that reads. One that the disk does not read now may. */
static enum pls_code carry_names(struct pls_compact *compact, const struct recent *recent,
                                 struct pls_error *error)
{
    if (compact->standing == NULL) {
        return PLS_OK;
    }
    compact->standing_carried = plsi_bits_create(compact->standing->n_entries);
    if (compact->standing_carried == NULL) {
        return plsi_fail(error, PLS_NO_MEMORY, "out of memory");
    }
    struct plsi_table_cursor cursor;
    struct plsi_moved name;
    enum pls_code code;
    plsi_table_cursor_init(&cursor, compact->standing);
    do {
        while (plsi_table_cursor_next(&cursor, &name, &code)) {
            uint64_t i = cursor.next - 1;
            if (!plsi_bit(compact->standing_given, i) && is_name_carried(compact, recent, &name)) {
                plsi_bit_set(compact->standing_carried, i);
            }
        }
        if (code == PLS_DAMAGED) {
            plsi_log(compact->store->dir, PLS_LOG_WARNING, compact->store->name, "damaged",
                     "the relocation table is, around entry %" PRIu64, cursor.next);
            plsi_table_cursor_skip(&cursor);
        }
    } while (code == PLS_DAMAGED);
    return code == PLS_OK ? PLS_OK
                          : plsi_fail(error, PLS_IO, "the relocation table cannot be read");
}

enum pls_code plsi_carry(struct pls_compact *compact, struct pls_error *error)
{
    uint64_t within = compact->options.carry_recent_ms;
    if (within == 0) {
        return PLS_OK;
    }
    struct recent recent = {.oldest = within < INT64_MAX ? -(int64_t)within : -INT64_MAX};
    plsi_ages_read(compact->store, compact->seal.sealed_id, compact->standing, &recent.ages);
    enum pls_code code = PLS_OK;
    for (size_t i = 0; i < compact->n_victims && code == PLS_OK; i++) {
        if (carry_victim(compact->store, &recent, &compact->victims[i]) != PLS_OK) {
            code = plsi_fail(error, PLS_NO_MEMORY, "out of memory");
        }
    }
    if (code == PLS_OK) {
        code = carry_names(compact, &recent, error);
    }
    plsi_runs_fini(&recent.ages);
    return code;
}

/* -- the moments of what was moved ------------------------------------------------------------- */

/* The records first..last-1 of those moved, counted over all outputs, were appended at `ms`. */
static enum pls_code date_moved(struct pls_compact *compact, uint64_t first, uint64_t last,
                                int64_t ms)
{
    enum pls_code code = PLS_OK;
    for (size_t k = 0; k < compact->n_outputs && code == PLS_OK; k++) {
        struct plsi_output *output = &compact->outputs[k];
        uint64_t end = output->first_rank + plsi_index_count(output->segment->index);
        uint64_t from = first > output->first_rank ? first : output->first_rank;
        struct plsi_entry entry;
        if (from >= last || from >= end) {
            continue;
        }
        code = plsi_cursor_get(&output->cursor, from - output->first_rank, &entry);
        if (code == PLS_OK &&
            !plsi_runs_add(&output->segment->recent.runs, output->id, entry.offset, ms)) {
            code = PLS_NO_MEMORY;
        }
    }
    return code;
}

/* What is undated has been seen by one compaction now, and is not recent any more. */
static enum pls_code date_victim(struct pls_compact *compact, const struct plsi_victim *victim)
{
    const struct plsi_runs *runs = &victim->segment->recent.runs;
    struct plsi_cursor entries;
    int64_t ms = PLSI_NOT_RECENT;
    uint64_t first = plsi_rank(victim, 0);
    enum pls_code code = PLS_OK;
    plsi_cursor_init(&entries, victim->segment->index);
    for (size_t i = 0; i <= runs->n && code == PLS_OK; i++) {
        uint64_t end = victim->n_records;
        if (i < runs->n) {
            code = record_from(&entries, victim->n_records, runs->at[i].offset, &end);
        }
        uint64_t last = plsi_rank(victim, end);
        if (code == PLS_OK && first < last) {
            code = date_moved(compact, first, last, ms);
        }
        first = last;
        ms = i < runs->n ? runs->at[i].ms : ms;
    }
    plsi_cursor_fini(&entries);
    return code;
}

enum pls_code plsi_carry_moments(struct pls_compact *compact)
{
    enum pls_code code = PLS_OK;
    for (size_t i = 0; i < compact->n_victims && code == PLS_OK; i++) {
        const struct plsi_victim *victim = &compact->victims[i];
        code = victim->keep ? PLS_OK : date_victim(compact, victim);
    }
    for (size_t k = 0; k < compact->n_outputs; k++) {
        struct plsi_recent *recent = &compact->outputs[k].segment->recent;
        recent->end = atomic_load(&compact->outputs[k].segment->end);
        plsi_runs_thin(&recent->runs, PLSI_RECENT_MAX, plsi_now_ms());
    }
    return code;
}
