/* A store's life: found or made, held, closed. */
#include "store.h"

#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "log.h"

_Static_assert(offsetof(pls_store, name) == 0, "the tree compares stores as strings");

static bool is_letter_or_digit(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool pls_name_valid(const char *name)
{
    size_t n = 0;
    if (!is_letter_or_digit(name[0])) {
        return false;
    }
    while (is_letter_or_digit(name[n]) || name[n] == '.' || name[n] == '_' || name[n] == '-') {
        n++;
    }
    return name[n] == '\0' && n <= PLS_NAME_MAX;
}

const char *pls_store_name(const pls_store *store)
{
    return store->name;
}

enum pls_code plsi_store_check(pls_store *store, struct pls_error *error)
{
    switch ((enum plsi_status)atomic_load(&store->status)) {
    case PLSI_OPEN:
        return PLS_OK;
    case PLSI_BROKEN:
        return plsi_fail(error, store->cause.code, "%s", store->cause.text);
    case PLSI_DELETED:
        return plsi_fail(error, PLS_NO_STORE, "%s", pls_strerror(PLS_NO_STORE));
    case PLSI_CLOSED:
        break;
    }
    return plsi_fail(error, PLS_CLOSED, "%s", pls_strerror(PLS_CLOSED));
}

enum pls_code plsi_store_check_writer(pls_store *store, uint64_t epoch, struct pls_error *error)
{
    enum pls_code code = plsi_store_check(store, error);
    if (code == PLS_OK && atomic_load(&store->stopped_writing)) {
        return plsi_fail(
            error, PLS_IO,
            "the disk failed in a compaction's commit: writing goes on after a restart");
    }
    if (code == PLS_OK && epoch != atomic_load(&store->epoch)) {
        return plsi_fail(error, PLS_EPOCH_STALE, "%s", pls_strerror(PLS_EPOCH_STALE));
    }
    return code;
}

/* -- making and freeing ------------------------------------------------------------------------ */

static pls_store *store_create(pls_dir *dir, const char *name)
{
    pls_store *store = calloc(1, sizeof *store);
    if (store == NULL) {
        return NULL;
    }
    strncpy(store->name, name, PLS_NAME_MAX);
    store->dir = dir;
    atomic_init(&store->references, 1);
    atomic_init(&store->status, PLSI_OPEN);
    store->rotate_job.run = plsi_rotate_job;
    store->write_job.run = plsi_write_job;
    store->sync_job.run = plsi_sync_job;
    store->finish_job.run = plsi_finish_job;
    plsi_table_init(&store->table);
    pthread_mutex_init(&store->admin, NULL);
    pthread_mutex_init(&store->queue_lock, NULL);
    pthread_cond_init(&store->idle, NULL);
    pthread_cond_init(&store->group.gathered, NULL);
    pthread_cond_init(&store->compaction_ended, NULL);
    return store;
}

static void store_destroy(pls_store *store)
{
    plsi_segment_release(store->active);
    plsi_segment_release(store->resume);
    plsi_table_fini(&store->table);
    if (store->backend != NULL) {
        store->backend->ops->close(store->backend);
    }
    pthread_cond_destroy(&store->compaction_ended);
    pthread_cond_destroy(&store->group.gathered);
    pthread_cond_destroy(&store->idle);
    pthread_mutex_destroy(&store->queue_lock);
    pthread_mutex_destroy(&store->admin);
    free(store);
}

void pls_store_release(pls_store *store)
{
    if (store != NULL &&
        atomic_fetch_sub_explicit(&store->references, 1, memory_order_acq_rel) == 1) {
        store_destroy(store);
    }
}

enum pls_code plsi_store_load(pls_dir *dir, const char *name, bool create, pls_store **store,
                              struct pls_error *error)
{
    pls_store *loaded = store_create(dir, name);
    if (loaded == NULL) {
        plsi_fail(error, PLS_NO_MEMORY, "out of memory");
        return PLS_NO_MEMORY;
    }
    enum pls_code code = dir->root->ops->store(dir->root, name, create, &loaded->backend, error);
    if (code == PLS_OK) {
        code = plsi_recover(loaded, create, error);
    }
    if (code != PLS_OK) {
        store_destroy(loaded);
        plsi_wrap(error, code, "store %s", name);
        return code;
    }
    *store = loaded;
    return PLS_OK;
}

/* -- finding ----------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* Held; NULL where the tree has none of that name. */
static pls_store *look_up(pls_dir *dir, const char *name)
{
    pthread_rwlock_rdlock(&dir->tree_lock);
    pls_store *const *node = tfind(name, &dir->tree, by_name);
    pls_store *store = node != NULL ? *node : NULL;
    if (store != NULL) {
        atomic_fetch_add_explicit(&store->references, 1, memory_order_relaxed);
    }
    pthread_rwlock_unlock(&dir->tree_lock);
    return store;
}

enum pls_code plsi_dir_add(pls_dir *dir, pls_store *store)
{
    pthread_rwlock_wrlock(&dir->tree_lock);
    void *node = tsearch(store, &dir->tree, by_name);
    pthread_rwlock_unlock(&dir->tree_lock);
    return node != NULL ? PLS_OK : PLS_NO_MEMORY;
}

void plsi_dir_remove(pls_dir *dir, pls_store *store)
{
    pthread_rwlock_wrlock(&dir->tree_lock);
    tdelete(store, &dir->tree, by_name);
    pthread_rwlock_unlock(&dir->tree_lock);
    pls_store_release(store);
}

enum pls_code plsi_dir_add_broken(pls_dir *dir, const char *name, const struct pls_error *cause)
{
    pls_store *store = store_create(dir, name);
    if (store == NULL) {
        return PLS_NO_MEMORY;
    }
    store->cause = *cause;
    atomic_store(&store->status, PLSI_BROKEN);
    enum pls_code code = plsi_dir_add(dir, store);
    if (code != PLS_OK) {
        store_destroy(store);
    }
    return code;
}

enum pls_code pls_store_find(pls_dir *dir, const char *name, pls_store **store,
                             struct pls_error *error)
{
    if (!pls_name_valid(name)) {
        return plsi_fail(error, PLS_INVALID_NAME, "%s", pls_strerror(PLS_INVALID_NAME));
    }
    *store = look_up(dir, name);
    if (*store == NULL) {
        return plsi_fail(error, PLS_NO_STORE, "%s", pls_strerror(PLS_NO_STORE));
    }
    enum pls_code code = plsi_store_check(*store, error);
    if (code != PLS_OK) {
        pls_store_release(*store);
        *store = NULL;
    }
    return code;
}

/* Reads the epoch that a name has kept, 0 where it was never used, leaving all as it is. */
static enum pls_code epoch_of_name(pls_dir *dir, const char *name, uint64_t *epoch,
                                   struct pls_error *error)
{
    struct plsi_backend *backend;
    *epoch = 0;
    enum pls_code code = dir->root->ops->store(dir->root, name, false, &backend, error);
    if (code == PLS_NO_STORE) {
        return plsi_ok(error);
    }
    if (code == PLS_OK) {
        struct plsi_state state;
        bool found;
        code = plsi_state_read(backend, &state, &found, error);
        if (code == PLS_OK && found) {
            *epoch = state.epoch;
        }
        backend->ops->close(backend);
    }
    return code == PLS_OK ? code : plsi_wrap(error, code, "store %s", name);
}

static enum pls_code may_make(pls_dir *dir, const char *name, uint64_t epoch,
                              struct pls_error *error)
{
    uint64_t kept;
    enum pls_code code = epoch_of_name(dir, name, &kept, error);
    if (code == PLS_OK && epoch != kept) {
        code = plsi_fail(error, PLS_EPOCH_STALE, "%s", pls_strerror(PLS_EPOCH_STALE));
    }
    return code;
}

/* Held for the caller, and in the tree. With dir->admin held. */
static enum pls_code make_store(pls_dir *dir, const char *name, pls_store **store,
                                struct pls_error *error)
{
    pls_store *made = NULL;
    enum pls_code code = plsi_store_load(dir, name, true, &made, error);
    if (code != PLS_OK) {
        return code;
    }
    atomic_fetch_add(&made->references, 1);
    code = plsi_dir_add(dir, made);
    if (code != PLS_OK) {
        plsi_store_quiesce(made);
        store_destroy(made);
        return plsi_fail(error, code, "out of memory");
    }
    *store = made;
    return plsi_ok(error);
}

enum pls_code plsi_store_open(pls_dir *dir, const char *name, const uint64_t *epoch,
                              pls_store **store, struct pls_error *error)
{
    enum pls_code code = pls_store_find(dir, name, store, error);
    if (code != PLS_NO_STORE) {
        return code;
    }
    bool made = false;
    pthread_mutex_lock(&dir->admin);
    code = pls_store_find(dir, name, store, error); /* somebody may have been quicker */
    if (code == PLS_NO_STORE) {
        code = epoch != NULL ? may_make(dir, name, *epoch, error) : PLS_OK;
        code = code == PLS_OK ? make_store(dir, name, store, error) : code;
        made = code == PLS_OK;
    }
    pthread_mutex_unlock(&dir->admin);
    if (made) {
        plsi_log(dir, PLS_LOG_INFO, name, "store_created", "made the store");
    }
    return code;
}

enum pls_code pls_store_open(pls_dir *dir, const char *name, uint64_t epoch, pls_store **store,
                             struct pls_error *error)
{
    return plsi_store_open(dir, name, &epoch, store, error);
}

/* -- closing ----------------------------------------------------------------------------------- */

void plsi_store_quiesce(pls_store *store)
{
    pthread_mutex_lock(&store->queue_lock);
    while (plsi_has_writer(store) || store->syncing || store->finishing) {
        pthread_cond_wait(&store->idle, &store->queue_lock);
    }
    pthread_mutex_unlock(&store->queue_lock);
}

static enum pls_code sync_all(pls_store *store, struct pls_error *error)
{
    enum pls_code first = PLS_OK;
    for (size_t i = 0; i < store->table.n; i++) {
        struct plsi_segment *segment = store->table.segments[i];
        bool synced = !atomic_load(&segment->unsynced);
        if (atomic_load(&segment->suspect) || (!synced && plsi_segment_sync(segment) != PLS_OK)) {
            first = plsi_fail(error, PLS_IO, "store %s: segment %u could not be synced",
                              store->name, segment->id);
        } else {
            plsi_store_finish(store, segment, true);
        }
    }
    return first;
}

enum pls_code plsi_store_close(pls_store *store, struct pls_error *error)
{
    plsi_store_quiesce(store);
    bool open = atomic_load(&store->status) == PLSI_OPEN;
    if (open) {
        atomic_store(&store->status, PLSI_CLOSED);
    }
    enum pls_code code = sync_all(store, error);
    const struct plsi_segment *last = store->active != NULL ? store->active : store->resume;
    if (code != PLS_OK || !open || last == NULL || (last == store->resume && store->state.clean)) {
        return code; /* it cannot be vouched for, or there is nothing to note */
    }
    struct plsi_state state = store->state;
    state.next_id = store->next_id;
    state.clean = true;
    state.clean_id = last->id;
    state.clean_bytes = atomic_load(&last->bytes);
    return plsi_state_write(store->backend, &state, error);
}
