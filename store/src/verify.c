/*
 * The scrub: every record that was there at the beginning is read in large pieces and checked, at a
 * limited rate where wanted.
 *
 * No segment is held from one read to the next: one that a compaction removes gives its room on the
 * disk back at once, however slow the scrub is, and what lived in it the compaction has checked.
 */
#include <assert.h>
#include <stdlib.h>

#include "check.h"
#include "clock.h"
#include "error.h"
#include "store.h"

#define MAGIC      0x56455246u /* "VERF" */
#define NEXT_MS    100         /* about as long as one call of next lasts */
#define ROOM_MIN   4096u       /* bytes read at once, however low the rate */
#define A_SECOND   1000000000  /* in nanoseconds */
#define PER_SECOND 8u          /* reads at least, where the rate allows for ROOM_MIN each */

/* A segment as it was at the beginning. */
struct part {
    uint32_t id;
    uint64_t records;
    uint64_t bytes; /* of the records */
    uint64_t tail;  /* bytes behind the last record, of which nobody knows what they are */
};

struct pls_verify {
    uint32_t magic;
    pls_store *store; /* held */
    uint64_t bytes_per_second;
    int64_t read_ns; /* when the last read began */
    int64_t turn_ns; /* when the next one may */
    struct pls_verify_progress progress;
    struct part *parts;
    size_t n_parts, at;        /* the part that is being checked */
    uint64_t record;           /* its next record */
    uint64_t bytes_left;       /* of its records, not checked yet */
    struct plsi_pieces pieces; /* of the record where it is larger than the buffer; length 0: not
                                  begun */
    struct plsi_check check;
};

/* What a call of next hands out. */
struct found {
    pls_verify *verify;
    struct pls_damaged *damaged;
    size_t n, max;
};

/* -- begin and destroy ------------------------------------------------------------------------- */

static void take_part(struct part *part, struct plsi_segment *segment)
{
    /* In this order: a first append raises the count before the bytes, and no tail is seen. */
    uint64_t bytes = atomic_load(&segment->bytes);
    uint64_t n = plsi_index_count(segment->index);
    const struct plsi_entry *last = n > 0 ? plsi_index_at(segment->index, n - 1) : NULL;
    *part = (struct part){.id = segment->id, .records = n};
    part->bytes = last != NULL ? last->offset + PLSI_PREFIX + last->length : 0;
    /* Only what was found at open: an append that failed may leave bytes behind, but no record. */
    part->tail = n == segment->index->n_walked && bytes > part->bytes ? bytes - part->bytes : 0;
}

static enum pls_code take_parts(struct pls_verify *verify)
{
    size_t n;
    struct plsi_segment **segments = plsi_table_hold_all(&verify->store->table, UINT32_MAX, &n);
    verify->parts = calloc(n + 1, sizeof *verify->parts);
    bool taken = segments != NULL && verify->parts != NULL;
    for (size_t i = 0; taken && i < n; i++) {
        take_part(&verify->parts[i], segments[i]);
        verify->progress.bytes_total += verify->parts[i].bytes;
    }
    verify->n_parts = taken ? n : 0;
    verify->bytes_left = verify->parts != NULL ? verify->parts[0].bytes : 0;
    plsi_table_release_all(segments, n);
    return taken ? PLS_OK : PLS_NO_MEMORY;
}

/* Small reads where the rate is low, so that they are spread over the second. */
static size_t room_for(uint64_t bytes_per_second)
{
    uint64_t room = bytes_per_second / PER_SECOND;
    if (bytes_per_second == 0 || room > PLSI_CHECK_BYTES) {
        return PLSI_CHECK_BYTES;
    }
    return room > ROOM_MIN ? room : ROOM_MIN;
}

enum pls_code pls_verify_begin(pls_store *store, const struct pls_verify_options *options,
                               pls_verify **out, struct pls_error *error)
{
    enum pls_code code = plsi_store_check(store, error);
    if (code != PLS_OK) {
        return code;
    }
    struct pls_verify *verify = calloc(1, sizeof *verify);
    if (verify == NULL) {
        return plsi_fail(error, PLS_NO_MEMORY, "out of memory");
    }
    verify->magic = MAGIC;
    verify->store = store;
    atomic_fetch_add(&store->references, 1);
    verify->bytes_per_second = options != NULL ? options->bytes_per_second : 0;
    verify->check.room = room_for(verify->bytes_per_second);
    verify->check.buffer = malloc(verify->check.room);
    if (verify->check.buffer == NULL || take_parts(verify) != PLS_OK) {
        pls_verify_destroy(verify);
        return plsi_fail(error, PLS_NO_MEMORY, "out of memory");
    }
    *out = verify;
    return plsi_ok(error);
}

void pls_verify_destroy(pls_verify *verify)
{
    if (verify == NULL) {
        return;
    }
    assert(verify->magic == MAGIC);
    pls_store *store = verify->store;
    verify->magic = 0;
    free(verify->check.buffer);
    free(verify->parts);
    free(verify);
    pls_store_release(store);
}

/* -- the rate ---------------------------------------------------------------------------------- */

