/* Rotation: giving the writer a segment that can take the next record. */
#include "error.h"
#include "log.h"
#include "store.h"

#define STORE_OF(job_) ((pls_store *)((char *)(job_)-offsetof(pls_store, rotate_job)))

bool plsi_segment_usable(const pls_store *store, const struct plsi_segment *segment)
{
    return segment != NULL && !atomic_load(&segment->suspect) && !atomic_load(&segment->full) &&
           atomic_load(&segment->end) <= store->dir->options.segment_max_bytes;
}

enum pls_code plsi_segment_start(pls_store *store, uint32_t id, struct plsi_segment **segment,
                                 struct pls_error *error)
{
    const struct plsi_backend_ops *ops = store->backend->ops;
    char name[PLSI_FILE_NAME];
    plsi_segment_name(id, name);
    enum pls_code code = plsi_table_reserve(&store->table, 1);
    if (code != PLS_OK) {
        return plsi_fail(error, code, "out of memory");
    }
    struct plsi_blob *blob;
    code = ops->create(store->backend, name, &blob, error);
    if (code != PLS_OK) {
        return code;
    }
    *segment =
        plsi_segment_create(&store->dir->blocks, id, blob, plsi_segment_index_file(store, id));
    if (*segment == NULL) {
        plsi_remove_segment(store, id, NULL);
        return plsi_fail(error, PLS_NO_MEMORY, "out of memory");
    }
    plsi_table_add(&store->table, plsi_segment_hold(*segment));
    return PLS_OK;
}

enum pls_code plsi_remove_segment(pls_store *store, uint32_t id, struct pls_error *error)
{
    const struct plsi_backend_ops *ops = store->backend->ops;
    char name[PLSI_FILE_NAME];
    plsi_index_name(id, name);
    enum pls_code code = ops->remove(store->backend, name, error);
    plsi_segment_name(id, name);
    return code == PLS_OK ? ops->remove(store->backend, name, error) : code;
}

void plsi_set_active(pls_store *store, struct plsi_segment *segment)
{
    pthread_mutex_lock(&store->queue_lock);
    struct plsi_segment *before = store->active;
    store->active = segment;
    pthread_mutex_unlock(&store->queue_lock);
    if (before != NULL) {
        plsi_finish_submit(store, before);
    }
    plsi_segment_release(before);
}

enum pls_code plsi_next_segment(pls_store *store, struct pls_error *error)
{
    if (store->next_id > UINT32_MAX) {
        return plsi_fail(error, PLS_IDS_USED_UP, "%s", pls_strerror(PLS_IDS_USED_UP));
    }
    struct plsi_segment *segment = NULL;
    enum pls_code code = plsi_segment_start(store, (uint32_t)store->next_id, &segment, error);
    if (code == PLS_OK || code == PLS_IO) {
        store->next_id++; /* after IO the name may be taken: the next try takes the next one */
    }
    if (code == PLS_OK) {
        plsi_set_active(store, segment);
    }
    return code;
}

/* Before the first write since the start: a crash from here on must not look like a clean close. */
static enum pls_code note_writing(pls_store *store, struct pls_error *error)
{
    if (!store->state.clean) {
        return PLS_OK;
    }
    struct plsi_state state = store->state;
    state.clean = false;
    enum pls_code code = plsi_state_write(store->backend, &state, error);
    if (code == PLS_OK) {
        store->state = state;
    }
    return code;
}

/* With store->admin held. */
static enum pls_code give_segment(pls_store *store, struct pls_error *error)
{
    enum pls_code code = note_writing(store, error);
    if (code != PLS_OK) {
        return code;
    }
    struct plsi_segment *resume = store->resume;
    store->resume = NULL;
    if (plsi_segment_usable(store, resume) && plsi_index_resume(resume->index) == PLS_OK) {
        atomic_store(&resume->finished, false);
        plsi_set_active(store, resume);
        return PLS_OK;
    }
    plsi_segment_release(resume);
    return plsi_next_segment(store, error);
}

void plsi_rotate_job(struct pls_job *job)
{
    pls_store *store = STORE_OF(job);
    struct pls_error error;
    plsi_ok(&error);
    enum pls_code room = plsi_room_take(store->dir, 1);
    if (room != PLS_OK) {
        plsi_append_resume(store, room); /* room.c logs it, once and not for each append */
        return;
    }
    pthread_mutex_lock(&store->admin);
    /* A seal may have been quicker. The writer waits for this job, so nothing else changes
     * `active`. */
    if (!plsi_segment_usable(store, store->active)) {
        give_segment(store, &error);
    }
    pthread_mutex_unlock(&store->admin);
    if (error.code != PLS_OK) {
        plsi_log(store->dir, PLS_LOG_ERROR, store->name, "append_failed", "%s", error.text);
    }
    plsi_append_resume(store, error.code);
}
