/*
 * A compaction's result. The map is not kept anywhere: the live records in file order, and the
 * entries of the outputs in the order in which they were written, are its two sides.
 */
#include "compact.h"
#include "store.h"

uint64_t plsi_victim_next(const struct plsi_victim *victim, uint64_t i)
{
    while (i < victim->n_records) {
        uint64_t word = victim->live[i / 64] >> (i % 64);
        if (word != 0) {
            return i + (uint64_t)__builtin_ctzll(word);
        }
        i = (i / 64 + 1) * 64;
    }
    return victim->n_records;
}

void pls_compact_summary(const pls_compact *compact, struct pls_compact_summary *summary)
{
    *summary = compact->summary;
}

/* The next live record that was moved; false at the end. */
static bool next_moved(struct pls_compact *compact, const struct plsi_victim **victim, uint64_t *i)
{
    for (; compact->map_victim < compact->n_victims; compact->map_victim++) {
        *victim = &compact->victims[compact->map_victim];
        *i =
            (*victim)->keep ? (*victim)->n_records : plsi_victim_next(*victim, compact->map_record);
        if (*i < (*victim)->n_records) {
            compact->map_record = *i + 1;
            return true;
        }
        compact->map_record = 0;
    }
    return false;
}

/* The next output entry; there is one for each record that was moved. */
static struct pls_ref next_written(struct pls_compact *compact)
{
    while (compact->map_entry >= plsi_index_count(compact->outputs[compact->map_output].index)) {
        compact->map_output++;
        compact->map_entry = 0;
    }
    const struct plsi_output *output = &compact->outputs[compact->map_output];
    const struct plsi_entry *entry = plsi_index_at(output->index, compact->map_entry++);
    return (struct pls_ref){.file_id = output->id,
                            .offset = entry->offset,
                            .length = entry->length,
                            .crc32c = entry->crc32c};
}

size_t pls_compact_next_map(pls_compact *compact, struct pls_relocation *map, size_t max)
{
    if (!compact->committed) {
        return 0;
    }
    size_t n = 0;
    const struct plsi_victim *victim;
    uint64_t i;
    while (n < max && next_moved(compact, &victim, &i)) {
        struct pls_ref new_ref = next_written(compact);
        map[n].new_ref = new_ref;
        map[n].old_ref = (struct pls_ref){.file_id = victim->id,
                                          .offset = plsi_index_at(victim->index, i)->offset,
                                          .length = new_ref.length,
                                          .crc32c = new_ref.crc32c};
        n++;
    }
    return n;
}

size_t pls_compact_next_damaged(pls_compact *compact, struct pls_damaged *damaged, size_t max)
{
    size_t n = 0;
    while (n < max && compact->next_damaged < compact->n_damaged) {
        damaged[n++] = compact->damaged[compact->next_damaged++];
    }
    return n;
}
