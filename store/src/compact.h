/*
 * A compaction as its files share it: compact.c gathers the live refs, rewrite.c rewrites their
 * records, map.c writes the relocation table and reads the answer off it, plan.c
 * plans and commit.c commits.
 *
 *   state      on disk                            left by
 *   gathering  nothing                            run, destroy
 *   running    outputs and table, not in force    the commit; any error, which deletes them
 *   undecided  what the failed rename left        the next open of the store
 *   done       committed                          destroy
 *   replay     committed by an earlier call       destroy
 *
 * One thread drives it from begin to destroy; only `cancelled` is another's to set.
 *
 * The commit is the rename of the relocation table to its own name. What a crash leaves before it
 * the next open deletes; what it leaves after it the next open finishes (redo.c).
 */
#ifndef PLSI_COMPACT_H
#define PLSI_COMPACT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "check.h"
#include "payloadstore/payloadstore.h"
#include "segment.h"

/* A sealed segment, and which of its records are live. */
struct plsi_victim {
    uint32_t id;
    struct plsi_segment *segment; /* held until the commit */
    uint64_t n_records;
    uint64_t *live;    /* a bit a record */
    uint64_t *given;   /* a bit a record: given by this very name; NULL: all live ones were */
    uint64_t *carried; /* a bit a record: live only because it is recent; or NULL */
    uint64_t carried_records;
    uint64_t live_records, live_bytes;
    bool keep; /* stays in place */
    /* Once all is rewritten: how many records were moved before this segment's first, and before
     * each PLSI_RANK_RECORDS-th. */
    uint64_t first_rank;
    uint64_t *ranks;
};

#define PLSI_RANK_RECORDS 512u

struct plsi_output {
    uint32_t id;
    struct plsi_segment *segment; /* held until the commit */
    struct plsi_cursor cursor;    /* over its index, until then */
    uint64_t first_rank;          /* how many records were moved before its first */
};

struct pls_compact {
    uint32_t magic;
    pls_store *store; /* held */
    struct pls_seal seal;
    struct pls_compact_options options;
    atomic_bool cancelled;
    bool running; /* guarded by store->admin */
    bool committed;
    bool undecided; /* the commit failed half-way: outputs and table stay for the next open */
    bool replay;    /* of a compaction that has committed: there is nothing to do but to answer */

    struct plsi_victim *victims; /* by id, ascending */
    size_t n_victims;
    uint64_t n_given; /* live refs, duplicates counted */
    uint64_t n_loose; /* live refs that no index entry covers */

    struct plsi_output *outputs; /* in the order in which they were written */
    size_t n_outputs, room_outputs;

    struct pls_damaged *damaged;
    size_t n_damaged, room_damaged, next_damaged;

    /* Names that the last compaction forwards, and which of them are given now: a bit an entry. */
    struct plsi_relocations *standing; /* held; NULL: there are none */
    uint64_t *standing_given;
    uint64_t *standing_carried; /* not given, and forwarded all the same; or NULL: none */

    struct pls_compact_summary summary;
    struct plsi_relocations *result; /* held: the map */
    struct plsi_table_cursor cursor; /* where next_map goes on */
};

/* What a run carries through its files. */
struct plsi_rewrite {
    struct pls_compact *compact;
    pls_store *store;
    struct pls_error *error;
    void (*report)(void *arg, const struct pls_compact_progress *progress);
    void *report_arg;
    struct pls_compact_progress progress;
    int64_t reported_ms;
    int64_t piece_ns;           /* when the last piece was begun, or the copying */
    bool resting;               /* between pieces, which are small ones then: others call */
    struct plsi_victim *victim; /* the one being rewritten */
    bool check_only;            /* a dry run, or a victim of which one record was found damaged */
    struct plsi_check check;    /* of the victim; its buffer has PLSI_CHECK_BYTES */
};

/*
 * Cancels a compaction that may not commit any more, the store being deleted or its epoch another,
 * and waits for its end. With store->admin held, which it lets go meanwhile.
 */
void plsi_compact_stop(pls_store *store);
/* What a cancelled compaction ends with: EPOCH_STALE where it was a claim's doing, else CANCELLED.
 */
enum pls_code plsi_compact_cancelled(const struct pls_compact *compact, struct pls_error *error);

/*
 * A live ref that cannot be read. OK where keep_damaged reports it; else the code to end with, the
 * ref in the error's text.
 */
enum pls_code plsi_compact_unreadable(struct pls_compact *compact, const struct pls_ref *ref,
                                      enum pls_code code, struct pls_error *error);

struct plsi_victim *plsi_victim_of(struct pls_compact *compact, uint32_t id);

/* The first live record from number i on; n_records where there is none. */
uint64_t plsi_victim_next(const struct plsi_victim *victim, uint64_t i);

/* -- plan.c -- */

/* Decides what is rewritten: what stays is marked, what there is to do is in `progress`.
 * EXPECTED_LIVE_DIFFERS, NO_SPACE, NO_MEMORY. */
enum pls_code plsi_plan(struct plsi_rewrite *rw);

/* -- map.c -- */

/* How many names of the last compaction's table were given or are recent: the next one has them. */
uint64_t plsi_names_forwarded(const struct pls_compact *compact);

/* Makes plsi_new_place possible, once all is rewritten. NO_MEMORY. */
enum pls_code plsi_rank_records(struct pls_compact *compact);
/* Where record i of a rewritten segment, live, lies now. DAMAGED, NO_MEMORY: the output's index
 * cannot be read. Before the commit. */
enum pls_code plsi_new_place(struct pls_compact *compact, const struct plsi_victim *victim,
                             uint64_t i, struct pls_ref *place);
/* A live ref that was not given by its own name, by the first older one that it was given by. Reads
 * the table from its beginning: for the damaged few. */
void plsi_given_name(struct pls_compact *compact, struct pls_ref *ref);
/* Writes the relocation table under its temporary name; it is compact->result. */
enum pls_code plsi_write_table(struct pls_compact *compact, struct plsi_backend *backend,
                               struct pls_error *error);

/* Records that were moved before record i of a rewritten segment, which need not be live. */
uint64_t plsi_rank(const struct plsi_victim *victim, uint64_t i);

/* -- carry.c -- */

/*
 * With carry_recent_ms: makes live what is recent and was not given, forwards the older names of
 * what is recent, and leaves in place a segment of which recent bytes are in no index. Once all
 * live refs were given. Waits for the disk. NO_MEMORY, IO.
 */
enum pls_code plsi_carry(struct pls_compact *compact, struct pls_error *error);
/* Gives the outputs' records the moments at which they were first appended. After
 * plsi_rank_records. NO_MEMORY, DAMAGED. */
enum pls_code plsi_carry_moments(struct pls_compact *compact);

/* -- rewrite.c -- */

/* Why the run must end now: cancelled, the store gone, another epoch. */
enum pls_code plsi_rewrite_interrupted(struct plsi_rewrite *rw);
/* Copies one segment's live records to the outputs, or only checks them; where it is to stay,
 * leaves no trace of it. */
enum pls_code plsi_rewrite_victim(struct plsi_rewrite *rw, struct plsi_victim *victim);
/* Deletes the last output, which was not published. */
void plsi_rewrite_drop_output(struct plsi_rewrite *rw);

#endif
