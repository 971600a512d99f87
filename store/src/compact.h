/*
 * A compaction as its files share it: compact.c gathers the live refs, rewrite.c rewrites their
 * records, commit.c plans and commits, map.c hands out the result.
 *
 *   state      on disk                        left by
 *   gathering  nothing                        run, destroy
 *   running    outputs under temporary names  the commit; any error, which deletes them
 *   done       committed                      destroy
 *
 * One thread drives it from begin to destroy; only `cancelled` is another's to set.
 *
 * The commit, and what a crash leaves at each step: outputs written and synced under temporary
 * names (deleted by the next open); renamed, the names synced (both copies lie there, the handle is
 * open, old refs read); the state written (the handle is used up); sources deleted one by one (the
 * rest is garbage of the next compaction).
 */
#ifndef PLSI_COMPACT_H
#define PLSI_COMPACT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "payloadstore/payloadstore.h"
#include "segment.h"

/* A sealed segment, and which of its records are live. */
struct plsi_victim {
    uint32_t id;
    struct plsi_segment *segment; /* held until the commit */
    struct plsi_index *index;     /* held to the end: the map is read off it */
    uint64_t n_records;
    uint64_t *live;    /* a bit a record */
    uint32_t *claimed; /* a checksum a walked record, out of live refs, 0: none; or NULL */
    uint64_t live_records, live_bytes;
    bool keep; /* stays in place */
};

struct plsi_output {
    uint32_t id;
    struct plsi_segment *segment; /* held until the commit */
    struct plsi_index *index;
};

struct pls_compact {
    uint32_t magic;
    pls_store *store; /* held */
    struct pls_seal seal;
    struct pls_compact_options options;
    atomic_bool cancelled;
    bool running; /* guarded by store->admin */
    bool committed;

    struct plsi_victim *victims; /* by id, ascending */
    size_t n_victims;
    uint64_t n_given; /* live refs, duplicates counted */
    uint64_t n_loose; /* live refs that no index entry covers */

    struct plsi_output *outputs; /* in the order in which they were written */
    size_t n_outputs, room_outputs;

    struct pls_damaged *damaged;
    size_t n_damaged, room_damaged, next_damaged;

    struct pls_compact_summary summary;
    /* Where next_map goes on: victim and record, output and its entry. */
    size_t map_victim, map_output;
    uint64_t map_record, map_entry;
};

#define PLSI_COPY_BYTES (1u << 20) /* the buffer that records are copied through */

/* What a run carries through its files. */
struct plsi_rewrite {
    struct pls_compact *compact;
    pls_store *store;
    struct pls_error *error;
    void (*report)(void *arg, const struct pls_compact_progress *progress);
    void *report_arg;
    struct pls_compact_progress progress;
    int64_t reported_ms;
    struct plsi_victim *victim; /* the one being rewritten */
    bool check_only;            /* a dry run, or a victim of which one record was found damaged */
    uint8_t *buffer;            /* PLSI_COPY_BYTES */
};

/* Cancels the compaction of a store that is going away, and waits for its end. With store->admin
 * held. */
void plsi_compact_stop(pls_store *store);

/*
 * A live ref that cannot be read. OK where keep_damaged reports it; else the code to end with, the
 * ref in the error's text.
 */
enum pls_code plsi_compact_unreadable(struct pls_compact *compact, const struct pls_ref *ref,
                                      enum pls_code code, struct pls_error *error);

/* The first live record from number i on; n_records where there is none. */
uint64_t plsi_victim_next(const struct plsi_victim *victim, uint64_t i);

/* -- rewrite.c -- */

/* By the monotonic clock. */
int64_t plsi_now_ms(void);
/* Why the run must end now: cancelled, the store gone, another epoch. */
enum pls_code plsi_rewrite_interrupted(struct plsi_rewrite *rw);
/* Copies one segment's live records to the outputs, or only checks them; where it is to stay,
 * leaves no trace of it. */
enum pls_code plsi_rewrite_victim(struct plsi_rewrite *rw, struct plsi_victim *victim);
/* Deletes the last output, which was not published. */
void plsi_rewrite_drop_output(struct plsi_rewrite *rw);

#endif
