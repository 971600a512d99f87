/*
 * Compaction, second part: the live records are rewritten in file order, into outputs under
 * temporary names.
 *
 * Neighbouring live records are read together into one buffer, checked there (check.c), and written
 * together; a record larger than the buffer goes through it in pieces.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "check.h"
#include "clock.h"
#include "compact.h"
#include "error.h"
#include "log.h"
#include "store.h"

#define PROGRESS_MS 250

/* Where the outputs stood before a victim, to go back to. */
struct checkpoint {
    size_t n_outputs;
    uint64_t end, entries;
};

/* -- writing ----------------------------------------------------------------------------------- */

/* The seal's own id first, then the next free ones. */
static enum pls_code take_id(struct plsi_rewrite *rw, uint32_t *id)
{
    pls_store *store = rw->store;
    enum pls_code code = PLS_OK;
    pthread_mutex_lock(&store->admin);
    struct plsi_segment *there = plsi_table_find(&store->table, rw->compact->seal.compaction_id);
    if (rw->compact->n_outputs == 0 && there == NULL) {
        *id = rw->compact->seal.compaction_id;
    } else if (store->next_id > UINT32_MAX) {
        code = PLS_IDS_USED_UP;
    } else {
        *id = (uint32_t)store->next_id++;
    }
    plsi_segment_release(there);
    pthread_mutex_unlock(&store->admin);
    return code;
}

static enum pls_code add_output(struct pls_compact *compact, struct plsi_segment *segment)
{
    if (compact->n_outputs == compact->room_outputs) {
        size_t room = compact->room_outputs * 2 + 4;
        struct plsi_output *outputs = realloc(compact->outputs, room * sizeof *outputs);
        if (outputs == NULL) {
            return PLS_NO_MEMORY;
        }
        compact->outputs = outputs;
        compact->room_outputs = room;
    }
    compact->outputs[compact->n_outputs++] = (struct plsi_output){
        .id = segment->id, .segment = segment, .index = plsi_index_hold(segment->index)};
    return PLS_OK;
}

static enum pls_code start_output(struct plsi_rewrite *rw)
{
    const struct plsi_backend_ops *ops = rw->store->backend->ops;
    uint32_t id;
    enum pls_code code = take_id(rw, &id);
    if (code != PLS_OK) {
        return plsi_fail(rw->error, code, "%s", pls_strerror(code));
    }
    char name[PLSI_FILE_NAME];
    plsi_output_name(id, name);
    struct plsi_blob *blob;
    ops->remove(rw->store->backend, name, NULL); /* of an earlier try that could not clear up */
    code = ops->create(rw->store->backend, name, &blob, rw->error);
    if (code != PLS_OK) {
        return code;
    }
    struct plsi_segment *segment = plsi_segment_create(id, blob);
    code = segment != NULL ? add_output(rw->compact, segment) : PLS_NO_MEMORY;
    if (code != PLS_OK) {
        plsi_segment_release(segment);
        ops->remove(rw->store->backend, name, NULL);
        return plsi_fail(rw->error, code, "out of memory");
    }
    return PLS_OK;
}

static struct plsi_output *last_output(const struct pls_compact *compact)
{
    return compact->n_outputs > 0 ? &compact->outputs[compact->n_outputs - 1] : NULL;
}

/* The output that takes the next record: rotation is checked before a record is written, as for
 * appends. */
static enum pls_code output_for_record(struct plsi_rewrite *rw, struct plsi_segment **segment)
{
    struct plsi_output *last = last_output(rw->compact);
    if (last == NULL ||
        atomic_load(&last->segment->end) > rw->store->dir->options.segment_max_bytes) {
        enum pls_code code = start_output(rw);
        if (code != PLS_OK) {
            return code;
        }
        last = last_output(rw->compact);
    }
    *segment = last->segment;
    return PLS_OK;
}

/* Bytes behind the end of an output; its entries are added by the caller. */
static enum pls_code write_bytes(struct plsi_rewrite *rw, struct plsi_segment *segment, void *data,
                                 size_t length)
{
    uint64_t end = atomic_load(&segment->end);
    enum pls_code code = plsi_append_and_wait(segment->blob, end, data, length);
    if (code != PLS_OK) {
        return plsi_fail(rw->error, code, "writing output %" PRIu32 ": %s", segment->id,
                         pls_strerror(code));
    }
    atomic_store(&segment->bytes, end + length);
    atomic_store(&segment->end, end + length);
    return PLS_OK;
}

