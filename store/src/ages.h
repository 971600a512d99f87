/*
 * How old the records of the sealed segments were at a Seal: the file `seal_NNNN.ages`, one a
 * handle, which carry_recent_ms is measured by.
 *
 * Ages, not moments: they hold after a restart of the process and of the machine. The file is
 * there before the handle is recorded, and goes once it is closed. Where it is missing, damaged or
 * of a version unknown here, nothing is known, and so everything counts as recent. FORMAT.md has it
 * byte by byte.
 */
#ifndef PLSI_AGES_H
#define PLSI_AGES_H

#include "recent.h"
#include "store.h"

#define PLSI_AGES_MAX 200 /* runs in a file: no more fit into PLSI_META_MAX */

/*
 * Stores the ages of all records up to the end of segment `sealed_id`, as of `now`; what is
 * appended there afterwards is younger than all. With store->admin held.
 */
enum pls_code plsi_ages_write(pls_store *store, uint32_t sealed_id, int64_t now,
                              struct pls_error *error);
/*
 * The ages of a handle, in *runs: `ms` is 0 less the age. Empty, and logged, where nothing is known
 * of it, or where another compaction has moved records since. `standing` is the relocation table in
 * force; it may be NULL.
 */
void plsi_ages_read(pls_store *store, uint32_t sealed_id, const struct plsi_relocations *standing,
                    struct plsi_runs *runs);
/* Takes away the ages of a handle, whether there are any or not. */
void plsi_ages_forget(pls_store *store, uint32_t sealed_id);
/* Takes away the ages of the open handles up to `sealed_id`; what fails the next open does. With
 * store->admin held. */
void plsi_ages_remove(pls_store *store, uint32_t sealed_id);

/* Whether a file bears the name of ages, or of ages half written; whose in *sealed_id. */
bool plsi_ages_is_file(const char *name, uint32_t *sealed_id);
/* A plsi_list_fn on a store: takes away what belongs to no open handle. */
bool plsi_ages_sweep(void *store, const char *name, uint64_t size);

#endif
