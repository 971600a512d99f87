/*
 * Compaction, third part: what plan.c chose is rewritten, one commit, then the sources go.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "ages.h"
#include "clock.h"
#include "compact.h"
#include "error.h"
#include "log.h"
#include "store.h"

static void summarise(struct plsi_rewrite *rw)
{
    struct pls_compact_summary *summary = &rw->compact->summary;
    *summary = (struct pls_compact_summary){.live_records = rw->compact->n_loose,
                                            .short_of_room = summary->short_of_room};
    uint64_t deleted_bytes = 0;
    for (size_t i = 0; i < rw->compact->n_victims; i++) {
        const struct plsi_victim *victim = &rw->compact->victims[i];
        summary->live_records += victim->live_records - victim->carried_records;
        if (victim->keep) {
            summary->kept_segments++;
            continue;
        }
        summary->relocated_records += victim->live_records;
        summary->relocated_bytes += victim->live_bytes;
        summary->deleted_segments++;
        deleted_bytes += atomic_load(&victim->segment->bytes);
    }
    /* The outputs hold the relocated records and nothing else. */
    summary->reclaimed_bytes =
        deleted_bytes > summary->relocated_bytes ? deleted_bytes - summary->relocated_bytes : 0;
}

/* -- the commit -------------------------------------------------------------------------------- */

/* The disk takes the last of them while the table is written. */
static void push_outputs(const struct pls_compact *compact)
{
    for (size_t i = 0; i < compact->n_outputs; i++) {
        struct plsi_segment *segment = compact->outputs[i].segment;
        segment->blob->ops->write_behind(segment->blob, 0, atomic_load(&segment->end));
    }
}

static enum pls_code sync_outputs(struct plsi_rewrite *rw)
{
    for (size_t i = 0; i < rw->compact->n_outputs; i++) {
        struct plsi_segment *segment = rw->compact->outputs[i].segment;
        if (plsi_segment_sync(segment) != PLS_OK) {
            return plsi_fail(rw->error, PLS_IO, "syncing output %" PRIu32, segment->id);
        }
        plsi_store_finish(rw->store, segment, true); /* an index can be made again */
    }
    return PLS_OK;
}

/* The commit. Where it fails nobody knows which of the two tables the disk has: the next open will
 * see. */
static enum pls_code rename_table(struct plsi_rewrite *rw)
{
    const struct plsi_backend_ops *ops = rw->store->backend->ops;
    enum pls_code code = ops->replace(rw->store->backend, PLSI_RELOCATIONS_TEMPORARY,
                                      PLSI_RELOCATIONS_FILE, rw->error);
    if (code == PLS_OK) {
        code = ops->sync_names(rw->store->backend, rw->error);
    }
    if (code != PLS_OK) {
        rw->compact->undecided = true;
        atomic_store(&rw->store->stopped_writing, true);
        return plsi_wrap(rw->error, PLS_IO, "whether the compaction has committed is not known");
    }
    return PLS_OK;
}

/* The outputs stand in for the sources, at once for every reader. */
static void switch_over(struct plsi_rewrite *rw)
{
    struct pls_compact *compact = rw->compact;
    struct plsi_table *table = &rw->store->table;
    for (size_t i = 0; i < compact->n_outputs; i++) {
        plsi_cursor_fini(&compact->outputs[i].cursor);
        plsi_table_add(table, compact->outputs[i].segment);
        compact->outputs[i].segment = NULL;
    }
    plsi_table_set_relocations(table, plsi_relocations_hold(compact->result));
    for (size_t i = 0; i < compact->n_victims; i++) {
        struct plsi_victim *victim = &compact->victims[i];
        if (!victim->keep) {
            plsi_table_remove(table, victim->id);
        }
        plsi_segment_release(victim->segment);
        victim->segment = NULL;
    }
    plsi_ages_remove(rw->store, compact->seal.sealed_id);
    /* Not on disk yet, but no seal may give this handle again, nor one before it be compacted. */
    plsi_state_close_seals(&rw->store->state, compact->seal.sealed_id);
    compact->committed = true;
}

static enum pls_code commit(struct plsi_rewrite *rw)
{
    pthread_mutex_lock(&rw->store->admin);
    enum pls_code code = plsi_rewrite_interrupted(rw);
    if (code == PLS_OK && plsi_table_reserve(&rw->store->table, rw->compact->n_outputs) != PLS_OK) {
        code = plsi_fail(rw->error, PLS_NO_MEMORY, "out of memory");
    }
    if (code == PLS_OK) {
        code = rename_table(rw);
    }
    if (code == PLS_OK) {
        switch_over(rw);
    }
    pthread_mutex_unlock(&rw->store->admin);
    return code;
}

/* After the commit the call has succeeded, whatever the disk says now: the next open does the rest.
 */
