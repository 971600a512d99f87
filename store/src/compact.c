/* Compaction, first part: the handle is checked, the live refs are gathered as a bit a record. */
#include "compact.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#include "bits.h"
#include "error.h"
#include "store.h"

#define MAGIC 0x434f4d50u /* "COMP" */
#define DAMAGED_MAX \
    (64u << 10) /* refs reported by one compaction; a list beyond that is no list of live refs */

/* -- begin ------------------------------------------------------------------------------------- */

static enum pls_code check_handle(const struct plsi_state *state, const struct pls_seal *seal,
                                  struct pls_error *error)
{
    if (plsi_state_seal_is_open(state, seal)) {
        return PLS_OK;
    }
    bool was_given = state->sealed && seal->sealed_id <= state->seal.sealed_id &&
                     seal->compaction_id == (uint64_t)seal->sealed_id + 1;
    enum pls_code code = was_given ? PLS_HANDLE_SUPERSEDED : PLS_HANDLE_UNKNOWN;
    return plsi_fail(error, code, "seal %" PRIu32 "/%" PRIu32 ": %s", seal->sealed_id,
                     seal->compaction_id, pls_strerror(code));
}

static enum pls_code take_victim(struct plsi_victim *victim, struct plsi_segment *segment,
                                 bool has_names)
{
    victim->id = segment->id;
    victim->segment = segment;
    victim->n_records = plsi_index_count(segment->index);
    victim->live = plsi_bits_create(victim->n_records);
    victim->given = has_names ? plsi_bits_create(victim->n_records) : NULL;
    return victim->live != NULL && (victim->given != NULL || !has_names) ? PLS_OK : PLS_NO_MEMORY;
}

static enum pls_code take_victims(struct pls_compact *compact, struct pls_error *error)
{
    size_t n;
    struct plsi_segment **segments =
        plsi_table_hold_all(&compact->store->table, compact->seal.sealed_id, &n);
    compact->victims = calloc(n + 1, sizeof *compact->victims);
    if (segments == NULL || compact->victims == NULL) {
        plsi_table_release_all(segments, n);
        return plsi_fail(error, PLS_NO_MEMORY, "out of memory");
    }
    enum pls_code code = PLS_OK;
    for (size_t i = 0; i < n; i++) {
        enum pls_code taken =
            take_victim(&compact->victims[i], segments[i], compact->standing != NULL);
        code = code == PLS_OK ? taken : code;
    }
    compact->n_victims = n;
    free(segments);
    return code == PLS_OK ? PLS_OK : plsi_fail(error, code, "out of memory");
}

/* The names that the last compaction forwards: each may be given as live. */
static enum pls_code take_names(struct pls_compact *compact, struct pls_error *error)
{
    if (compact->standing == NULL) {
        return PLS_OK;
    }
    compact->standing_given = plsi_bits_create(compact->standing->n_entries);
    return compact->standing_given != NULL ? PLS_OK
                                           : plsi_fail(error, PLS_NO_MEMORY, "out of memory");
}

static bool has_committed(const struct pls_compact *compact)
{
    const struct plsi_relocations *standing = compact->standing;
    return standing != NULL && standing->seal.sealed_id == compact->seal.sealed_id &&
           standing->seal.compaction_id == compact->seal.compaction_id;
}

/* With store->admin held. */
static enum pls_code admit(struct pls_compact *compact, struct pls_error *error)
{
    pls_store *store = compact->store;
    enum pls_code code = plsi_store_check_writer(store, compact->options.epoch, error);
    if (code != PLS_OK) {
        return code;
    }
    compact->standing = plsi_table_relocations(&store->table);
    compact->replay = has_committed(compact);
    if (compact->replay) {
        return PLS_OK;
    }
    code = check_handle(&store->state, &compact->seal, error);
    if (code == PLS_OK && compact->options.map_only) {
        code = plsi_fail(error, PLS_NOT_COMMITTED, "%s", pls_strerror(PLS_NOT_COMMITTED));
    }
    if (code == PLS_OK && store->compaction != NULL) {
        code = plsi_fail(error, PLS_COMPACTION_RUNNING, "%s", pls_strerror(PLS_COMPACTION_RUNNING));
    }
    if (code == PLS_OK) {
        code = take_names(compact, error);
    }
    if (code == PLS_OK) {
        code = take_victims(compact, error);
    }
    if (code == PLS_OK) {
        store->compaction = compact;
    }
    return code;
}

