/*
 * DeleteStore: the state that says so is written first; from then on the store is gone, and what a
 * crash leaves of its segments the next open deletes (recover.c).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ages.h"
#include "compact.h"
#include "error.h"
#include "log.h"
#include "store.h"

void plsi_incarnation_text(const uint8_t incarnation[16], char text[33])
{
    for (int i = 0; i < 16; i++) {
        snprintf(text + (size_t)i * 2, 3, "%02x", incarnation[i]);
    }
}

/* With store->admin held. */
static enum pls_code may_delete(pls_store *store, uint64_t epoch, const char *incarnation,
                                struct pls_error *error)
{
    enum pls_code code = plsi_store_check_writer(store, epoch, error);
    if (code != PLS_OK || incarnation == NULL || incarnation[0] == '\0') {
        return code;
    }
    char mine[33];
    plsi_incarnation_text(store->state.incarnation, mine);
    if (strcmp(mine, incarnation) != 0) {
        return plsi_fail(error, PLS_INCARNATION_DIFFERS, "%s",
                         pls_strerror(PLS_INCARNATION_DIFFERS));
    }
    return PLS_OK;
}

/* New calls are refused from here on; those that run come to their end. */
static void stop_calls(pls_store *store)
{
    pthread_mutex_lock(&store->queue_lock);
    atomic_store(&store->status, PLSI_DELETED);
    pthread_mutex_unlock(&store->queue_lock);
    plsi_compact_stop(store);
    pthread_mutex_unlock(&store->admin); /* a writer may wait for its next segment */
    plsi_store_quiesce(store);
    pthread_mutex_lock(&store->admin);
}

static enum pls_code note_deleted(pls_store *store, struct pls_error *error)
{
    struct plsi_state state = {
        .deleted = true, .next_id = store->next_id, .epoch = store->state.epoch};
    memcpy(state.incarnation, store->state.incarnation, sizeof state.incarnation);
    return plsi_state_write(store->backend, &state, error);
}

/*
 * The deletion could not be noted, and may stand on disk all the same. Where the state from before
 * can be written again, the store goes on; else it takes nothing more, since a payload answered now
 * might be deleted by the next open.
 */
static void take_back(pls_store *store, const struct pls_error *why)
{
    if (plsi_state_write(store->backend, &store->state, NULL) == PLS_OK) {
        atomic_store(&store->status, PLSI_OPEN);
        return;
    }
    plsi_fail(&store->cause, why->code, "a deletion failed half way, the next start decides: %s",
              why->text);
    atomic_store(&store->status, PLSI_BROKEN);
}

/* What cannot be deleted now, the next open deletes. */
static void remove_segments(pls_store *store)
{
    size_t n;
    struct plsi_segment **all = plsi_table_hold_all(&store->table, UINT32_MAX, &n);
    struct pls_error error = {0};
    for (size_t i = 0; all != NULL && i < n; i++) {
        if (plsi_remove_segment(store, all[i]->id, &error) != PLS_OK) {
            plsi_log(store->dir, PLS_LOG_WARNING, store->name, "delete_failed", "%s", error.text);
        }
        plsi_table_remove(&store->table, all[i]->id);
    }
    plsi_table_release_all(all, n);
    plsi_table_set_relocations(&store->table, NULL);
    store->backend->ops->remove(store->backend, PLSI_RELOCATIONS_FILE, NULL);
    plsi_ages_remove(store, UINT32_MAX);
    store->backend->ops->sync_names(store->backend, NULL);
}

static enum pls_code delete_held(pls_store *store, uint64_t epoch, const char *incarnation,
                                 struct pls_error *error)
{
    pthread_mutex_lock(&store->admin);
    enum pls_code code = may_delete(store, epoch, incarnation, error);
    if (code == PLS_OK) {
        stop_calls(store);
        code = note_deleted(store, error);
        if (code == PLS_OK) {
            remove_segments(store);
        } else {
            take_back(store, error);
        }
    }
    pthread_mutex_unlock(&store->admin);
    return code;
}

enum pls_code pls_store_delete(pls_dir *dir, const char *name, uint64_t epoch,
                               const char *incarnation, struct pls_error *error)
{
    struct pls_error own;
    error = error != NULL ? error : &own;
    plsi_ok(error);
    pls_store *store;
    pthread_mutex_lock(&dir->admin);
    enum pls_code code = pls_store_find(dir, name, &store, error);
    if (code == PLS_OK) {
        code = delete_held(store, epoch, incarnation, error);
        if (code == PLS_OK) {
            plsi_dir_remove(dir, store);
        }
        pls_store_release(store);
    }
    pthread_mutex_unlock(&dir->admin);
    if (code == PLS_OK) {
        plsi_log(dir, PLS_LOG_INFO, name, "store_deleted", "deleted the store");
    }
    return code;
}