static void finish(struct plsi_rewrite *rw)
{
    struct pls_error error;
    if (plsi_redo(rw->store, rw->compact->result, &error) != PLS_OK) {
        atomic_store(&rw->store->stopped_writing, true);
        plsi_log(rw->store->dir, PLS_LOG_ERROR, rw->store->name, "commit_unfinished",
                 "%s; the store takes no writes until it is opened again", error.text);
    }
}

/* -- the run ----------------------------------------------------------------------------------- */

static enum pls_code rewrite_all(struct plsi_rewrite *rw)
{
    struct pls_compact *compact = rw->compact;
    enum pls_code code = plsi_plan(rw);
    plsi_pace_begin(&rw->store->dir->pace);
    rw->piece_ns = plsi_now_ns();
    for (size_t i = 0; i < compact->n_victims && code == PLS_OK; i++) {
        if (!compact->victims[i].keep) {
            code = plsi_rewrite_victim(rw, &compact->victims[i]);
        }
    }
    if (code != PLS_OK) {
        return code;
    }
    summarise(rw);
    if (compact->options.dry_run) {
        return PLS_OK;
    }
    push_outputs(compact);
    code = plsi_write_table(compact, rw->store->backend, rw->error);
    if (code == PLS_OK) {
        enum pls_code dated = plsi_carry_moments(compact);
        code = dated == PLS_OK ? PLS_OK
                               : plsi_fail(rw->error, dated == PLS_NO_MEMORY ? dated : PLS_IO,
                                           "dating the rewritten records: %s", pls_strerror(dated));
    }
    return code == PLS_OK ? sync_outputs(rw) : code;
}

/* Before the commit every error leaves nothing behind. */
static void clear_up(struct plsi_rewrite *rw)
{
    const struct plsi_backend_ops *ops = rw->store->backend->ops;
    while (rw->compact->n_outputs > 0) {
        plsi_rewrite_drop_output(rw);
    }
    ops->remove(rw->store->backend, PLSI_RELOCATIONS_TEMPORARY, NULL);
    plsi_relocations_release(rw->compact->result);
    rw->compact->result = NULL;
}

static enum pls_code run(struct plsi_rewrite *rw)
{
    enum pls_code code = rewrite_all(rw);
    if (code == PLS_OK && !rw->compact->options.dry_run) {
        code = commit(rw);
    }
    if (rw->compact->committed) {
        finish(rw);
    } else if (code != PLS_OK && !rw->compact->undecided) {
        clear_up(rw);
    }
    return code;
}

/* False where the store has let go of this compaction: it was deleted, or claimed. */
static bool set_running(struct pls_compact *compact, bool running)
{
    pls_store *store = compact->store;
    pthread_mutex_lock(&store->admin);
    bool mine = store->compaction == compact;
    compact->running = mine && running;
    if (mine && !running) {
        store->compaction = NULL;
        pthread_cond_broadcast(&store->compaction_ended);
    }
    pthread_mutex_unlock(&store->admin);
    return mine;
}

static void log_end(const struct plsi_rewrite *rw, enum pls_code code)
{
    const struct pls_compact_summary *s = &rw->compact->summary;
    if (code != PLS_OK) {
        plsi_log(rw->store->dir, PLS_LOG_WARNING, rw->store->name, "compaction_aborted", "%s",
                 rw->error->text);
    } else if (!rw->compact->options.dry_run) {
        plsi_log(rw->store->dir, PLS_LOG_INFO, rw->store->name, "compacted",
                 "%" PRIu64 " live records moved, %" PRIu64 " segments deleted, %" PRIu64
                 " kept, %" PRIu64 " bytes reclaimed%s",
                 s->relocated_records, s->deleted_segments, s->kept_segments, s->reclaimed_bytes,
                 s->short_of_room ? "; there was no room for more" : "");
    }
}

enum pls_code pls_compact_run(pls_compact *compact,
                              void (*progress)(void *arg,
                                               const struct pls_compact_progress *progress),
                              void *arg, struct pls_error *error)
{
    struct pls_error own;
    struct plsi_rewrite rw = {.compact = compact,
                              .store = compact->store,
                              .error = error != NULL ? error : &own,
                              .report = progress,
                              .report_arg = arg,
                              .reported_ms = plsi_now_ms()};
    plsi_ok(rw.error);
    if (compact->replay) {
        compact->summary = compact->standing->summary;
        compact->result = plsi_relocations_hold(compact->standing);
        return PLS_OK;
    }
    if (!set_running(compact, true)) {
        return plsi_compact_cancelled(compact, rw.error);
    }
    enum pls_code code = plsi_check_init(&rw.check, PLSI_CHECK_BYTES);
    code = code == PLS_OK ? run(&rw) : plsi_fail(rw.error, code, "out of memory");
    plsi_check_fini(&rw.check);
    log_end(&rw, code);
    set_running(compact, false);
    return code;
}