enum pls_code pls_compact_begin(pls_store *store, const struct pls_seal *seal,
                                const struct pls_compact_options *options, pls_compact **out,
                                struct pls_error *error)
{
    plsi_ok(error);
    if (options->min_garbage_percent > 100) {
        return plsi_fail(error, PLS_INVALID_ARGUMENT, "min_garbage_percent is above 100");
    }
    struct pls_compact *compact = calloc(1, sizeof *compact);
    if (compact == NULL) {
        return plsi_fail(error, PLS_NO_MEMORY, "out of memory");
    }
    compact->magic = MAGIC;
    plsi_table_cursor_init(&compact->cursor, NULL);
    compact->seal = *seal;
    compact->options = *options;
    compact->store = store;
    atomic_fetch_add(&store->references, 1);
    pthread_mutex_lock(&store->admin);
    enum pls_code code = admit(compact, error);
    pthread_mutex_unlock(&store->admin);
    if (code != PLS_OK) {
        pls_compact_destroy(compact);
        return code;
    }
    *out = compact;
    return PLS_OK;
}

/* -- the live refs ----------------------------------------------------------------------------- */

static bool note_damaged(struct pls_compact *compact, const struct pls_ref *ref, enum pls_code code)
{
    if (compact->n_damaged == compact->room_damaged) {
        size_t room = compact->room_damaged * 2 + 16;
        struct pls_damaged *damaged = realloc(compact->damaged, room * sizeof *damaged);
        if (damaged == NULL) {
            return false;
        }
        compact->damaged = damaged;
        compact->room_damaged = room;
    }
    compact->damaged[compact->n_damaged++] = (struct pls_damaged){.ref = *ref, .code = code};
    return true;
}

static enum pls_code fail_live(const struct pls_ref *ref, enum pls_code code,
                               struct pls_error *error)
{
    return plsi_fail(error, code, "live ref %" PRIu32 ":%" PRIu64 " of %" PRIu32 " bytes: %s",
                     ref->file_id, ref->offset, ref->length, pls_strerror(code));
}

enum pls_code plsi_compact_unreadable(struct pls_compact *compact, const struct pls_ref *ref,
                                      enum pls_code code, struct pls_error *error)
{
    if (compact->options.keep_damaged && compact->n_damaged < DAMAGED_MAX) {
        if (note_damaged(compact, ref, code)) {
            return PLS_OK;
        }
        return plsi_fail(error, PLS_NO_MEMORY, "out of memory");
    }
    return fail_live(ref, code, error);
}

struct plsi_victim *plsi_victim_of(struct pls_compact *compact, uint32_t id)
{
    size_t low = 0, high = compact->n_victims;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compact->victims[middle].id < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < compact->n_victims && compact->victims[low].id == id ? &compact->victims[low]
                                                                      : NULL;
}

/*
 * No entry covers it: looked at itself, and where it reads, its segment stays. So does one of which
 * a ref points behind its last good record and does not read: nobody knows what lies there.
 */
static enum pls_code mark_loose(struct pls_compact *compact, struct plsi_victim *victim,
                                const struct pls_ref *ref)
{
    struct pls_view view = {0};
    enum pls_code code;
    plsi_segment_read(victim->segment, ref, NULL, PLSI_MAY_WAIT, &view, &code);
    pls_view_release(&view);
    if (code == PLS_OK) {
        victim->keep = true;
        compact->n_loose++;
    } else if (ref->offset >= atomic_load(&victim->segment->end) &&
               ref->offset < atomic_load(&victim->segment->bytes)) {
        victim->keep = true;
    }
    return code;
}

