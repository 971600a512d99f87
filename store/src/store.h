/*
 * A store as its operations share it.
 *
 *   status    answers      moved there by
 *   open      everything   recover.c
 *   broken    its cause    store.c: it could not be opened; appends, reads and all else are refused
 *   deleted   NO_STORE     delete.c; the object lives on while somebody holds it
 *   closed    CLOSED       dir.c
 *
 * An append goes through append.c (queue, gathered write), where needed rotate.c (a new segment),
 * and sync.c (the shared sync); finish.c closes the books of a segment that takes no more of them.
 * There is one writer at a time: the thread that found `writing` unset and set it.
 */
#ifndef PLSI_STORE_H
#define PLSI_STORE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "backend.h"
#include "dir.h"
#include "payloadstore/payloadstore.h"
#include "segment.h"
#include "state.h"

enum plsi_status { PLSI_OPEN, PLSI_BROKEN, PLSI_DELETED, PLSI_CLOSED };

#define PLSI_BATCH_IOV   1024       /* parts of a gathered write */
#define PLSI_BATCH_BYTES (4u << 20) /* after which a batch takes no further append */

/* Appends, first in, first out. */
struct plsi_appends {
    struct pls_append *first, *last;
    size_t n;
};

/* The gathered write that runs; the writer's own but for `segment`. */
struct plsi_batch {
    struct plsi_appends appends;
    struct plsi_segment *segment; /* held; guarded by queue_lock: a seal or claim waits for it to
                                     go */
    uint64_t epoch;               /* of all its appends; guarded by queue_lock */
    uint64_t offset;              /* in the segment, of the batch's first byte */
    uint64_t bytes;               /* all pieces' */
    uint64_t at;                  /* where the write, a piece of the batch, begins */
    uint64_t piece_bytes;
    struct pls_append *next; /* what the next piece begins with, and with which of its records;
                                NULL: this is the last */
    size_t next_record;
    int n_iov;
    enum pls_code code;
    atomic_int turn; /* who goes on: the second to come, the submitter or the completion */
    struct iovec iov[PLSI_BATCH_IOV];
};

/* How the appends that share a sync gather; guarded by queue_lock. See sync.c. */
struct plsi_sync_group {
    pthread_cond_t gathered;
    size_t wanted;   /* the syncer waits for so many; 0: it does not */
    int64_t sync_ns; /* that a sync takes, and when the last one ended */
    int64_t ended_ns;
    size_t behind;  /* how many waited already when it ended */
    unsigned skips; /* syncs not to wait before, after waiting in vain, */
    unsigned left;  /* and how many of them are left */
};

struct pls_store {
    char name[PLS_NAME_MAX + 1]; /* first: the tree's key */
    atomic_uint references;      /* the directory's tree holds one */
    pls_dir *dir;
    struct plsi_backend *backend; /* NULL where broken */
    struct pls_error cause;       /* of being broken */
    atomic_int status;
    atomic_uint_fast64_t epoch; /* as in `state`; rises under admin and queue_lock, so that all that
                                   is queued is of this epoch */
    atomic_bool
        stopped_writing; /* a commit could be neither finished nor undone: the next open decides */

    pthread_mutex_t admin;          /* guards the next four; see dir.h for its place in the order */
    struct plsi_state state;        /* as it is on disk */
    uint64_t next_id;               /* above every id in use */
    struct plsi_segment *resume;    /* held; goes on being active, once there is an append */
    struct pls_compact *compaction; /* the one that runs */
    pthread_cond_t compaction_ended;

    struct plsi_table table;

    pthread_mutex_t queue_lock; /* a leaf; guards everything below, the batch as it says */
    pthread_cond_t idle;        /* a batch, the writer or the syncer came to its end */
    struct plsi_appends queue;
    atomic_bool writing; /* set under it; looked at without it by who has patience (append.c) */
    struct plsi_segment *active; /* held; NULL: the next append needs one */
    struct plsi_appends to_sync; /* written, waiting for their sync */
    bool syncing;
    struct plsi_sync_group group;
    struct plsi_segment *first_to_finish, *last_to_finish; /* held */
    bool finishing;
    struct plsi_batch batch;
    struct pls_job rotate_job;
    struct pls_job write_job;
    struct pls_job sync_job;
    struct pls_job finish_job;
};

/* -- store.c -- */

/* OK, or what the status answers; fills the error where it is not NULL. */
enum pls_code plsi_store_check(pls_store *store, struct pls_error *error);
/* check, and that `epoch` is the store's. */
enum pls_code plsi_store_check_writer(pls_store *store, uint64_t epoch, struct pls_error *error);

/* As pls_store_open; where epoch is NULL a store is made whatever its name's epoch. */
enum pls_code plsi_store_open(pls_dir *dir, const char *name, const uint64_t *epoch,
                              pls_store **store, struct pls_error *error);

/* Opens what is on disk, making it where `create` is set. With dir->admin held. */
enum pls_code plsi_store_load(pls_dir *dir, const char *name, bool create, pls_store **store,
                              struct pls_error *error);
/* Puts a store into the directory's tree, which takes the reference, and out of it again.
 * NO_MEMORY. */
enum pls_code plsi_dir_add(pls_dir *dir, pls_store *store);
void plsi_dir_remove(pls_dir *dir, pls_store *store);
/* A name whose store cannot be opened: every call is answered with the cause. NO_MEMORY. */
enum pls_code plsi_dir_add_broken(pls_dir *dir, const char *name, const struct pls_error *cause);
/* Waits until no append is queued, being written or synced, and no segment being finished. */
void plsi_store_quiesce(pls_store *store);
/* Syncs everything, notes the clean close. Nothing may use the store any more. */
enum pls_code plsi_store_close(pls_store *store, struct pls_error *error);

