/*
 * A compaction's map: written as the relocation table, in two sorted streams merged by old name,
 * and read off it for the answer.
 *
 * The one stream are the records that were moved, in file order; the entries of the outputs, in the
 * order in which they were written, are where they lie now. The other are the older names that were
 * given, or are carried over: each is forwarded to where its record lies after this compaction. Any
 * other name is forwarded no longer.
 */
#include <stdlib.h>

#include "bits.h"
#include "compact.h"
#include "error.h"
#include "store.h"

/* -- records by rank --------------------------------------------------------------------------- */

/* The first bit set from number i on; n where there is none. */
static uint64_t next_set(const uint64_t *bits, uint64_t i, uint64_t n)
{
    while (i < n) {
        uint64_t word = bits[i / 64] >> (i % 64);
        if (word != 0) {
            return i + (uint64_t)__builtin_ctzll(word);
        }
        i = (i / 64 + 1) * 64;
    }
    return n;
}

uint64_t plsi_victim_next(const struct plsi_victim *victim, uint64_t i)
{
    return next_set(victim->live, i, victim->n_records);
}

static uint64_t count_live(const struct plsi_victim *victim, uint64_t from, uint64_t to)
{
    uint64_t n = 0;
    for (uint64_t word = from / 64; word < to / 64; word++) {
        n += (uint64_t)__builtin_popcountll(victim->live[word]);
    }
    if (to % 64 != 0) {
        n += (uint64_t)__builtin_popcountll(victim->live[to / 64] & ((1ull << (to % 64)) - 1));
    }
    return n;
}

uint64_t plsi_names_forwarded(const struct pls_compact *compact)
{
    uint64_t n = 0;
    for (uint64_t i = 0; compact->standing != NULL && i < compact->standing->n_entries; i += 64) {
        uint64_t carried =
            compact->standing_carried != NULL ? compact->standing_carried[i / 64] : 0;
        n += (uint64_t)__builtin_popcountll(compact->standing_given[i / 64] | carried);
    }
    return n;
}

static enum pls_code rank_victim(struct plsi_victim *victim, uint64_t *rank)
{
    uint64_t n = victim->n_records / PLSI_RANK_RECORDS + 1;
    victim->first_rank = *rank;
    victim->ranks = malloc(n * sizeof *victim->ranks);
    if (victim->ranks == NULL) {
        return PLS_NO_MEMORY;
    }
    for (uint64_t i = 0; i < n; i++) {
        uint64_t from = i * PLSI_RANK_RECORDS;
        uint64_t to = from + PLSI_RANK_RECORDS;
        victim->ranks[i] = *rank;
        *rank += count_live(victim, from, to < victim->n_records ? to : victim->n_records);
    }
    return PLS_OK;
}

enum pls_code plsi_rank_records(struct pls_compact *compact)
{
    uint64_t rank = 0;
    for (size_t i = 0; i < compact->n_outputs; i++) {
        compact->outputs[i].first_rank = rank;
        rank += plsi_index_count(compact->outputs[i].segment->index);
    }
    rank = 0;
    for (size_t i = 0; i < compact->n_victims; i++) {
        struct plsi_victim *victim = &compact->victims[i];
        if (!victim->keep && rank_victim(victim, &rank) != PLS_OK) {
            return PLS_NO_MEMORY;
        }
    }
    return PLS_OK;
}

static struct plsi_output *output_of(struct pls_compact *compact, uint64_t rank)
{
    size_t low = 0, high = compact->n_outputs;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (compact->outputs[middle].first_rank <= rank) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return &compact->outputs[low];
}

uint64_t plsi_rank(const struct plsi_victim *victim, uint64_t i)
{
    uint64_t from = i / PLSI_RANK_RECORDS * PLSI_RANK_RECORDS;
    return victim->ranks[i / PLSI_RANK_RECORDS] + count_live(victim, from, i);
}

enum pls_code plsi_new_place(struct pls_compact *compact, const struct plsi_victim *victim,
                             uint64_t i, struct pls_ref *place)
{
    uint64_t rank = plsi_rank(victim, i);
    struct plsi_output *output = output_of(compact, rank);
    struct plsi_entry entry;
    enum pls_code code = plsi_cursor_get(&output->cursor, rank - output->first_rank, &entry);
    if (code == PLS_OK) {
        *place = (struct pls_ref){.file_id = output->id,
                                  .offset = entry.offset,
                                  .length = entry.length,
                                  .crc32c = entry.crc32c};
    }
    return code;
}

/* -- the two streams --------------------------------------------------------------------------- */

