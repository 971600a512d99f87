/*
 * Compaction, second part: the live records are rewritten in file order, into outputs under
 * temporary names.
 *
 * Live records that lie close together are read at once into one buffer, checked there (check.c),
 * moved together, and written at once; a record larger than the buffer goes through it in pieces.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "bits.h"
#include "check.h"
#include "clock.h"
#include "compact.h"
#include "error.h"
#include "log.h"
#include "store.h"

#define PROGRESS_MS  250
#define BEHIND_BYTES (UINT64_C(1) << 20) /* written to an output between two pushes to the disk */
#define WAIT_NS      INT64_C(20000000)   /* between two looks at whether to go on */

/* Where the outputs stood before a victim, to go back to. */
struct checkpoint {
    size_t n_outputs;
    uint64_t end, entries;
};

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

/* -- the pace ---------------------------------------------------------------------------------- */

/* When the next piece, of so many bytes, may begin. */
static int64_t next_turn(struct plsi_rewrite *rw, size_t bytes)
{
    pls_dir *dir = rw->store->dir;
    uint64_t rate = dir->options.compaction_max_bytes_per_second;
    int64_t now = plsi_now_ns();
    int64_t rest = plsi_pace_rest(&dir->pace, now - rw->piece_ns, bytes);
    int64_t turn = rate > 0 ? plsi_pace_turn(&dir->pace, rate, bytes) : now;
    rw->resting = rest > 0;
    return turn > now + rest ? turn : now + rest;
}

/* Asked before every read of what is to be copied: waits where there is a pace to keep, and says
 * why the run must end. */
static enum pls_code wait_for_turn(struct plsi_rewrite *rw, size_t bytes)
{
    enum pls_code code = plsi_rewrite_interrupted(rw);
    int64_t turn = code == PLS_OK ? next_turn(rw, bytes) : 0;
    int64_t left;
    while (code == PLS_OK && (left = turn - plsi_now_ns()) > 0) {
        nanosleep(&(struct timespec){.tv_nsec = left < WAIT_NS ? left : WAIT_NS}, NULL);
        report(rw, 0, 0);
        code = plsi_rewrite_interrupted(rw);
    }
    rw->piece_ns = plsi_now_ns();
    return code;
}

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
    struct plsi_output *output = &compact->outputs[compact->n_outputs++];
    *output = (struct plsi_output){.id = segment->id, .segment = segment};
    plsi_cursor_init(&output->cursor, segment->index);
    return PLS_OK;
}

/* In this order: the index of a segment that is not there would be taken for the trace of a lost
 * one. */