static enum pls_code add_entry(struct plsi_rewrite *rw, struct plsi_segment *segment,
                               uint64_t offset, uint32_t length, uint32_t crc32c)
{
    if (plsi_index_reserve(segment->index, 1) != PLS_OK) {
        return plsi_fail(rw->error, PLS_NO_MEMORY, "out of memory");
    }
    plsi_index_add(segment->index,
                   &(struct plsi_entry){.offset = offset, .length = length, .crc32c = crc32c});
    return PLS_OK;
}

/* -- a run of neighbouring records, together no larger than the buffer ---------------------------
 */

/* Ends the rewriting, or, where damage is reported and lived with, lets the victim stay and the
 * rest be checked. */
static enum pls_code damaged(void *arg, uint64_t i)
{
    struct plsi_rewrite *rw = arg;
    struct pls_ref ref = plsi_check_ref(&rw->check, i);
    bool by_name = rw->victim->given == NULL || (rw->victim->given[i / 64] >> (i % 64) & 1) != 0;
    if (!by_name) {
        plsi_given_name(rw->compact, &ref);
    }
    rw->victim->keep = true;
    rw->check_only = true;
    return plsi_compact_unreadable(rw->compact, &ref, PLS_LIVE_DAMAGED, rw->error);
}

/* The checksum of a record that has been checked: computed once more only where the index had none.
 */
static uint32_t checked_crc(const struct plsi_rewrite *rw, uint64_t i, size_t at)
{
    return i < rw->victim->index->n_walked ? plsi_check_crc(&rw->check, i, at)
                                           : plsi_index_at(rw->victim->index, i)->crc32c;
}

/* Writes the records first..last-1 that lie in the buffer, as few writes as rotation allows. */
static enum pls_code write_run(struct plsi_rewrite *rw, uint64_t first, uint64_t last)
{
    uint64_t limit = rw->store->dir->options.segment_max_bytes;
    size_t written = 0;
    uint64_t i = first;
    while (i < last) {
        struct plsi_segment *segment;
        enum pls_code code = output_for_record(rw, &segment);
        uint64_t end = code == PLS_OK ? atomic_load(&segment->end) : 0;
        size_t length = 0;
        while (code == PLS_OK && i < last && end + length <= limit) {
            uint32_t payload = plsi_index_at(rw->victim->index, i)->length;
            uint32_t crc = checked_crc(rw, i, written + length);
            code = add_entry(rw, segment, end + length, payload, crc);
            length += PLSI_PREFIX + (size_t)payload;
            i++;
        }
        if (code == PLS_OK) {
            code = write_bytes(rw, segment, rw->check.buffer + written, length);
        }
        if (code != PLS_OK) {
            return code;
        }
        written += length;
    }
    return PLS_OK;
}

static enum pls_code rewrite_run(struct plsi_rewrite *rw, uint64_t first, uint64_t last,
                                 size_t length)
{
    bool whole;
    enum pls_code code = plsi_check_run(&rw->check, first, last, length, damaged, rw, &whole);
    if (code == PLS_OK && !whole && !rw->check_only) {
        return plsi_fail(rw->error, PLS_IO, "segment %" PRIu32 " reads now so and now so",
                         rw->victim->id);
    }
    return code != PLS_OK || rw->check_only ? code : write_run(rw, first, last);
}

/* -- one record larger than the buffer --------------------------------------------------------- */

static enum pls_code rewrite_large(struct plsi_rewrite *rw, uint64_t i, size_t length)
{
    struct plsi_pieces pieces = {.i = i, .length = length};
    struct plsi_segment *segment = NULL;
    enum pls_code code = rw->check_only ? PLS_OK : output_for_record(rw, &segment);
    uint64_t new_offset = segment != NULL ? atomic_load(&segment->end) : 0;
    size_t part;
    while (code == PLS_OK && (part = plsi_check_piece(&rw->check, &pieces)) > 0) {
        code = segment != NULL ? write_bytes(rw, segment, rw->check.buffer, part) : PLS_OK;
    }
    if (code == PLS_OK && !plsi_check_pieces_intact(&rw->check, &pieces)) {
        return damaged(rw, i); /* what was written of it the victim's checkpoint takes away */
    }
    return code == PLS_OK && segment != NULL
               ? add_entry(rw, segment, new_offset, plsi_index_at(rw->victim->index, i)->length,
                           pieces.crc)
               : code;
}