struct streams {
    struct pls_compact *compact;
    struct plsi_table_cursor cursor; /* over the standing table */
    size_t victim;                   /* whose records come next */
    uint64_t record;                 /* from this one on */
    struct plsi_cursor entries;      /* over its index */
    struct plsi_moved old_name, moved;
    bool has_old_name, has_moved;
};

/* By its own name. */
static bool is_given(const struct plsi_victim *victim, uint64_t i)
{
    bool carried = victim->carried != NULL && plsi_bit(victim->carried, i);
    return !carried && (victim->given == NULL || plsi_bit(victim->given, i));
}

static void set_place(struct plsi_moved *moved, const struct pls_ref *place)
{
    moved->new_file = place->file_id;
    moved->new_offset = place->offset;
    moved->length = place->length;
    moved->crc32c = place->crc32c;
}

/* A record that lay in a rewritten segment has gone on; any other lies where it lay. */
static enum pls_code follow_record(struct pls_compact *compact, struct plsi_moved *name)
{
    struct plsi_victim *victim = plsi_victim_of(compact, name->new_file);
    struct plsi_found found;
    struct pls_ref place;
    enum pls_code code;
    if (victim == NULL || victim->keep) {
        return PLS_OK;
    }
    plsi_index_find(victim->segment->index, name->new_offset, PLSI_MAY_WAIT, &found, &code);
    if (code == PLS_NO_RECORD) {
        return PLS_OK;
    }
    code = code == PLS_OK ? plsi_new_place(compact, victim, found.i, &place) : code;
    if (code == PLS_OK) {
        set_place(name, &place);
    }
    return code;
}

/* The next older name to forward. A block without any is not read: it may be damaged. */
static bool next_forwarded(struct pls_compact *compact, struct plsi_table_cursor *cursor,
                           struct plsi_moved *name, enum pls_code *code)
{
    *code = PLS_OK;
    if (compact->standing == NULL) {
        return false;
    }
    uint64_t n = compact->standing->n_entries;
    uint64_t next = next_set(compact->standing_given, cursor->next, n);
    if (compact->standing_carried != NULL) {
        uint64_t carried = next_set(compact->standing_carried, cursor->next, n);
        next = carried < next ? carried : next;
    }
    cursor->next = next;
    bool there = plsi_table_cursor_next(cursor, name, code);
    *code = *code == PLS_IO ? PLS_DAMAGED : *code;
    return there;
}

static enum pls_code next_old_name(struct streams *streams)
{
    enum pls_code code;
    streams->has_old_name =
        next_forwarded(streams->compact, &streams->cursor, &streams->old_name, &code);
    if (streams->has_old_name) {
        code = follow_record(streams->compact, &streams->old_name);
        streams->old_name.given =
            plsi_bit(streams->compact->standing_given, streams->cursor.next - 1);
    }
    return code;
}

/* The record number i of the victim whose turn it is, as it has moved. */
static enum pls_code describe_moved(struct streams *streams, const struct plsi_victim *victim,
                                    uint64_t i)
{
    struct plsi_entry entry;
    struct pls_ref place;
    enum pls_code code = plsi_cursor_get(&streams->entries, i, &entry);
    if (code == PLS_OK) {
        code = plsi_new_place(streams->compact, victim, i, &place);
    }
    if (code == PLS_OK) {
        streams->moved = (struct plsi_moved){
            .old_file = victim->id, .old_offset = entry.offset, .given = is_given(victim, i)};
        set_place(&streams->moved, &place);
    }
    return code;
}

static enum pls_code next_moved(struct streams *streams)
{
    struct pls_compact *compact = streams->compact;
    streams->has_moved = false;
    for (; streams->victim < compact->n_victims; streams->victim++, streams->record = 0) {
        const struct plsi_victim *victim = &compact->victims[streams->victim];
        uint64_t i = victim->keep ? victim->n_records : plsi_victim_next(victim, streams->record);
        if (i < victim->n_records) {
            if (streams->entries.index != victim->segment->index) {
                plsi_cursor_fini(&streams->entries);
                plsi_cursor_init(&streams->entries, victim->segment->index);
            }
            streams->record = i + 1;
            streams->has_moved = true;
            return describe_moved(streams, victim, i);
        }
    }
    return PLS_OK;
}

static bool old_name_is_first(const struct streams *streams)
{
    const struct plsi_moved *a = &streams->old_name, *b = &streams->moved;
    if (!streams->has_old_name || !streams->has_moved) {
        return streams->has_old_name;
    }
    return a->old_file != b->old_file ? a->old_file < b->old_file : a->old_offset < b->old_offset;
}

