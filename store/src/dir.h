/* The data directory as the store's files share it. */
#ifndef PLSI_DIR_H
#define PLSI_DIR_H

#include <pthread.h>
#include <stdint.h>

#include "backend.h"
#include "blocks.h"
#include "pace.h"
#include "payloadstore/payloadstore.h"
#include "pool.h"
#include "room.h"

/*
 * Locks, in the order in which they are taken:
 *
 *   pls_dir.admin        making and deleting stores; held over disk waits, never on a hot path
 *   pls_store.admin      rotation, seal, claim, a compaction's begin and commit; held over disk
 *                        waits
 *   plsi_index.mark_lock a mark being written; held over a disk wait
 *   pls_dir.tree_lock, pls_store.queue_lock, plsi_table.lock, plsi_index.lock,
 *   plsi_block_set.lock, plsi_rings.lock, plsi_pool.lock, plsi_pace.lock     leaves
 */
struct pls_dir {
    struct pls_options options; /* with the defaults put in */
    struct plsi_root *root;
    struct plsi_pool pool;
    struct plsi_blocks blocks; /* of all its stores' indexes and relocation tables */
    struct plsi_room room;
    struct plsi_pace pace; /* of the compactions */
    pthread_mutex_t admin;
    pthread_rwlock_t tree_lock; /* guards the tree */
    void *tree;                 /* tsearch's, of struct pls_store by name */
};

#endif
