/*
 * Where a ref lies now: in the segment it names, or where the last compaction's relocation table
 * says.
 */
#include "store.h"

/* One look-up. OK with *segment NULL: a commit came between, look again. */
static enum pls_code follow(pls_store *store, struct plsi_relocations *table,
                            const struct pls_ref *ref, struct plsi_segment **segment,
                            struct pls_ref *now)
{
    struct plsi_moved moved;
    uint64_t i;
    enum pls_code code = plsi_relocations_find(table, ref->file_id, ref->offset, &moved, &i);
    if (code != PLS_OK) {
        return code == PLS_IO ? PLS_DAMAGED : code;
    }
    if (moved.length != ref->length) {
        return PLS_NO_RECORD;
    }
    if (ref->crc32c != 0 && ref->crc32c != moved.crc32c) {
        return PLS_DAMAGED;
    }
    *now = plsi_moved_to(&moved);
    *segment = plsi_table_find(&store->table, now->file_id);
    if (*segment != NULL) {
        return PLS_OK;
    }
    struct plsi_relocations *current = plsi_table_relocations(&store->table);
    plsi_relocations_release(current);
    return current == table ? PLS_NO_RECORD : PLS_OK;
}

enum pls_code plsi_resolve(pls_store *store, const struct pls_ref *ref,
                           struct plsi_segment **segment, struct pls_ref *now)
{
    enum pls_code code = PLS_OK;
    *now = *ref;
    *segment = plsi_table_find(&store->table, ref->file_id);
    while (code == PLS_OK && *segment == NULL) {
        struct plsi_relocations *table = plsi_table_relocations(&store->table);
        code = table != NULL ? follow(store, table, ref, segment, now) : PLS_NO_RECORD;
        plsi_relocations_release(table);
    }
    return code;
}
