/* Stat: what a store holds, and what it takes up. */
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "store.h"

static bool add_usage(void *arg, const char *name, uint64_t size)
{
    uint64_t *usage = arg;
    uint32_t id;
    enum plsi_file_kind kind = plsi_file_kind(name, &id);
    if (kind == PLSI_FILE_SEGMENT || kind == PLSI_FILE_PAYLOAD) {
        *usage += size;
    }
    return true;
}

static enum pls_code stat_segments(pls_store *store, struct pls_stat *stat, struct pls_error *error)
{
    size_t n;
    struct plsi_segment **all = plsi_table_hold_all(&store->table, UINT32_MAX, &n);
    stat->segments = calloc(n + 1, sizeof *stat->segments);
    if (all == NULL || stat->segments == NULL) {
        plsi_table_release_all(all, n);
        return plsi_fail(error, PLS_NO_MEMORY, "out of memory");
    }
    for (size_t i = 0; i < n; i++) {
        stat->segments[i] = (struct pls_segment_stat){
            .file_id = all[i]->id,
            .active = all[i]->id == stat->active_id,
            .bytes = atomic_load(&all[i]->bytes),
            .records = plsi_index_count(all[i]->index),
        };
        stat->records += stat->segments[i].records;
    }
    stat->n_segments = n;
    plsi_table_release_all(all, n);
    return PLS_OK;
}

/* The segment that takes the next append; where it must be made first, the id it will have. */
static uint32_t active_id(pls_store *store)
{
    pthread_mutex_lock(&store->queue_lock);
    struct plsi_segment *active = store->active != NULL ? store->active : store->resume;
    uint64_t id = active != NULL ? active->id : store->next_id;
    pthread_mutex_unlock(&store->queue_lock);
    return id > UINT32_MAX ? UINT32_MAX : (uint32_t)id; /* none is left: the last one there was */
}

static void stat_state(pls_store *store, struct pls_stat *stat)
{
    pthread_mutex_lock(&store->admin);
    stat->active_id = active_id(store);
    stat->epoch = store->state.epoch;
    memcpy(stat->owner, store->state.owner, sizeof stat->owner);
    stat->sealed = store->state.sealed;
    stat->last_seal = store->state.seal;
    plsi_incarnation_text(store->state.incarnation, stat->incarnation);
    pthread_mutex_unlock(&store->admin);
}

enum pls_code pls_store_stat(pls_store *store, struct pls_stat *stat, struct pls_error *error)
{
    plsi_ok(error);
    *stat = (struct pls_stat){.payload_max_bytes = store->dir->options.payload_max_bytes};
    enum pls_code code = plsi_store_check(store, error);
    if (code != PLS_OK) {
        return code;
    }
    const struct plsi_backend_ops *ops = store->backend->ops;
    code = ops->list(store->backend, add_usage, &stat->disk_usage_bytes, error);
    if (code == PLS_OK &&
        plsi_room_stat(store->dir, &stat->free_bytes, &stat->appends_stopped) != PLS_OK) {
        code = plsi_fail(error, PLS_IO, "the free space of the disk cannot be told");
    }
    if (code == PLS_OK) {
        stat_state(store, stat);
        code = stat_segments(store, stat, error);
    }
    if (code != PLS_OK) {
        pls_stat_fini(stat);
    }
    return code;
}

void pls_stat_fini(struct pls_stat *stat)
{
    free(stat->segments);
    *stat = (struct pls_stat){0};
}
