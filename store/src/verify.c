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
    size_t n_parts, at;  /* the part that is being checked */
    uint64_t record;     /* its next record */
    uint64_t bytes_left; /* of its records, not checked yet */
    bool in_pieces;      /* a record larger than the buffer has been begun */
    struct plsi_pieces pieces;
    struct plsi_check check;
};

/* What a call of next hands out. */
struct found {
    pls_verify *verify;
    struct pls_damaged *damaged;
    size_t n, max;
};

/* -- begin and destroy ------------------------------------------------------------------------- */

/* Records that are being appended do not count: the last one counted says where they end. */
static enum pls_code take_part(struct part *part, struct plsi_segment *segment)
{
    /* In this order: nothing was added behind the count where it is finished in the end. */
    uint64_t n = plsi_index_count(segment->index);
    uint64_t end = atomic_load(&segment->end);
    *part = (struct part){.id = segment->id, .records = n, .tail = segment->tail};
    if (n == 0 || atomic_load(&segment->finished)) {
        part->bytes = n > 0 ? end : 0;
        return PLS_OK;
    }
    struct plsi_record last = {.i = n - 1};
    struct plsi_cursor cursor;
    plsi_cursor_init(&cursor, segment->index);
    enum pls_code code = plsi_cursor_get(&cursor, last.i, &last.entry);
    plsi_cursor_fini(&cursor);
    part->bytes = code == PLS_OK ? last.entry.offset + plsi_record_bytes(last.entry.length) : end;
    return code == PLS_NO_MEMORY ? code : PLS_OK;
}

static enum pls_code take_parts(struct pls_verify *verify)
{
    size_t n;
    struct plsi_segment **segments = plsi_table_hold_all(&verify->store->table, UINT32_MAX, &n);
    verify->parts = calloc(n + 1, sizeof *verify->parts);
    bool taken = segments != NULL && verify->parts != NULL;
    for (size_t i = 0; taken && i < n; i++) {
        taken = take_part(&verify->parts[i], segments[i]) == PLS_OK;
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
    if (plsi_check_init(&verify->check, room_for(verify->bytes_per_second)) != PLS_OK ||
        take_parts(verify) != PLS_OK) {
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
    plsi_check_fini(&verify->check);
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

static enum pls_code note_damaged(void *arg, const struct plsi_record *record)
{
    struct found *found = arg;
    found->damaged[found->n++] = (struct pls_damaged){
        .ref = plsi_check_ref(&found->verify->check, record), .code = PLS_DAMAGED};
    return PLS_OK;
}

/* The next records that fit into the buffer together, no more of them than damage could be reported
 * of. */
static enum pls_code gather_span(struct pls_verify *verify, size_t most)
{
    uint64_t left = verify->parts[verify->at].records - verify->record;
    uint64_t end = verify->record + (left < most ? left : most);
    enum pls_code code = PLS_OK;
    bool added = true;
    plsi_span_begin(&verify->check);
    for (uint64_t i = verify->record; code == PLS_OK && added && i < end; i++) {
        code = plsi_span_add(&verify->check, i, &added);
    }
    return code;
}

/* One piece of a record larger than the buffer: the next call goes on with it. */
static void check_large(pls_verify *verify, struct found *found)
{
    struct plsi_pieces *pieces = &verify->pieces;
    if (!verify->in_pieces) {
        *pieces = (struct plsi_pieces){.record = verify->check.records[0]};
        verify->in_pieces = true;
    }
    uint64_t length = plsi_record_bytes(pieces->record.entry.length);
    size_t part = plsi_check_piece(&verify->check, pieces);
    took(verify, part);
    checked(verify, 0, part);
    if (!pieces->unreadable && pieces->done < length) {
        return;
    }
    if (!plsi_check_pieces_intact(pieces)) {
        note_damaged(found, &pieces->record);
    }
    checked(verify, 1, length - pieces->done);
    verify->in_pieces = false;
}

/* Index and data are both unreadable: where the rest of the part's records lie nobody knows. */
static void give_part_up(pls_verify *verify, struct found *found)
{
    struct part *part = &verify->parts[verify->at];
    found->damaged[found->n++] = (struct pls_damaged){
        .ref = {.file_id = part->id, .offset = part->bytes - verify->bytes_left},
        .code = PLS_DAMAGED};
    part->records = verify->record;
}

static void check_some(pls_verify *verify, struct found *found)
{
    enum pls_code code = gather_span(verify, found->max - found->n);
    if (verify->check.n == 0) {
        if (code == PLS_DAMAGED) {
            give_part_up(verify, found);
        }
        return; /* out of memory: the next call tries again */
    }
    if (verify->check.length > verify->check.room) {
        check_large(verify, found);
        return;
    }
    bool whole;
    plsi_check_span(&verify->check, note_damaged, found, &whole);
    took(verify, (size_t)verify->check.length);
    checked(verify, verify->check.n, verify->check.length);
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
    verify->in_pieces = false;
    verify->record = 0;
    verify->at++;
    verify->bytes_left = verify->at < verify->n_parts ? verify->parts[verify->at].bytes : 0;
}

static void step(pls_verify *verify, struct found *found)
{
    const struct part *part = &verify->parts[verify->at];
    struct plsi_segment *segment = plsi_table_find(&verify->store->table, part->id);
    plsi_check_segment(&verify->check, segment);
    if (segment == NULL || verify->record == part->records) {
        end_part(verify, found, segment != NULL);
    } else if (wait_for_turn(verify)) {
        check_some(verify, found);
    }
    plsi_check_segment(&verify->check, NULL);
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