/* `by_name`: the record's own place was given, not an older name of it. */
static enum pls_code mark(struct pls_compact *compact, struct plsi_victim *victim,
                          const struct pls_ref *ref, bool by_name)
{
    struct plsi_found found;
    enum pls_code code;
    plsi_index_find(victim->segment->index, ref->offset, PLSI_MAY_WAIT, &found, &code);
    if (code == PLS_NO_MEMORY) {
        return code;
    }
    if (code != PLS_OK || found.i >= victim->n_records) {
        return mark_loose(compact, victim, ref);
    }
    if (found.entry.length != ref->length) {
        return PLS_NO_RECORD;
    }
    if (ref->crc32c != 0 && ref->crc32c != found.entry.crc32c) {
        return PLS_DAMAGED;
    }
    if (by_name && victim->given != NULL) {
        plsi_bit_set(victim->given, found.i);
    }
    if (plsi_bit_set(victim->live, found.i)) {
        victim->live_records++;
        victim->live_bytes += plsi_record_bytes(ref->length);
    }
    return PLS_OK;
}

static void keep_segment_of(struct pls_compact *compact, const struct pls_ref *ref)
{
    struct plsi_victim *victim = plsi_victim_of(compact, ref->file_id);
    if (victim != NULL) {
        victim->keep = true;
    }
}

/* Where the last compaction put a record that is given by an older name. */
static enum pls_code mark_target(struct pls_compact *compact, const struct pls_ref *now)
{
    struct plsi_victim *victim = plsi_victim_of(compact, now->file_id);
    if (victim == NULL) {
        struct plsi_segment *later = plsi_table_find(&compact->store->table, now->file_id);
        plsi_segment_release(later);
        return later != NULL ? PLS_OK : PLS_NO_RECORD; /* another program took it away */
    }
    enum pls_code code = mark(compact, victim, now, false);
    victim->keep = victim->keep || code == PLS_DAMAGED;
    return code;
}

/* A name whose segment is gone: the last compaction may have moved its record. */
static enum pls_code mark_moved(struct pls_compact *compact, const struct pls_ref *ref)
{
    struct plsi_moved moved;
    uint64_t i;
    if (compact->standing == NULL) {
        return PLS_NO_RECORD;
    }
    enum pls_code code =
        plsi_relocations_find(compact->standing, ref->file_id, ref->offset, &moved, &i);
    if (code == PLS_OK && moved.length != ref->length) {
        code = PLS_NO_RECORD;
    }
    if (code != PLS_OK) {
        return code;
    }
    struct pls_ref now = plsi_moved_to(&moved);
    code = mark_target(compact, &now);
    if (code == PLS_OK && ref->crc32c != 0 && ref->crc32c != now.crc32c) {
        code = PLS_DAMAGED;
        keep_segment_of(compact, &now);
    }
    if (code == PLS_OK || code == PLS_DAMAGED) {
        plsi_bit_set(compact->standing_given, i);
    }
    return code;
}

/* A second call for a compaction that has committed: was it given this ref then? */
static enum pls_code check_kept(struct pls_compact *compact, const struct pls_ref *ref,
                                struct pls_error *error)
{
    struct plsi_moved moved;
    uint64_t i;
    if (plsi_relocations_role(compact->standing, ref->file_id) == PLSI_ROLE_KEPT) {
        return PLS_OK;
    }
    enum pls_code code =
        plsi_relocations_find(compact->standing, ref->file_id, ref->offset, &moved, &i);
    if (code == PLS_DAMAGED || code == PLS_IO) {
        return plsi_fail(error, PLS_IO, "the relocation table cannot be read");
    }
    return code == PLS_OK && moved.length == ref->length ? PLS_OK
                                                         : fail_live(ref, PLS_REF_NOT_KEPT, error);
}