/* -- delete.c -- */

/* 32 hexadecimal digits. */
void plsi_incarnation_text(const uint8_t incarnation[16], char text[33]);

/* -- recover.c -- */

/*
 * Fills a new store from its directory: walks the segments, clears away unfinished outputs, settles
 * which segment is active. NO_STORE: there is nothing of a store here, and `create` is not set.
 */
enum pls_code plsi_recover(pls_store *store, bool create, struct pls_error *error);

/* -- missing.c -- */

/* Logs each segment that must have been there and is not. For plsi_recover, once the table stands.
 */
void plsi_log_missing(pls_store *store);

/* -- rotate.c -- */

/* Whether a segment can take the next record. Takes NULL. */
bool plsi_segment_usable(const pls_store *store, const struct plsi_segment *segment);
/* A new, empty, durable segment in the table; the caller's reference in *segment. With store->admin
 * held. */
enum pls_code plsi_segment_start(pls_store *store, uint32_t id, struct plsi_segment **segment,
                                 struct pls_error *error);
/* Deletes a segment's files, its index first: one without a segment would be taken for the trace of
 * a lost one. Durable after sync_names. */
enum pls_code plsi_remove_segment(pls_store *store, uint32_t id, struct pls_error *error);
/* Makes a segment with the next free id and lets it take the appends. With store->admin held. */
enum pls_code plsi_next_segment(pls_store *store, struct pls_error *error);
/* Puts a segment (taken; NULL: none) in the active one's place, which is finished by and by. */
void plsi_set_active(pls_store *store, struct plsi_segment *segment);
/* The job that gives a waiting writer its next segment. */
void plsi_rotate_job(struct pls_job *job);
/* Goes on as the writer; in append.c. */
void plsi_write_job(struct pls_job *job);

/* -- finish.c -- */

/* Opens a new, empty index file for a segment; NULL, logged, where that fails. */
struct plsi_blob *plsi_segment_index_file(pls_store *store, uint32_t id);
/* plsi_segment_finish, a failure logged. */
void plsi_store_finish(pls_store *store, struct plsi_segment *segment, bool synced);
/* The same on an I/O thread, once the write that may still be on its way into it has ended. */
void plsi_finish_submit(pls_store *store, struct plsi_segment *segment);
void plsi_finish_job(struct pls_job *job);

/* -- reindex.c -- */

/*
 * Fills the segment's index, where it was not marked complete, from its data and from what is whole
 * of the old one, which lies in the index's own file (`old`: whether there was one). Sets where the
 * records end.
 */
enum pls_code plsi_reindex(pls_store *store, struct plsi_segment *segment, uint64_t bytes, bool old,
                           struct pls_error *error);

/* -- append.c -- */

/* Goes on writing what is queued, on behalf of the one writer. Where code is not OK, fails it all.
 */
void plsi_append_resume(pls_store *store, enum pls_code code);
/* Whether there is a writer; certain under queue_lock alone. */
static inline bool plsi_has_writer(const pls_store *store)
{
    return atomic_load_explicit(&store->writing, memory_order_relaxed);
}
/* Writes the appends that are left in the queue for the next sync, unless somebody writes. */
void plsi_append_left(pls_store *store);

void plsi_appends_push(struct plsi_appends *list, struct pls_append *append);
struct pls_append *plsi_appends_pop(struct plsi_appends *list);
/* Empties the list, calling each `done` with the code. Under no lock. */
void plsi_appends_fail(struct plsi_appends *list, enum pls_code code);

/* -- sync.c -- */

/* Takes a list of written appends, each with its segment held; calls their `done` after a sync. */
void plsi_sync_submit(pls_store *store, struct plsi_appends *appends);
void plsi_sync_job(struct pls_job *job);
/* After an append was left in the queue for the syncer. With queue_lock held. */
void plsi_sync_wake(pls_store *store);

/* -- resolve.c -- */

/*
 * The segment in which a ref's record lies now, held, and its place there: where the ref says, or
 * where the relocation table does. Waits for the disk. NO_RECORD, DAMAGED.
 */
enum pls_code plsi_resolve(pls_store *store, const struct pls_ref *ref,
                           struct plsi_segment **segment, struct pls_ref *now);

/* -- redo.c -- */

/*
 * What a committed relocation table still asks for: its outputs under their own names, its sources
 * deleted, the state saying so. Done as far as it was done before, it does the rest. BAD_FORMAT,
 * with nothing changed, where an output is missing or not of its recorded size.
 */
enum pls_code plsi_redo(pls_store *store, const struct plsi_relocations *table,
                        struct pls_error *error);
/* Whether a table's work was noted as done. */
bool plsi_redo_is_done(const struct plsi_state *state, const struct plsi_relocations *table);

/* -- read.c -- */

/* False for what could never have been a ref: too long for a payload, or numbers that wrap. */
bool plsi_ref_possible(const struct pls_ref *ref);
/* One record, checked; into `room` (pls_read), unless that is NULL. False, with nothing done, where
 * wait is PLSI_NO_WAIT and it would have to wait. */
bool plsi_segment_read(struct plsi_segment *segment, const struct pls_ref *ref, uint8_t *room,
                       enum plsi_wait wait, struct pls_view *view, enum pls_code *code);

#endif