static void remove_output(pls_store *store, uint32_t id)
{
    char name[PLSI_FILE_NAME];
    plsi_index_name(id, name);
    store->backend->ops->remove(store->backend, name, NULL);
    plsi_output_name(id, name);
    store->backend->ops->remove(store->backend, name, NULL);
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
    struct plsi_segment *segment = plsi_segment_create(&rw->store->dir->blocks, id, blob,
                                                       plsi_segment_index_file(rw->store, id));
    code = segment != NULL ? add_output(rw->compact, segment) : PLS_NO_MEMORY;
    if (code != PLS_OK) {
        plsi_segment_release(segment);
        remove_output(rw->store, id);
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

/* The disk begins while the next records are read: the sync at the end has less to wait for, and
 * what others append is not behind all of it at once. */
static void push_behind(struct plsi_segment *segment, uint64_t before, uint64_t end)
{
    uint64_t from = before - before % BEHIND_BYTES;
    uint64_t to = end - end % BEHIND_BYTES;
    if (to > from) {
        segment->blob->ops->write_behind(segment->blob, from, to - from);
    }
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
    push_behind(segment, end, end + length);
    return PLS_OK;
}

static enum pls_code reserve_entries(struct plsi_rewrite *rw, struct plsi_segment *segment,
                                     uint64_t n)
{
    return plsi_index_reserve(segment->index, n) == PLS_OK
               ? PLS_OK
               : plsi_fail(rw->error, PLS_NO_MEMORY, "out of memory");
}

/* Number i of those that are published next. */
static void prepare_entry(struct plsi_segment *segment, uint64_t i, uint64_t offset,
                          const struct plsi_entry *entry)
{
    struct plsi_entry added = {.offset = offset, .length = entry->length, .crc32c = entry->crc32c};
    plsi_index_prepare(segment->index, i, &added);
}

static void publish_entries(struct plsi_segment *segment, uint64_t n)
{
    plsi_index_publish(segment->index, n);
    plsi_index_write_behind(segment->index); /* where it fails, the entries stay in memory */
}

static enum pls_code add_entry(struct plsi_rewrite *rw, struct plsi_segment *segment,
                               uint64_t offset, const struct plsi_entry *entry)
{
    enum pls_code code = reserve_entries(rw, segment, 1);
    if (code == PLS_OK) {
        prepare_entry(segment, 0, offset, entry);
        publish_entries(segment, 1);
    }
    return code;
}

/* -- a span of records ------------------------------------------------------------------------- */

/* Nobody said that it is live: no reason to end, and none to delete it. */
static enum pls_code carried_damaged(struct plsi_rewrite *rw, const struct pls_ref *ref)
{
    plsi_log(rw->store->dir, PLS_LOG_WARNING, rw->store->name, "damaged",
             "a recent record, not given as live, is damaged at %" PRIu32 ":%" PRIu64
             ": its segment stays",
             ref->file_id, ref->offset);
    return rw->compact->options.keep_damaged
               ? plsi_compact_unreadable(rw->compact, ref, PLS_LIVE_DAMAGED, rw->error)
               : PLS_OK;
}

/* Ends the rewriting, or, where damage is reported and lived with, lets the victim stay and the
 * rest be checked. */
static enum pls_code damaged(void *arg, const struct plsi_record *record)
{
    struct plsi_rewrite *rw = arg;
    struct pls_ref ref = plsi_check_ref(&rw->check, record);
    uint64_t i = record->i;
    rw->victim->keep = true;
    rw->check_only = true;
    if (rw->victim->carried != NULL && plsi_bit(rw->victim->carried, i)) {
        return carried_damaged(rw, &ref);
    }
    bool by_name = rw->victim->given == NULL || plsi_bit(rw->victim->given, i);
    if (!by_name) {
        plsi_given_name(rw->compact, &ref);
    }
    return plsi_compact_unreadable(rw->compact, &ref, PLS_LIVE_DAMAGED, rw->error);
}

/* Moves what the span's records are to the buffer's beginning, end to end. */
static void pack_span(const struct plsi_check *check)
{
    uint64_t start = check->records[0].entry.offset;
    size_t packed = 0;
    for (size_t k = 0; k < check->n; k++) {
        size_t at = (size_t)(check->records[k].entry.offset - start);
        size_t length = (size_t)plsi_record_bytes(check->records[k].entry.length);
        if (at != packed) {
            memmove(check->buffer + packed, check->buffer + at, length);
        }
        packed += length;
    }
}

/* Writes the span's records, as few writes as rotation allows. */
static enum pls_code write_span(struct plsi_rewrite *rw)
{
    const struct plsi_check *check = &rw->check;
    uint64_t limit = rw->store->dir->options.segment_max_bytes;
    size_t written = 0;
    pack_span(check);
    for (size_t k = 0; k < check->n;) {
        struct plsi_segment *segment;
        enum pls_code code = output_for_record(rw, &segment);
        uint64_t end = code == PLS_OK ? atomic_load(&segment->end) : 0;
        size_t length = 0;
        if (code == PLS_OK) {
            code = reserve_entries(rw, segment, check->n - k);
        }
        uint64_t n = 0;
        while (code == PLS_OK && k < check->n && end + length <= limit) {
            const struct plsi_record *record = &check->records[k++];
            prepare_entry(segment, n++, end + length, &record->entry);
            length += (size_t)plsi_record_bytes(record->entry.length);
        }
        if (code == PLS_OK) {
            publish_entries(segment, n);
            code = write_bytes(rw, segment, check->buffer + written, length);
        }
        if (code != PLS_OK) {
            return code;
        }
        written += length;
    }
    return PLS_OK;
}

static enum pls_code rewrite_span(struct plsi_rewrite *rw)
{
    bool whole;
    enum pls_code code = wait_for_turn(rw, (size_t)rw->check.length);
    if (code != PLS_OK) {
        return code;
    }
    code = plsi_check_span(&rw->check, damaged, rw, &whole);
    if (code == PLS_OK && !whole && !rw->check_only) {
        return plsi_fail(rw->error, PLS_IO, "segment %" PRIu32 " reads now so and now so",
                         rw->victim->id);
    }
    return code != PLS_OK || rw->check_only ? code : write_span(rw);
}

/* -- one record larger than the buffer --------------------------------------------------------- */

static enum pls_code rewrite_large(struct plsi_rewrite *rw)
{
    struct plsi_pieces pieces = {.record = rw->check.records[0]};
    struct plsi_segment *segment = NULL;
    enum pls_code code = rw->check_only ? PLS_OK : output_for_record(rw, &segment);
    uint64_t new_offset = segment != NULL ? atomic_load(&segment->end) : 0;
    uint64_t length = plsi_record_bytes(pieces.record.entry.length);
    size_t part = 1;
    while (code == PLS_OK && part > 0 && pieces.done < length) {
        uint64_t left = length - pieces.done;
        code = wait_for_turn(rw, left < rw->check.room ? (size_t)left : rw->check.room);
        part = code == PLS_OK ? plsi_check_piece(&rw->check, &pieces) : 0;
        if (part > 0 && segment != NULL) {
            code = write_bytes(rw, segment, rw->check.buffer, part);
        }
    }
    if (code == PLS_OK && !plsi_check_pieces_intact(&pieces)) {
        /* What was written of it the victim's checkpoint takes away. */
        return damaged(rw, &pieces.record);
    }
    return code == PLS_OK && segment != NULL
               ? add_entry(rw, segment, new_offset, &pieces.record.entry)
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

/* The live records from number *i on that can be read together; *i comes behind them. */
static enum pls_code gather_span(struct plsi_rewrite *rw, uint64_t *i)
{
    enum pls_code code = PLS_OK;
    bool added = true;
    plsi_span_begin(&rw->check);
    while (code == PLS_OK && added && *i < rw->victim->n_records) {
        code = plsi_span_add(&rw->check, *i, &added);
        if (added) {
            *i = plsi_victim_next(rw->victim, *i + 1);
        }
    }
    return code;
}

/* Nobody knows any more where the victim's records lie: as with any damage, it stays, or nothing
 * happens. */
static enum pls_code index_lost(struct plsi_rewrite *rw, enum pls_code code)
{
    if (code != PLS_DAMAGED) {
        return plsi_fail(rw->error, code, "%s", pls_strerror(code));
    }
    if (!rw->compact->options.keep_damaged) {
        return plsi_fail(rw->error, PLS_LIVE_DAMAGED,
                         "segment %" PRIu32 ": its index and its prefixes are both damaged",
                         rw->victim->id);
    }
    rw->victim->keep = true;
    return PLS_OK;
}

static uint64_t live_bytes_of(const struct plsi_check *check)
{
    uint64_t bytes = 0;
    for (size_t k = 0; k < check->n; k++) {
        bytes += plsi_record_bytes(check->records[k].entry.length);
    }
    return bytes;
}

static enum pls_code rewrite_records(struct plsi_rewrite *rw)
{
    enum pls_code code = PLS_OK;
    uint64_t i = plsi_victim_next(rw->victim, 0);
    while (code == PLS_OK && i < rw->victim->n_records) {
        rw->check.room = rw->resting ? PLSI_PIECE_BYTES : PLSI_CHECK_BYTES;
        enum pls_code found = gather_span(rw, &i);
        if (found != PLS_OK) {
            return index_lost(rw, found);
        }
        uint64_t n = rw->check.n, bytes = live_bytes_of(&rw->check);
        code = rw->check.length > rw->check.room ? rewrite_large(rw) : rewrite_span(rw);
        report(rw, n, bytes);
    }
    return code;
}

void plsi_rewrite_drop_output(struct plsi_rewrite *rw)
{
    struct plsi_output *output = &rw->compact->outputs[--rw->compact->n_outputs];
    remove_output(rw->store, output->id);
    plsi_cursor_fini(&output->cursor);
    plsi_segment_release(output->segment);
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
    enum pls_code code = plsi_index_cut(last->segment->index, checkpoint->entries);
    if (code == PLS_OK) {
        atomic_store(&last->segment->end, checkpoint->end);
        atomic_store(&last->segment->bytes, checkpoint->end);
        code = blob->ops->truncate(blob, checkpoint->end);
    }
    return code == PLS_OK ? PLS_OK
                          : plsi_fail(rw->error, code, "cutting output %" PRIu32, last->id);
}

enum pls_code plsi_rewrite_victim(struct plsi_rewrite *rw, struct plsi_victim *victim)
{
    struct plsi_output *last = last_output(rw->compact);
    struct checkpoint checkpoint = {.n_outputs = rw->compact->n_outputs};
    if (last != NULL) {
        checkpoint.end = atomic_load(&last->segment->end);
        checkpoint.entries = plsi_index_count(last->segment->index);
    }
    rw->victim = victim;
    plsi_check_segment(&rw->check, victim->segment);
    rw->check_only = rw->compact->options.dry_run;
    enum pls_code code = rewrite_records(rw);
    if (code == PLS_OK && victim->keep) {
        code = go_back(rw, &checkpoint);
    }
    return code;
}