static enum pls_code take_live(struct pls_compact *compact, const struct pls_ref *ref,
                               struct pls_error *error)
{
    compact->n_given++;
    if (!plsi_ref_possible(ref)) {
        return fail_live(ref, PLS_INVALID_REF, error);
    }
    if (ref->file_id > compact->seal.sealed_id) {
        return PLS_OK;
    }
    if (compact->replay) {
        return check_kept(compact, ref, error);
    }
    struct plsi_victim *victim = plsi_victim_of(compact, ref->file_id);
    enum pls_code code =
        victim != NULL ? mark(compact, victim, ref, true) : mark_moved(compact, ref);
    switch (code) {
    case PLS_OK:
        return PLS_OK;
    case PLS_NO_RECORD:
        return plsi_compact_unreadable(compact, ref, PLS_LIVE_NO_RECORD, error);
    case PLS_DAMAGED:
        if (victim != NULL) {
            victim->keep = true;
        }
        return plsi_compact_unreadable(compact, ref, PLS_LIVE_DAMAGED, error);
    default:
        return plsi_fail(error, code, "%s", pls_strerror(code));
    }
}

enum pls_code pls_compact_live(pls_compact *compact, const struct pls_ref *refs, size_t n,
                               struct pls_error *error)
{
    assert(compact->magic == MAGIC);
    enum pls_code code = plsi_ok(error);
    for (size_t i = 0; i < n && code == PLS_OK; i++) {
        code = take_live(compact, &refs[i], error);
    }
    return code;
}

void pls_compact_expect(pls_compact *compact, uint64_t n)
{
    compact->options.check_expected_live = true;
    compact->options.expected_live = n;
}

/* -- the end ----------------------------------------------------------------------------------- */

void pls_compact_cancel(pls_compact *compact)
{
    atomic_store(&compact->cancelled, true);
}

enum pls_code plsi_compact_cancelled(const struct pls_compact *compact, struct pls_error *error)
{
    if (compact->options.epoch != atomic_load(&compact->store->epoch)) {
        return plsi_fail(error, PLS_EPOCH_STALE, "%s", pls_strerror(PLS_EPOCH_STALE));
    }
    return plsi_fail(error, PLS_CANCELLED, "the compaction was cancelled");
}

/* Looks again after each wait: the next one, of the new epoch, may have begun. */
void plsi_compact_stop(pls_store *store)
{
    while (store->compaction != NULL &&
           plsi_store_check_writer(store, store->compaction->options.epoch, NULL) != PLS_OK) {
        pls_compact_cancel(store->compaction);
        if (store->compaction->running) {
            pthread_cond_wait(&store->compaction_ended, &store->admin);
        } else {
            store->compaction = NULL; /* it finds out when it is run */
            pthread_cond_broadcast(&store->compaction_ended);
        }
    }
}

void pls_compact_destroy(pls_compact *compact)
{
    if (compact == NULL) {
        return;
    }
    assert(compact->magic == MAGIC);
    pls_store *store = compact->store;
    pthread_mutex_lock(&store->admin);
    if (store->compaction == compact) {
        store->compaction = NULL;
    }
    pthread_mutex_unlock(&store->admin);
    for (size_t i = 0; i < compact->n_victims; i++) {
        plsi_segment_release(compact->victims[i].segment);
        free(compact->victims[i].live);
        free(compact->victims[i].given);
        free(compact->victims[i].carried);
        free(compact->victims[i].ranks);
    }
    for (size_t i = 0; i < compact->n_outputs; i++) {
        plsi_cursor_fini(&compact->outputs[i].cursor);
        plsi_segment_release(compact->outputs[i].segment);
    }
    free(compact->victims);
    free(compact->outputs);
    free(compact->damaged);
    free(compact->standing_given);
    free(compact->standing_carried);
    plsi_relocations_release(compact->standing);
    plsi_relocations_release(compact->result);
    compact->magic = 0;
    free(compact);
    pls_store_release(store);
}
