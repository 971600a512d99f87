/*
 * Claim: the next epoch, and the end of everything older.
 *
 * In this order: the epoch on disk, the epoch for everybody who asks, the answer. Before the second
 * step the holder of the old epoch goes on as if nothing had happened; after it nothing of an older
 * epoch begins. What had begun is done with before the answer: appends that are queued are refused,
 * those being written are waited for, a compaction is stopped, or its commit step was before.
 */
#include <inttypes.h>
#include <string.h>

#include "compact.h"
#include "error.h"
#include "log.h"
#include "store.h"

/* With store->admin held. */
static enum pls_code may_claim(pls_store *store, const uint64_t *if_epoch, struct pls_error *error)
{
    uint64_t now = store->state.epoch;
    enum pls_code code = plsi_store_check_writer(store, now, error);
    if (code == PLS_OK && if_epoch != NULL && *if_epoch != now) {
        code = plsi_fail(error, PLS_EPOCH_DIFFERS, "the epoch is %" PRIu64 ", not %" PRIu64, now,
                         *if_epoch);
    }
    if (code == PLS_OK && now == UINT64_MAX) {
        code = plsi_fail(error, PLS_IDS_USED_UP, "no epoch is left");
    }
    return code;
}

/* With store->admin held. */
static enum pls_code note_claim(pls_store *store, const char *owner, struct pls_error *error)
{
    struct plsi_state state = store->state;
    state.epoch++;
    memset(state.owner, 0, sizeof state.owner);
    memcpy(state.owner, owner, strlen(owner)); /* its length has been checked */
    enum pls_code code = plsi_state_write(store->backend, &state, error);
    if (code == PLS_OK) {
        store->state = state;
    }
    return code;
}

/* From here on appends of no other epoch are taken; those that wait are the caller's to refuse. */
static struct plsi_appends raise_epoch(pls_store *store, uint64_t epoch)
{
    pthread_mutex_lock(&store->queue_lock);
    struct plsi_appends stale = store->queue;
    store->queue = (struct plsi_appends){0};
    atomic_store(&store->epoch, epoch);
    pthread_mutex_unlock(&store->queue_lock);
    return stale;
}

/* Not for the next batches: whoever has the new epoch may keep the writer busy for ever. */
static void wait_for_older_batch(pls_store *store, uint64_t epoch)
{
    pthread_mutex_lock(&store->queue_lock);
    while (store->batch.segment != NULL && store->batch.epoch < epoch) {
        pthread_cond_wait(&store->idle, &store->queue_lock);
    }
    pthread_mutex_unlock(&store->queue_lock);
}

static enum pls_code claim_held(pls_store *store, const char *owner, const uint64_t *if_epoch,
                                uint64_t *epoch, struct pls_error *error)
{
    struct plsi_appends stale = {0};
    pthread_mutex_lock(&store->admin);
    enum pls_code code = may_claim(store, if_epoch, error);
    if (code == PLS_OK) {
        code = note_claim(store, owner, error);
    }
    if (code == PLS_OK) {
        *epoch = store->state.epoch;
        stale = raise_epoch(store, *epoch);
        plsi_compact_stop(store);
    }
    pthread_mutex_unlock(&store->admin);
    if (code == PLS_OK) {
        plsi_appends_fail(&stale, PLS_EPOCH_STALE);
        wait_for_older_batch(store, *epoch);
    }
    return code;
}

/* A store that is not there is not made for a claim that would be refused. */
static enum pls_code open_to_claim(pls_dir *dir, const char *name, const uint64_t *if_epoch,
                                   pls_store **store, struct pls_error *error)
{
    enum pls_code code = plsi_store_open(dir, name, if_epoch, store, error);
    if (code == PLS_EPOCH_STALE) {
        code = plsi_fail(error, PLS_EPOCH_DIFFERS, "%s", pls_strerror(PLS_EPOCH_DIFFERS));
    }
    return code;
}

enum pls_code pls_store_claim(pls_dir *dir, const char *name, const char *owner,
                              const uint64_t *if_epoch, uint64_t *epoch, struct pls_error *error)
{
    plsi_ok(error);
    if (strlen(owner) > PLS_OWNER_MAX) {
        return plsi_fail(error, PLS_INVALID_ARGUMENT, "the owner's text is longer than %d bytes",
                         PLS_OWNER_MAX);
    }
    bool deleted;
    enum pls_code code;
    do { /* again where it is deleted between the two */
        pls_store *store;
        code = open_to_claim(dir, name, if_epoch, &store, error);
        if (code != PLS_OK) {
            return code;
        }
        code = claim_held(store, owner, if_epoch, epoch, error);
        deleted = code == PLS_NO_STORE;
        pls_store_release(store);
    } while (deleted);
    if (code == PLS_OK) {
        plsi_log(dir, PLS_LOG_INFO, name, "claimed", "epoch %" PRIu64 ", for \"%s\"", *epoch,
                 owner);
    }
    return code;
}
