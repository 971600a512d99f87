/*
 * Segments that vanished: not in the directory any more, and nobody here deleted them.
 *
 * An id that is not there says nothing by itself: ids are left out, and compactions delete. These
 * are known to have been there, whichever way the store was closed:
 *
 *   evidence                                 the segment
 *   store.state of a clean close             the one that was active
 *   store.state, the last seal               the one it made active, sealed id + 2: only the
 *                                            compaction of a later seal deletes it
 *   relocations.tab, its work done           the outputs, and what was kept in place
 *
 * Each is logged. Nothing else comes of it: another program may have compacted the directory. A ref
 * into one is NO_RECORD, and a name the table forwards into one too; as a live ref it aborts a
 * compaction, or is reported with keep_damaged, and holds no segment. What does not point there is
 * compacted as ever.
 */
#include <inttypes.h>

#include "log.h"
#include "store.h"

#define EVENTS_MAX 100 /* of one open; the rest is counted */

struct missing {
    pls_store *store;
    uint32_t n;
};

static void look_for(struct missing *missing, uint32_t id, const char *evidence)
{
    pls_store *store = missing->store;
    struct plsi_segment *segment = plsi_table_find(&store->table, id);
    plsi_segment_release(segment);
    if (segment == NULL && missing->n++ < EVENTS_MAX) {
        plsi_log(store->dir, PLS_LOG_WARNING, store->name, "segment_missing",
                 "segment %" PRIu32 ", %s, is gone: refs into it are not found", id, evidence);
    }
}

static void look_for_relocated(struct missing *missing, const struct plsi_relocations *table)
{
    for (uint32_t i = 0; i < table->n_segments; i++) {
        if (table->segments[i].role == PLSI_ROLE_OUTPUT) {
            look_for(missing, table->segments[i].id, "which the last compaction wrote");
        } else if (table->segments[i].role == PLSI_ROLE_KEPT) {
            look_for(missing, table->segments[i].id, "which the last compaction left in place");
        }
    }
}

void plsi_log_missing(pls_store *store)
{
    const struct plsi_state *state = &store->state;
    struct missing missing = {.store = store};
    if (state->clean) {
        look_for(&missing, state->clean_id, "which was active at the last close");
    }
    if (state->sealed && !(state->clean && state->clean_id == state->seal.compaction_id + 1)) {
        look_for(&missing, state->seal.compaction_id + 1, "which the last seal made");
    }
    struct plsi_relocations *table = plsi_table_relocations(&store->table);
    if (table != NULL) {
        look_for_relocated(&missing, table);
    }
    plsi_relocations_release(table);
    if (missing.n > EVENTS_MAX) {
        plsi_log(store->dir, PLS_LOG_WARNING, store->name, "segment_missing",
                 "%" PRIu32 " segments more are gone", missing.n - EVENTS_MAX);
    }
}
