/*
 * Seal: every segment that exists is frozen, and a new one takes the appends.
 *
 * In this order: the new segment durable, the ages of what is frozen, the handle recorded, the
 * answer. A crash before the record leaves an empty segment, and perhaps ages that belong to no
 * handle; one after it, a handle nobody was told, which the next Seal gives out again.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "ages.h"
#include "clock.h"
#include "error.h"
#include "log.h"
#include "store.h"

/* Whether anything was appended behind the last seal. */
static enum pls_code appended_since(pls_store *store, bool *appended, struct pls_error *error)
{
    size_t n;
    struct plsi_segment **all = plsi_table_hold_all(&store->table, UINT32_MAX, &n);
    if (all == NULL) {
        return plsi_fail(error, PLS_NO_MEMORY, "out of memory");
    }
    *appended = false;
    for (size_t i = 0; i < n; i++) {
        *appended |= all[i]->id > store->state.seal.sealed_id && atomic_load(&all[i]->bytes) > 0;
    }
    plsi_table_release_all(all, n);
    return PLS_OK;
}

/* A batch that was on its way into a frozen segment is written before the seal is answered. */
static void wait_for_batch(pls_store *store, uint32_t sealed_id)
{
    pthread_mutex_lock(&store->queue_lock);
    while (store->batch.segment != NULL && store->batch.segment->id <= sealed_id) {
        pthread_cond_wait(&store->idle, &store->queue_lock);
    }
    pthread_mutex_unlock(&store->queue_lock);
}

/* Takes back a segment that nobody has been told of. */
static void forget_segment(pls_store *store, struct plsi_segment *segment)
{
    plsi_table_remove(&store->table, segment->id);
    plsi_remove_segment(store, segment->id, NULL);
    plsi_segment_release(segment);
}

/* The ages before the handle. Where the oldest handle had to make room for it, its ages go. */
static enum pls_code record(pls_store *store, const struct plsi_state *state, int64_t now,
                            struct pls_error *error)
{
    enum pls_code code = plsi_ages_write(store, state->seal.sealed_id, now, error);
    if (code == PLS_OK) {
        code = plsi_state_write(store->backend, state, error);
    }
    if (code != PLS_OK) {
        plsi_ages_forget(store, state->seal.sealed_id);
        return code;
    }
    if (store->state.n_open == PLSI_OPEN_SEALS_MAX) {
        plsi_ages_remove(store, store->state.open[0]);
    }
    store->state = *state;
    return PLS_OK;
}

static enum pls_code freeze(pls_store *store, struct pls_error *error)
{
    int64_t now = plsi_now_ms();
    if (store->next_id + 1 > UINT32_MAX) {
        return plsi_fail(error, PLS_IDS_USED_UP, "%s", pls_strerror(PLS_IDS_USED_UP));
    }
    struct plsi_state state = store->state;
    state.clean = false;
    state.sealed = true;
    state.compacted = false;
    state.seal.sealed_id = (uint32_t)(store->next_id - 1);
    state.seal.compaction_id = (uint32_t)store->next_id;
    state.next_id = store->next_id + 2;
    plsi_state_open_seal(&state);

    struct plsi_segment *segment = NULL;
    enum pls_code code = plsi_segment_start(store, state.seal.compaction_id + 1, &segment, error);
    if (code == PLS_OK || code == PLS_IO) {
        store->next_id = state.next_id; /* also where it fails: a trace of these ids may stay */
    }
    if (code != PLS_OK) {
        return code;
    }
    code = record(store, &state, now, error);
    if (code != PLS_OK) {
        forget_segment(store, segment);
        return code;
    }
    plsi_segment_release(store->resume);
    store->resume = NULL;
    plsi_set_active(store, segment);
    wait_for_batch(store, state.seal.sealed_id);
    return PLS_OK;
}

enum pls_code pls_store_seal(pls_store *store, uint64_t epoch, struct pls_seal *seal,
                             struct pls_error *error)
{
    plsi_ok(error);
    pthread_mutex_lock(&store->admin);
    bool again = store->state.sealed && !store->state.compacted;
    bool appended = true;
    enum pls_code code = plsi_store_check_writer(store, epoch, error);
    if (code == PLS_OK && again) {
        code = appended_since(store, &appended, error);
    }
    if (code == PLS_OK && appended) {
        code = freeze(store, error);
    }
    if (code == PLS_OK) {
        *seal = store->state.seal;
    }
    pthread_mutex_unlock(&store->admin);
    if (code == PLS_OK && appended) {
        plsi_log(store->dir, PLS_LOG_INFO, store->name, "sealed",
                 "segments up to %" PRIu32 " are frozen", seal->sealed_id);
    }
    return code;
}