/* -- a victim ---------------------------------------------------------------------------------- */

enum pls_code plsi_rewrite_interrupted(struct plsi_rewrite *rw)
{
    if (atomic_load(&rw->compact->cancelled)) {
        return plsi_compact_cancelled(rw->compact, rw->error);
    }
    return plsi_store_check_writer(rw->store, rw->compact->options.epoch, rw->error);
}

static void report(struct plsi_rewrite *rw, uint64_t records, uint64_t bytes)
{
    rw->progress.records_done += records;
    rw->progress.bytes_done += bytes;
    int64_t now = plsi_now_ms();
    if (rw->report != NULL && now - rw->reported_ms >= PROGRESS_MS) {
        rw->reported_ms = now;
        rw->report(rw->report_arg, &rw->progress);
    }
}

/* From live record `first` on, the end of the neighbours that are live too and fit into the buffer
 * with it. */
static uint64_t run_from(const struct plsi_victim *victim, uint64_t first, size_t *length)
{
    uint64_t i = first;
    *length = 0;
    do {
        size_t record = PLSI_PREFIX + (size_t)plsi_index_at(victim->index, i)->length;
        if (i > first && *length + record > PLSI_CHECK_BYTES) {
            break;
        }
        *length += record;
        i++;
    } while (i < victim->n_records && plsi_victim_next(victim, i) == i);
    return i;
}

static enum pls_code rewrite_records(struct plsi_rewrite *rw)
{
    enum pls_code code = PLS_OK;
    uint64_t last, i = plsi_victim_next(rw->victim, 0);
    while (code == PLS_OK && i < rw->victim->n_records) {
        size_t length;
        last = run_from(rw->victim, i, &length);
        code = plsi_rewrite_interrupted(rw);
        if (code == PLS_OK) {
            code = length > PLSI_CHECK_BYTES ? rewrite_large(rw, i, length)
                                             : rewrite_run(rw, i, last, length);
            report(rw, last - i, length);
        }
        i = plsi_victim_next(rw->victim, last);
    }
    return code;
}

void plsi_rewrite_drop_output(struct plsi_rewrite *rw)
{
    struct plsi_output *output = &rw->compact->outputs[--rw->compact->n_outputs];
    char name[PLSI_FILE_NAME];
    plsi_output_name(output->id, name);
    rw->store->backend->ops->remove(rw->store->backend, name, NULL);
    plsi_segment_release(output->segment);
    plsi_index_release(output->index);
}

static enum pls_code go_back(struct plsi_rewrite *rw, const struct checkpoint *checkpoint)
{
    while (rw->compact->n_outputs > checkpoint->n_outputs) {
        plsi_rewrite_drop_output(rw);
    }
    struct plsi_output *last = last_output(rw->compact);
    if (last == NULL) {
        return PLS_OK;
    }
    struct plsi_blob *blob = last->segment->blob;
    plsi_index_cut(last->index, checkpoint->entries);
    atomic_store(&last->segment->end, checkpoint->end);
    atomic_store(&last->segment->bytes, checkpoint->end);
    enum pls_code code = blob->ops->truncate(blob, checkpoint->end);
    return code == PLS_OK ? PLS_OK
                          : plsi_fail(rw->error, code, "cutting output %" PRIu32, last->id);
}

enum pls_code plsi_rewrite_victim(struct plsi_rewrite *rw, struct plsi_victim *victim)
{
    struct plsi_output *last = last_output(rw->compact);
    struct checkpoint checkpoint = {.n_outputs = rw->compact->n_outputs};
    if (last != NULL) {
        checkpoint.end = atomic_load(&last->segment->end);
        checkpoint.entries = plsi_index_count(last->index);
    }
    rw->victim = victim;
    rw->check.segment = victim->segment;
    rw->check.claimed = victim->claimed;
    rw->check_only = rw->compact->options.dry_run;
    enum pls_code code = rewrite_records(rw);
    if (code == PLS_OK && victim->keep) {
        code = go_back(rw, &checkpoint);
    }
    return code;
}
