/*
 * Compaction: seal, list the live refs, have the server rewrite those and delete the rest, store
 * the map from old refs to new ones.
 */
#ifndef PAYLOADSTORE_CLIENT_COMPACT_H
#define PAYLOADSTORE_CLIENT_COMPACT_H

#include "payloadstore-client/client.h"

#ifdef __cplusplus
extern "C" {
#endif

#define PLC_RETRY_DEFAULT_MS 60000
#define PLC_LIVE_STOP        SIZE_MAX

struct plc_relocation {
    struct plc_ref old_ref; /* as `live` gave it, this time or in a try before */
    struct plc_ref new_ref;
};

struct plc_compact_progress {
    uint64_t records_done, records_total;
    uint64_t bytes_done, bytes_total;
};

struct plc_compact_summary {
    struct plc_seal seal;       /* what was compacted */
    uint64_t live_records;      /* distinct live refs that lay in sealed segments */
    uint64_t relocated_records; /* carried ones included */
    uint64_t relocated_bytes;
    uint64_t kept_segments; /* left in place */
    uint64_t deleted_segments;
    uint64_t reclaimed_bytes;
    bool short_of_room;      /* only what fitted on the disk was compacted; compact again */
    bool damaged_incomplete; /* an answer was lost, and `damaged` may not have been told of all; the
                                next compaction reports them again */
    unsigned tries;          /* streams it took; 1 where no connection was lost */
};

/*
 * What plc_compact asks and tells, on the calling thread. They may make calls on any client, not
 * plc_compact on the same store.
 */
struct plc_compact_callbacks {
    /*
     * Lists the live refs from the beginning. Called after the Seal has answered and before the
     * first `live` of every try: what is live is to be looked up now, not remembered from before.
     * False stops the compaction: nothing was changed. NULL where `live` needs no beginning.
     */
    bool (*live_begin)(void *arg, const struct plc_seal *seal);
    /*
     * Puts up to `max` live refs into `refs` and returns how many; 0: that were all;
     * PLC_LIVE_STOP: the list cannot be had, nothing was changed. In any order; twice is the same
     * as once; refs beyond the seal do no harm. Within 60 s, or the server gives up. Required.
     */
    size_t (*live)(void *arg, struct plc_ref *refs, size_t max);
    /*
     * The compaction has committed: each new_ref is to be stored in place of its old_ref. Every
     * relocation is told at least once, and again from the first one on where the connection was
     * lost meanwhile. False stops the telling with STOPPED; the old refs go on reading until the
     * next compaction, which is to be given them, or the new ones, as live. Required but in a dry
     * run, in which it is not called.
     */
    bool (*relocated)(void *arg, const struct plc_relocation *relocations, size_t n);
    /* With keep_damaged: live refs that cannot be read. More than once for one perhaps. Or NULL. */
    void (*damaged)(void *arg, const struct plc_damaged *damaged, size_t n);
    /* A few a second. Or NULL. */
    void (*progress)(void *arg, const struct plc_compact_progress *progress);
    void *arg;
};

struct plc_compact_options {
    unsigned min_garbage_percent; /* leave a segment where less of it is garbage; 0: rewrite all */
    bool dry_run;                 /* check and count, change nothing */
    bool keep_damaged; /* report live refs that cannot be read, and compact the rest; otherwise one
                          ends the compaction */
    /*
     * Carry over, live or not, what was appended within this time before the Seal: it may have been
     * answered after the live refs were listed. At least the client's append_deadline_ms and the
     * age of its oldest append without an answer are taken; more is needed only where others write
     * to the store with longer deadlines.
     */
    uint64_t carry_recent_ms;
    bool carry_nothing; /* nobody appends to the store but who has its refs listed: carry nothing */
    int64_t retry_ms;   /* how long to try again where the server is lost, counted anew each time;
                           PLC_RETRY_DEFAULT_MS; below 0: do not */
};

/*
 * Compacts a store. `call` is as ever, but its deadline_ms is for the whole of it, and 0 means
 * none: a dead server is found in 30 s. `options` and `summary` may be NULL.
 *
 * A lost connection is tried again with the same seal handle: with the list once more where the
 * commit was not sent, else by asking for the map alone first. So it is compacted once. A caller
 * that dies calls plc_compact again when it lives: its old refs still read, and are live refs.
 *
 * Errors: LIVE_REF_UNREADABLE (the message names it), COMPACTION_RUNNING, EPOCH_STALE, STOPPED,
 * RESOURCE_EXHAUSTED, DISK_RESERVE, HANDLE_SUPERSEDED (somebody else compacts), NOT_FOUND,
 * REF_NOT_KEPT. After UNAVAILABLE, DEADLINE_EXCEEDED and CANCELLED it may have committed, as it has
 * after `relocated` was called: compact again.
 */
PLC_API enum plc_code plc_compact(plc_client *client, const struct plc_call *call,
                                  const struct plc_compact_options *options,
                                  const struct plc_compact_callbacks *callbacks,
                                  struct plc_compact_summary *summary, struct plc_error *error);

#ifdef __cplusplus
}
#endif

#endif