/* False where it is not time for the next read yet; then some of the time has been waited. */
static bool wait_for_turn(pls_verify *verify)
{
    verify->read_ns = plsi_now_ns();
    int64_t left = verify->turn_ns - verify->read_ns;
    if (left <= 0) {
        return true;
    }
    left = left < NEXT_MS * INT64_C(1000000) ? left : NEXT_MS * INT64_C(1000000);
    nanosleep(&(struct timespec){.tv_nsec = left}, NULL);
    return false;
}

/* Notes a read. Time that was not used for reading is not made up for. */
static void took(pls_verify *verify, size_t bytes)
{
    if (verify->bytes_per_second > 0) {
        verify->turn_ns =
            verify->read_ns + (int64_t)((uint64_t)bytes * A_SECOND / verify->bytes_per_second);
    }
}

/* -- checking ---------------------------------------------------------------------------------- */

static void checked(pls_verify *verify, uint64_t records, uint64_t bytes)
{
    verify->record += records;
    verify->bytes_left -= bytes;
    verify->progress.records_checked += records;
    verify->progress.bytes_checked += bytes;
}

static enum pls_code note_damaged(void *arg, uint64_t i)
{
    struct found *found = arg;
    found->damaged[found->n++] =
        (struct pls_damaged){.ref = plsi_check_ref(&found->verify->check, i), .code = PLS_DAMAGED};
    return PLS_OK;
}

/* From the next record on, the end of the neighbours that fit into the buffer with it, no more of
 * them than damage could be reported of. */
static uint64_t run_end(const pls_verify *verify, uint64_t most, size_t *length)
{
    const struct plsi_index *index = verify->check.segment->index;
    uint64_t left = verify->parts[verify->at].records - verify->record;
    uint64_t end = verify->record + (left < most ? left : most);
    uint64_t i = verify->record;
    *length = 0;
    do {
        size_t record = PLSI_PREFIX + (size_t)plsi_index_at(index, i)->length;
        if (i > verify->record && *length + record > verify->check.room) {
            break;
        }
        *length += record;
        i++;
    } while (i < end);
    return i;
}

/* One piece of a record larger than the buffer: the next call goes on with it. */
static void check_large(pls_verify *verify, struct found *found, size_t length)
{
    struct plsi_pieces *pieces = &verify->pieces;
    if (pieces->length == 0) {
        *pieces = (struct plsi_pieces){.i = verify->record, .length = length};
    }
    size_t part = plsi_check_piece(&verify->check, pieces);
    took(verify, part);
    checked(verify, 0, part);
    if (!pieces->unreadable && pieces->done < length) {
        return;
    }
    if (!plsi_check_pieces_intact(&verify->check, pieces)) {
        note_damaged(found, verify->record);
    }
    checked(verify, 1, length - pieces->done);
    pieces->length = 0;
}

static void check_some(pls_verify *verify, struct found *found)
{
    size_t length;
    uint64_t last = run_end(verify, found->max - found->n, &length);
    if (length > verify->check.room) {
        check_large(verify, found, length);
        return;
    }
    bool whole;
    plsi_check_run(&verify->check, verify->record, last, length, note_damaged, found, &whole);
    took(verify, length);
    checked(verify, last - verify->record, length);
}

/* -- from part to part ------------------------------------------------------------------------- */

/* `there`: the part's segment has not been removed meanwhile. */
static void end_part(pls_verify *verify, struct found *found, bool there)
{
    const struct part *part = &verify->parts[verify->at];
    if (there && part->tail > 0) {
        uint64_t length = part->tail < PLS_PAYLOAD_LIMIT ? part->tail : PLS_PAYLOAD_LIMIT;
        found->damaged[found->n++] = (struct pls_damaged){
            .ref = {.file_id = part->id, .offset = part->bytes, .length = (uint32_t)length},
            .code = PLS_NO_RECORD};
    }
    verify->progress.bytes_total -= verify->bytes_left;
    verify->pieces.length = 0;
    verify->record = 0;
    verify->at++;
    verify->bytes_left = verify->at < verify->n_parts ? verify->parts[verify->at].bytes : 0;
}

static void step(pls_verify *verify, struct found *found)
{
    const struct part *part = &verify->parts[verify->at];
    struct plsi_segment *segment = plsi_table_find(&verify->store->table, part->id);
    verify->check.segment = segment;
    if (segment == NULL || verify->record == part->records) {
        end_part(verify, found, segment != NULL);
    } else if (wait_for_turn(verify)) {
        check_some(verify, found);
    }
    plsi_segment_release(segment);
}

enum pls_code pls_verify_next(pls_verify *verify, struct pls_damaged *damaged, size_t max,
                              size_t *n, bool *more, struct pls_error *error)
{
    assert(verify->magic == MAGIC && max > 0);
    struct found found = {.verify = verify, .damaged = damaged, .max = max};
    int64_t until = plsi_now_ms() + NEXT_MS;
    while (verify->at < verify->n_parts && found.n < max && plsi_now_ms() < until) {
        step(verify, &found);
    }
    *n = found.n;
    *more = verify->at < verify->n_parts;
    /* Afterwards: a store that is deleted loses its segments, which must not look like the end. */
    return plsi_store_check(verify->store, error);
}

void pls_verify_progress(const pls_verify *verify, struct pls_verify_progress *progress)
{
    *progress = verify->progress;
}
