/*
 * After a compaction's commit: what its relocation table says is done, at run time by the
 * compaction, after a crash by the next open.
 *
 *   a crash after             finds                           and does
 *   the table's rename        outputs under temporary names   all of it
 *   some outputs' renames     either name                     the other renames, the rest
 *   some sources' deletions   the other sources               their deletion
 *   the note in the state     nothing to do                   nothing: ids may have been used since
 */
#include <inttypes.h>

#include "error.h"
#include "store.h"

/* NO_RECORD where there is no such file. */
static enum pls_code size_of(pls_store *store, const char *name, uint64_t *bytes,
                             struct pls_error *error)
{
    struct plsi_blob *blob;
    enum pls_code code = store->backend->ops->open(store->backend, name, &blob, bytes, error);
    if (code == PLS_OK) {
        blob->ops->release(blob);
    }
    return code;
}

/* An output must be there, whole, under one of its names. */
static enum pls_code check_output(pls_store *store, const struct plsi_table_segment *output,
                                  struct pls_error *error)
{
    char name[PLSI_FILE_NAME];
    uint64_t bytes = 0;
    plsi_segment_name(output->id, name);
    enum pls_code code = size_of(store, name, &bytes, error);
    if (code == PLS_NO_RECORD) {
        char temporary[PLSI_FILE_NAME];
        plsi_output_name(output->id, temporary);
        code = size_of(store, temporary, &bytes, error);
    }
    if (code == PLS_NO_RECORD || (code == PLS_OK && bytes != output->bytes)) {
        return plsi_fail(error, PLS_BAD_FORMAT,
                         "%s, which the last compaction wrote, is missing or not %" PRIu64
                         " bytes long: its sources are kept, and the store stays closed",
                         name, output->bytes);
    }
    return code;
}

static enum pls_code publish_output(pls_store *store, const struct plsi_table_segment *output,
                                    struct pls_error *error)
{
    char from[PLSI_FILE_NAME], to[PLSI_FILE_NAME];
    plsi_output_name(output->id, from);
    plsi_segment_name(output->id, to);
    enum pls_code code = store->backend->ops->publish(store->backend, from, to, error);
    return code == PLS_NO_RECORD ? PLS_OK : code; /* done before: check_output has seen it */
}

static enum pls_code remove_source(pls_store *store, const struct plsi_table_segment *source,
                                   struct pls_error *error)
{
    return plsi_remove_segment(store, source->id, error);
}

static enum pls_code
for_each(pls_store *store, const struct plsi_relocations *table, enum plsi_role role,
         enum pls_code (*step)(pls_store *store, const struct plsi_table_segment *segment,
                               struct pls_error *error),
         struct pls_error *error)
{
    enum pls_code code = PLS_OK;
    for (uint32_t i = 0; i < table->n_segments && code == PLS_OK; i++) {
        if (table->segments[i].role == role) {
            code = step(store, &table->segments[i], error);
        }
    }
    return code;
}

static enum pls_code note_done(pls_store *store, const struct plsi_relocations *table,
                               struct pls_error *error)
{
    pthread_mutex_lock(&store->admin);
    struct plsi_state state = store->state;
    plsi_state_close_seals(&state, table->seal.sealed_id);
    state.has_done = true;
    state.done_id = table->seal.sealed_id;
    state.clean = false;
    if (store->next_id > state.next_id) {
        state.next_id = store->next_id;
    }
    enum pls_code code = plsi_state_write(store->backend, &state, error);
    if (code == PLS_OK) {
        store->state = state;
    }
    pthread_mutex_unlock(&store->admin);
    return code;
}

bool plsi_redo_is_done(const struct plsi_state *state, const struct plsi_relocations *table)
{
    return state->has_done && state->done_id == table->seal.sealed_id;
}

enum pls_code plsi_redo(pls_store *store, const struct plsi_relocations *table,
                        struct pls_error *error)
{
    const struct plsi_backend_ops *ops = store->backend->ops;
    enum pls_code code = for_each(store, table, PLSI_ROLE_OUTPUT, check_output, error);
    if (code == PLS_OK) {
        code = for_each(store, table, PLSI_ROLE_OUTPUT, publish_output, error);
    }
    if (code == PLS_OK) {
        code = ops->sync_names(store->backend, error); /* before the first deletion */
    }
    if (code == PLS_OK) {
        code = for_each(store, table, PLSI_ROLE_SOURCE, remove_source, error);
    }
    if (code == PLS_OK) {
        code = ops->sync_names(store->backend, error);
    }
    return code == PLS_OK ? note_done(store, table, error) : code;
}