static enum pls_code write_entries(struct pls_compact *compact, struct plsi_table_writer *writer,
                                   struct pls_error *error)
{
    struct streams streams = {.compact = compact};
    plsi_table_cursor_init(&streams.cursor, compact->standing);
    enum pls_code code = next_old_name(&streams);
    if (code == PLS_OK) {
        code = next_moved(&streams);
    }
    while (code == PLS_OK && (streams.has_old_name || streams.has_moved)) {
        bool old = old_name_is_first(&streams);
        code = plsi_table_writer_add(writer, old ? &streams.old_name : &streams.moved, error);
        if (code == PLS_OK) {
            code = old ? next_old_name(&streams) : next_moved(&streams);
        }
    }
    plsi_cursor_fini(&streams.entries);
    if (code == PLS_DAMAGED) {
        return plsi_fail(error, PLS_IO, "the last relocation table or an index cannot be read");
    }
    return code == PLS_NO_MEMORY ? plsi_fail(error, code, "out of memory") : code;
}

/* -- the table --------------------------------------------------------------------------------- */

/* By id: outputs lie above the seal. */
static struct plsi_table_segment *list_segments(const struct pls_compact *compact)
{
    struct plsi_table_segment *list =
        calloc(compact->n_outputs + compact->n_victims + 1, sizeof *list);
    size_t n = 0;
    for (size_t i = 0; list != NULL && i < compact->n_victims; i++) {
        const struct plsi_victim *victim = &compact->victims[i];
        list[n++] = (struct plsi_table_segment){victim->id,
                                                victim->keep ? PLSI_ROLE_KEPT : PLSI_ROLE_SOURCE,
                                                atomic_load(&victim->segment->bytes)};
    }
    for (size_t i = 0; list != NULL && i < compact->n_outputs; i++) {
        const struct plsi_output *output = &compact->outputs[i];
        list[n++] = (struct plsi_table_segment){output->id, PLSI_ROLE_OUTPUT,
                                                atomic_load(&output->segment->bytes)};
    }
    return list;
}

enum pls_code plsi_write_table(struct pls_compact *compact, struct plsi_backend *backend,
                               struct pls_error *error)
{
    if (plsi_rank_records(compact) != PLS_OK) {
        return plsi_fail(error, PLS_NO_MEMORY, "out of memory");
    }
    struct plsi_table_writer *writer = malloc(sizeof *writer);
    if (writer == NULL) {
        return plsi_fail(error, PLS_NO_MEMORY, "out of memory");
    }
    enum pls_code code = plsi_table_writer_begin(
        writer, backend, &compact->store->dir->blocks, &compact->seal, list_segments(compact),
        (uint32_t)(compact->n_outputs + compact->n_victims), error);
    if (code == PLS_OK) {
        code = write_entries(compact, writer, error);
        if (code == PLS_OK) {
            code = plsi_table_writer_end(writer, &compact->summary, &compact->result, error);
        }
        if (code != PLS_OK) {
            plsi_table_writer_abandon(writer);
        }
    }
    free(writer);
    return code;
}

/* -- damaged records --------------------------------------------------------------------------- */

void plsi_given_name(struct pls_compact *compact, struct pls_ref *ref)
{
    struct plsi_table_cursor cursor;
    struct plsi_moved name;
    enum pls_code code;
    plsi_table_cursor_init(&cursor, compact->standing);
    while (next_forwarded(compact, &cursor, &name, &code)) {
        if (name.new_file == ref->file_id && name.new_offset == ref->offset &&
            plsi_bit(compact->standing_given, cursor.next - 1)) {
            ref->file_id = name.old_file;
            ref->offset = name.old_offset;
            return;
        }
    }
}

/* -- the answer -------------------------------------------------------------------------------- */

void pls_compact_summary(const pls_compact *compact, struct pls_compact_summary *summary)
{
    *summary = compact->summary;
}

enum pls_code pls_compact_next_map(pls_compact *compact, struct pls_relocation *map, size_t max,
                                   size_t *n)
{
    struct plsi_moved moved;
    enum pls_code code = PLS_OK;
    *n = 0;
    compact->cursor.table = compact->result; /* NULL in a dry run: an end at once */
    while (*n < max && plsi_table_cursor_next(&compact->cursor, &moved, &code)) {
        if (moved.given) {
            map[*n].new_ref = plsi_moved_to(&moved);
            map[*n].old_ref = (struct pls_ref){.file_id = moved.old_file,
                                               .offset = moved.old_offset,
                                               .length = moved.length,
                                               .crc32c = moved.crc32c};
            ++*n;
        }
    }
    return code == PLS_IO ? PLS_DAMAGED : code;
}

size_t pls_compact_next_damaged(pls_compact *compact, struct pls_damaged *damaged, size_t max)
{
    size_t n = 0;
    while (n < max && compact->next_damaged < compact->n_damaged) {
        damaged[n++] = compact->damaged[compact->next_damaged++];
    }
    return n;
}
