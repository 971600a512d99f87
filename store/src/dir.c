/* The data directory: opened, listed, closed. */
#include "dir.h"

#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "log.h"
#include "store.h"

#define SEGMENT_MAX_LIMIT  (1ull << 40) /* bytes */
#define IO_THREADS_DEFAULT 8
#define IO_THREADS_MAX     1024

static enum pls_code settle_options(struct pls_options *settled, const struct pls_options *given,
                                    struct pls_error *error)
{
    *settled = given != NULL ? *given : (struct pls_options){0};
    if (settled->segment_max_bytes == 0) {
        settled->segment_max_bytes = PLS_SEGMENT_MAX_DEFAULT;
    }
    if (settled->payload_max_bytes == 0) {
        settled->payload_max_bytes = PLS_PAYLOAD_MAX_DEFAULT;
    }
    if (settled->io_threads == 0) {
        settled->io_threads = IO_THREADS_DEFAULT;
    }
    if (settled->segment_max_bytes > SEGMENT_MAX_LIMIT ||
        settled->payload_max_bytes > PLS_PAYLOAD_LIMIT || settled->io_threads > IO_THREADS_MAX) {
        return plsi_fail(error, PLS_INVALID_ARGUMENT, "%s", pls_strerror(PLS_INVALID_ARGUMENT));
    }
    return PLS_OK;
}

/* -- loading the stores ------------------------------------------------------------------------ */

struct loading {
    pls_dir *dir;
    enum pls_code code;
};

/* One store that cannot be opened must not take the others with it. */
static bool load_store(void *arg, const char *name, uint64_t size)
{
    struct loading *loading = arg;
    pls_dir *dir = loading->dir;
    (void)size;
    if (!pls_name_valid(name)) {
        return true;
    }
    struct pls_error error;
    pls_store *store;
    enum pls_code code = plsi_store_load(dir, name, false, &store, &error);
    if (code == PLS_NO_STORE) {
        return true; /* deleted, or no store of ours at all */
    }
    if (code == PLS_OK) {
        loading->code = plsi_dir_add(dir, store);
        if (loading->code != PLS_OK) {
            plsi_store_quiesce(store);
            pls_store_release(store);
        }
        return loading->code == PLS_OK;
    }
    plsi_log(dir, PLS_LOG_ERROR, name, "store_broken", "%s", error.text);
    loading->code = plsi_dir_add_broken(dir, name, &error);
    return loading->code == PLS_OK;
}

static enum pls_code load_stores(pls_dir *dir, struct pls_error *error)
{
    struct loading loading = {.dir = dir};
    enum pls_code code = dir->root->ops->list(dir->root, load_store, &loading, error);
    if (code == PLS_OK && loading.code != PLS_OK) {
        code = plsi_fail(error, loading.code, "%s", pls_strerror(loading.code));
    }
    return code;
}

/* -- open and close ---------------------------------------------------------------------------- */

enum pls_code pls_dir_open(const char *path, const struct pls_options *options, pls_dir **out,
                           struct pls_error *error)
{
    plsi_ok(error);
    pls_dir *dir = calloc(1, sizeof *dir);
    if (dir == NULL) {
        return plsi_fail(error, PLS_NO_MEMORY, "out of memory");
    }
    enum pls_code code = settle_options(&dir->options, options, error);
    if (code == PLS_OK) {
        code = plsi_files_open(path, &dir->root, error);
    }
    if (code != PLS_OK) {
        goto free;
    }
    code = plsi_room_init(dir, error);
    if (code != PLS_OK) {
        goto close_root;
    }
    if (plsi_pool_init(&dir->pool, dir->options.io_threads) != 0) {
        code = plsi_fail(error, PLS_NO_MEMORY, "no memory for the I/O threads");
        goto close_root;
    }
    plsi_blocks_init(&dir->blocks);
    plsi_pace_init(&dir->pace);
    pthread_mutex_init(&dir->admin, NULL);
    pthread_rwlock_init(&dir->tree_lock, NULL);
    *out = dir;
    code = load_stores(dir, error);
    if (code != PLS_OK) {
        pls_dir_close(dir); /* from here on it is whole enough to be closed */
        *out = NULL;
    }
    return code;

close_root:
    dir->root->ops->close(dir->root);
free:
    free(dir);
    return code;
}

/* The tree's root is its own first node: the one store that any tree has. */
static pls_store *any_store(const pls_dir *dir)
{
    return dir->tree != NULL ? **(pls_store * *const *)&dir->tree : NULL;
}

enum pls_code pls_dir_close(pls_dir *dir)
{
    if (dir == NULL) {
        return PLS_OK;
    }
    enum pls_code first = PLS_OK;
    pls_store *store;
    while ((store = any_store(dir)) != NULL) {
        struct pls_error error;
        enum pls_code code = plsi_store_close(store, &error);
        if (code != PLS_OK) {
            plsi_log(dir, PLS_LOG_ERROR, store->name, "close_failed", "%s", error.text);
            first = first == PLS_OK ? code : first;
        }
        plsi_dir_remove(dir, store);
    }
    plsi_pool_fini(&dir->pool);
    pthread_rwlock_destroy(&dir->tree_lock);
    pthread_mutex_destroy(&dir->admin);
    plsi_blocks_fini(&dir->blocks);
    plsi_pace_fini(&dir->pace);
    dir->root->ops->close(dir->root);
    free(dir);
    return first;
}

void pls_dir_run(pls_dir *dir, struct pls_job *job)
{
    plsi_pool_run(&dir->pool, job);
}

/* -- listing ----------------------------------------------------------------------------------- */

struct listing {
    const char *after;
    char (*names)[PLS_NAME_MAX + 1];
    size_t n, max;
    bool more;
};

static void list_store(const void *node, VISIT visit, void *arg)
{
    struct listing *listing = arg;
    const pls_store *store = *(pls_store *const *)node;
    if ((visit != postorder && visit != leaf) || strcmp(store->name, listing->after) <= 0) {
        return;
    }
    if (listing->n == listing->max) {
        listing->more = true;
        return;
    }
    memcpy(listing->names[listing->n++], store->name, sizeof store->name);
}

size_t pls_dir_list(pls_dir *dir, const char *after, char (*names)[PLS_NAME_MAX + 1], size_t max,
                    bool *more)
{
    struct listing listing = {.after = after, .names = names, .max = max};
    pthread_rwlock_rdlock(&dir->tree_lock);
    twalk_r(dir->tree, list_store, &listing);
    pthread_rwlock_unlock(&dir->tree_lock);
    *more = listing.more;
    return listing.n;
}
