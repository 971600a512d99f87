/*
 * payloadstore: an embeddable store of payloads, append-only segments under a data directory.
 *
 * A data directory holds named stores; a store holds payloads, each found again by its ref. Formats
 * and promises stand in store/README.md.
 *
 * Threads. Every function may be called from any thread. Callbacks run either on the calling thread
 * before the function returns, or on a thread of the store; they must not block and must not call
 * pls_dir_close or pls_store_delete. Functions marked "waits for the disk" do so on the calling
 * thread.
 *
 * Lifetimes.
 *
 *   object         made by             kept alive by                  gone with
 *   pls_dir        pls_dir_open        its maker                      pls_dir_close
 *   pls_store      pls_store_open      each opener's reference        the last pls_store_release
 *   pls_append,    the caller          the caller, until callback     -
 *   pls_read
 *   pls_view       a read's callback   a reference-counted buffer     pls_view_release
 *   pls_compact    pls_compact_begin   its maker; holds its store     pls_compact_destroy
 *   pls_verify     pls_verify_begin    its maker; holds its store     pls_verify_destroy
 *
 * Arguments are borrowed for the call unless said otherwise.
 */
#ifndef PAYLOADSTORE_PAYLOADSTORE_H
#define PAYLOADSTORE_PAYLOADSTORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "payloadstore/error.h"

#ifdef __cplusplus
extern "C" {
#endif

#define PLS_NAME_MAX            128         /* characters of a store's name */
#define PLS_OWNER_MAX           255         /* bytes of an owner's text */
#define PLS_PARTS_MAX           1000        /* parts of one payload given to pls_append */
#define PLS_BATCH_MAX           65536u      /* payloads given to pls_append_batch */
#define PLS_PAYLOAD_LIMIT       0x7fffffffu /* bytes; a payload is under 2 GiB, whatever the options */
#define PLS_SEGMENT_MAX_DEFAULT (256ull << 20) /* bytes */
#define PLS_PAYLOAD_MAX_DEFAULT (64u << 20)    /* bytes */
#define PLS_RESERVE_NONE        UINT64_MAX     /* appends may fill the disk */

typedef struct pls_dir pls_dir;
typedef struct pls_store pls_store;

/* -- the data directory ------------------------------------------------------------------------ */

enum pls_log_level { PLS_LOG_DEBUG, PLS_LOG_INFO, PLS_LOG_WARNING, PLS_LOG_ERROR };

/*
 * One event. `event` is a word a program can look for ("recovered"), `store` is NULL where none is
 * concerned, `text` is for people. From any thread, more than one at a time. Must not call back
 * into the library: a store may be half opened or half deleted around it.
 */
typedef void pls_log_fn(void *arg, enum pls_log_level level, const char *store, const char *event,
                        const char *text);

/* Zero means the default everywhere. */
struct pls_options {
    uint64_t segment_max_bytes; /* a segment larger than this takes no more records; 256 MiB */
    uint32_t payload_max_bytes; /* larger ones are refused; 64 MiB, PLS_PAYLOAD_LIMIT at most */
    unsigned io_threads;        /* threads that wait for the disk; 8 */
    /* Appends stop while the file system has no more bytes free for us than these, which
     * compaction, seal and claim may use; 512 MiB, or 5 % of the file system where that is less. Or
     * PLS_RESERVE_NONE. */
    uint64_t reserve_bytes;
    /* That compactions copy, all stores' together; no limit. Each byte is read and written once.
     * While others append or read, a compaction rests 15 times as long as it works anyhow, or as
     * long as it works where less was copied than was appended since; 2 ms a piece of 128 KiB at
     * most. */
    uint64_t compaction_max_bytes_per_second;
    pls_log_fn *log; /* NULL: nothing is logged */
    void *log_arg;
};

/*
 * Makes the directory where it is missing, locks it against other processes and opens the stores in
 * it. Waits for the disk. A store that cannot be opened is logged, and answers every call with the
 * cause; the others work. Errors: LOCKED (the text names the holder's process id), DENIED, IO,
 * NO_SPACE, NO_MEMORY, INVALID_ARGUMENT (also a reserve that leaves nothing of the file system).
 */
PLS_API enum pls_code pls_dir_open(const char *path, const struct pls_options *options,
                                   pls_dir **dir, struct pls_error *error);

/*
 * Waits for what runs, syncs every store, notes the clean close and unlocks. Every reference to a
 * store, every compaction and every scrub must have been given back; views may live on. Waits for
 * the disk. Takes NULL. Returns the first failure to sync, after which the next open starts a new
 * segment as after a crash.
 */
PLS_API enum pls_code pls_dir_close(pls_dir *dir);

/* Runs job->run(job) once on one of the directory's I/O threads, which may wait for the disk. The
 * job stays in place until then. Never fails. */
struct pls_job {
    void (*run)(struct pls_job *job);
    struct pls_job *next; /* private */
};
PLS_API void pls_dir_run(pls_dir *dir, struct pls_job *job);

/*
 * The names of up to `max` stores that come after `after` ("" for the first) in byte order.
 * Returns how many; *more says whether others follow.
 */
PLS_API size_t pls_dir_list(pls_dir *dir, const char *after, char (*names)[PLS_NAME_MAX + 1],
                            size_t max, bool *more);

/* -- stores ------------------------------------------------------------------------------------ */

/* True for [A-Za-z0-9][A-Za-z0-9._-]{0,127}. */
PLS_API bool pls_name_valid(const char *name);

/*
 * Finds an open store, without waiting. The caller releases it. Errors: INVALID_NAME, NO_STORE,
 * or what kept the store from opening.
 */
PLS_API enum pls_code pls_store_find(pls_dir *dir, const char *name, pls_store **store,
                                     struct pls_error *error);

/*
 * Finds a store, making it where there is none. Waits for the disk. The caller releases it. `epoch`
 * is the writer's, and looked at only where the store has to be made: a name keeps its epoch over a
 * deletion (0: never used), and only its holder may bring it to life again. Errors: INVALID_NAME,
 * EPOCH_STALE (nothing was made), IO, NO_SPACE, NO_MEMORY, or what kept the store from opening.
 */
PLS_API enum pls_code pls_store_open(pls_dir *dir, const char *name, uint64_t epoch,
                                     pls_store **store, struct pls_error *error);

/* Takes NULL. */
PLS_API void pls_store_release(pls_store *store);

PLS_API const char *pls_store_name(const pls_store *store);

/*
 * Deletes a store and its payloads. Its name keeps epoch and next segment id for ever, so that refs
 * into the old store never meet the payloads of a later one. A running compaction is cancelled;
 * reads that run finish. `incarnation` is checked where not NULL or empty. Waits for the disk.
 * Errors: INVALID_NAME, NO_STORE, EPOCH_STALE, INCARNATION_DIFFERS, IO, NO_SPACE.
 */
PLS_API enum pls_code pls_store_delete(pls_dir *dir, const char *name, uint64_t epoch,
                                       const char *incarnation, struct pls_error *error);

/* -- claim ------------------------------------------------------------------------------------- */

/*
 * Makes the caller the only writer: *epoch is one more than the name's epoch before it, kept for
 * ever, past a deletion too. Makes the store where there is none. Once this has returned, nothing
 * of an older epoch is written: appends that still waited got EPOCH_STALE, and so does a compaction
 * that had not committed. `owner` is text for people, PLS_OWNER_MAX bytes at most. Where if_epoch
 * is not NULL, only if that is the epoch now (0: never claimed). Waits for the disk, and for a
 * running compaction to end. Errors, after which nothing is claimed: INVALID_NAME, INVALID_ARGUMENT
 * (owner), EPOCH_DIFFERS, IDS_USED_UP (no epoch is left), NO_SPACE, IO, NO_MEMORY, CLOSED, or what
 * kept the store from opening.
 */
PLS_API enum pls_code pls_store_claim(pls_dir *dir, const char *name, const char *owner,
                                      const uint64_t *if_epoch, uint64_t *epoch,
                                      struct pls_error *error);

/* -- append ------------------------------------------------------------------------------------ */

/* Where a payload lies. */
struct pls_ref {
    uint32_t file_id; /* the segment */
    uint64_t offset;  /* of the record's length prefix, in bytes */
    uint32_t length;  /* payload bytes */
    uint32_t crc32c;  /* of the payload; 0 in a caller's ref: not given */
};

enum pls_durability {
    PLS_BUFFERED, /* in the operating system's cache: survives the process */
    PLS_SYNCED    /* on the device */
};

struct pls_append;
typedef void pls_append_fn(struct pls_append *append, enum pls_code code);

/* A request; its owner may embed it. Must stay in place until `done` is called. */
struct pls_append {
    const struct iovec *payload; /* the parts of one payload, in order; borrowed until `done` */
    int n_payload;               /* up to PLS_PARTS_MAX */
    enum pls_durability durability;
    uint64_t epoch; /* the writer's; 0 where the store was never claimed */
    pls_append_fn *done;
    void *data; /* the caller's */

    struct pls_ref ref; /* the answer, set before done(append, PLS_OK) */

    struct pls_append *next; /* from here on private */
    struct plsi_segment *segment;
    struct pls_record *records;
    size_t n_records;
    uint64_t bytes;
    enum pls_code refusal;
    uint8_t prefix[4];
};

/*
 * Appends a payload and calls append->done exactly once. Appends that wait share one gathered write
 * and, where SYNCED, one sync. Errors: PAYLOAD_TOO_LARGE, EPOCH_STALE, DISK_RESERVE (the payload
 * would take of the reserve) and NO_SPACE (nothing of the payload stays), after both of which the
 * next append works once there is room, whoever made it, IO (it may have been written, but is
 * not answered; a new segment takes over), IDS_USED_UP, NO_STORE (deleted meanwhile), CLOSED,
 * NO_MEMORY.
 */
PLS_API void pls_append(pls_store *store, struct pls_append *append);

/*
 * The same for n appends at once, each as pls_append does it, with a `done` and a code of its own:
 * they are in the queue together, so that one gathered write can take them all. The array is the
 * caller's again on return. Waits some microseconds, 20 or so at most, where another thread writes
 * just then: not for `done` to call.
 */
PLS_API void pls_append_several(pls_store *store, struct pls_append *const *appends, size_t n);

/* One payload of a batch. */
struct pls_record {
    struct iovec payload; /* borrowed until `done` */
    struct pls_ref ref;   /* the answer, set before done(append, PLS_OK) */
    uint8_t prefix[4];    /* private */
};

/*
 * Appends n payloads (1 to PLS_BATCH_MAX) as one: side by side in one segment, all of them or none.
 * Calls append->done exactly once; append's payload and ref are not looked at. `records` stays in
 * place until then. Until it has succeeded nothing of the batch can be read, and after a failure
 * neither, but for IO, where its bytes may lie in the file, under refs that nobody was given: so
 * may those of a batch that the death of the process cut off, or a part of them. A segment that a
 * batch would overfill by more than a record is left as it is, and the next one takes the batch;
 * one that is larger than a segment has a segment to itself. Errors: as pls_append's,
 * PAYLOAD_TOO_LARGE for one too large payload among them; INVALID_ARGUMENT for another n.
 */
PLS_API void pls_append_batch(pls_store *store, struct pls_append *append,
                              struct pls_record *records, size_t n);

/* -- read -------------------------------------------------------------------------------------- */

/* Bytes that stay as they are until pls_view_release. */
struct pls_view {
    const uint8_t *data;
    size_t length; /* bytes */
    struct plsi_buffer *owner;
};

/* From any thread; never waits. Takes a zeroed view. */
PLS_API void pls_view_release(struct pls_view *view);

struct pls_read;
typedef void pls_read_fn(struct pls_read *read, enum pls_code code);

/* A request; its owner may embed it. Must stay in place until `done` is called. */
struct pls_read {
    struct pls_ref ref;
    uint8_t *room; /* where the record is to be read; NULL: into memory of the store's */
    pls_read_fn *done;
    void *data; /* the caller's */

    struct pls_view view; /* the answer, the callback's to release, set before done(read, PLS_OK) */

    struct pls_job job; /* from here on private */
    pls_store *store;
    struct plsi_segment *segment;
};

/*
 * A read into the caller's memory: `room` has place for PLS_ROOM(ref.length) bytes, borrowed until
 * `done`. The payload is at room + PLS_ROOM(0) then, where the view points, which owns nothing; the
 * bytes before it hold what they like, and after a failure all of them do.
 */
#define PLS_ROOM(length) ((size_t)4 + (length))

/*
 * Reads the payload of a ref and calls read->done exactly once: on the calling thread where the
 * bytes are in the operating system's cache, else on an I/O thread. The bytes are checked against
 * every checksum known. Errors: INVALID_REF, NO_RECORD, DAMAGED, NO_STORE, NO_MEMORY.
 */
PLS_API void pls_read(pls_store *store, struct pls_read *read);

/*
 * Reads n payloads, each as pls_read does it, in any order: reads[i].done is called once for each,
 * with its own code. The array stays in place until the last one. Records that lie side by side are
 * read from the file at once, where their refs follow each other in the array; views that own their
 * memory share it then, up to 256 KiB that the last of them gives back.
 */
PLS_API void pls_read_batch(pls_store *store, struct pls_read *reads, size_t n);

/* -- seal and compaction ----------------------------------------------------------------------- */

struct pls_seal {
    uint32_t sealed_id;     /* every segment up to and including this one is frozen */
    uint32_t compaction_id; /* kept free for what compaction rewrites */
};

/*
 * Freezes every segment and starts a new one. With nothing appended and nothing compacted since the
 * last seal, gives that handle again. Waits for the disk. Errors: EPOCH_STALE, IDS_USED_UP,
 * NO_SPACE, IO, NO_STORE, CLOSED; after each of them appends go on as before.
 */
PLS_API enum pls_code pls_store_seal(pls_store *store, uint64_t epoch, struct pls_seal *seal,
                                     struct pls_error *error);

typedef struct pls_compact pls_compact;

struct pls_compact_options {
    uint64_t epoch;
    bool check_expected_live;
    uint64_t expected_live;       /* refs that will be given, duplicates counted */
    unsigned min_garbage_percent; /* leave a segment where less of it is garbage; 0: rewrite all */
    bool dry_run;                 /* check and count, change nothing */
    bool map_only;                /* the map of a compaction that has committed, once more */
    bool keep_damaged; /* report unreadable live refs and go on, their segments staying */
    uint64_t
        carry_recent_ms; /* carry over what was appended so recently before the Seal; 0: none */
};

struct pls_compact_progress {
    uint64_t records_done, records_total;
    uint64_t bytes_done, bytes_total; /* prefixes included */
};

struct pls_compact_summary {
    uint64_t live_records;      /* distinct live refs that lay in sealed segments */
    uint64_t relocated_records; /* carried ones included */
    uint64_t relocated_bytes;   /* prefixes included */
    uint64_t kept_segments;     /* sealed segments left in place */
    uint64_t deleted_segments;
    uint64_t reclaimed_bytes; /* of the deleted segments, less the outputs */
    bool short_of_room;       /* segments stayed because the disk had no room for all outputs */
};

struct pls_damaged {
    struct pls_ref ref;
    enum pls_code code; /* LIVE_NO_RECORD or LIVE_DAMAGED; of a scrub NO_RECORD or DAMAGED */
};

struct pls_relocation {
    struct pls_ref old_ref, new_ref;
};

/*
 * Begins a compaction of the segments that `seal` froze: begin, live any number of times, expect
 * where wanted, run once, next_map until it gives 0, destroy. One at a time for a store. Nothing on
 * disk changes before run.
 *
 * With carry_recent_ms all is kept that was appended within that time before the Seal, live or not,
 * for a caller whose appends may have been on their way while it listed its live refs. What is
 * carried so is copied like a live record and is no garbage, and every ref to it that reads now
 * reads until a compaction commits in which it was neither given nor recent. It is in no map and
 * not among the live_records. Moving does not make a record younger. Times are taken by the
 * monotonic clock when a record has been written, and rounded towards carrying more: to a second,
 * or a quarter of the age where there are many. What nobody can date counts as recent: what was
 * appended before this start of the process until one compaction has committed, and all of a seal
 * whose ages are lost, or which is older than the last compaction (logged as "ages_unknown"). A
 * carried record that is damaged ends nothing and is not dropped: its segment stays in place, the
 * log says so, and with keep_damaged the answer.
 *
 * Where the last compaction that committed was this seal's, its answer is given once more instead:
 * run changes nothing, the options are not applied, summary and map are the ones of then. So a lost
 * answer costs nothing. A ref that was only carried then may be given, and is not in the map: it
 * reads as it is.
 *
 * Errors: HANDLE_UNKNOWN, HANDLE_SUPERSEDED, EPOCH_STALE, COMPACTION_RUNNING, INVALID_ARGUMENT
 * (min_garbage_percent above 100), NOT_COMMITTED (with map_only), NO_STORE, IO, NO_MEMORY.
 */
PLS_API enum pls_code pls_compact_begin(pls_store *store, const struct pls_seal *seal,
                                        const struct pls_compact_options *options,
                                        pls_compact **compact, struct pls_error *error);

/*
 * Gives live refs; more than once is the same as once. May wait for the disk. A ref beyond the seal
 * is counted and otherwise ignored; one that an earlier compaction moved is followed. Errors, which
 * leave nothing to do but destroy: LIVE_NO_RECORD and LIVE_DAMAGED (not with keep_damaged),
 * INVALID_REF, and where the compaction has committed before REF_NOT_KEPT, each with the ref in the
 * text; NO_MEMORY.
 */
PLS_API enum pls_code pls_compact_live(pls_compact *compact, const struct pls_ref *refs, size_t n,
                                       struct pls_error *error);

/* Sets the expected number of live refs, which run checks; the last one given counts. */
PLS_API void pls_compact_expect(pls_compact *compact, uint64_t n);

/*
 * Rewrites the live records, commits, and deletes the frozen segments: all of it or, where an error
 * comes back, nothing. Waits for the disk, for long: not on a thread that others wait for.
 * Where the disk, the reserve included, has no room for all outputs, the segments with most garbage
 * that fit are rewritten, those without a live record deleted, and the others stay, as the summary
 * says; NO_SPACE where there is no room even for the relocation table, or it runs out meanwhile.
 * `progress`, where not NULL, is called on this thread a few times a second. Errors:
 * EXPECTED_LIVE_DIFFERS, LIVE_DAMAGED, EPOCH_STALE, NO_SPACE, IO, IDS_USED_UP, CANCELLED, NO_STORE,
 * CLOSED, NO_MEMORY.
 */
PLS_API enum pls_code pls_compact_run(pls_compact *compact,
                                      void (*progress)(void *arg,
                                                       const struct pls_compact_progress *progress),
                                      void *arg, struct pls_error *error);

/* Makes a run that has not committed yet end with CANCELLED. From any thread. */
PLS_API void pls_compact_cancel(pls_compact *compact);

/* After run. */
PLS_API void pls_compact_summary(const pls_compact *compact, struct pls_compact_summary *summary);

/*
 * After run: the next up to `max` entries of the map, by old ref ascending; *n 0 at its end, and in
 * a dry run. Every given ref whose record does not lie at that very place is in it. Waits for the
 * disk. DAMAGED where the relocation table cannot be read.
 */
PLS_API enum pls_code pls_compact_next_map(pls_compact *compact, struct pls_relocation *map,
                                           size_t max, size_t *n);

/* After run, with keep_damaged: the next up to `max` live refs that could not be read. */
PLS_API size_t pls_compact_next_damaged(pls_compact *compact, struct pls_damaged *damaged,
                                        size_t max);

/* Before run: leaves the store as it was. Takes NULL. */
PLS_API void pls_compact_destroy(pls_compact *compact);

/* -- verify ------------------------------------------------------------------------------------ */

typedef struct pls_verify pls_verify;

struct pls_verify_options {
    uint64_t bytes_per_second; /* to read at most, but for a read of 4 KiB; 0: no limit */
};

struct pls_verify_progress {
    uint64_t records_checked;
    uint64_t bytes_checked; /* prefixes included */
    uint64_t bytes_total;   /* to check in all; falls where a compaction removes what is left */
};

/*
 * Begins a scrub of every record that is in the store now: begin, next until *more is false,
 * destroy. It changes nothing, and any number may run. Never waits. `options` may be NULL. Errors:
 * NO_STORE, CLOSED, NO_MEMORY, the cause of a store that could not be opened.
 */
PLS_API enum pls_code pls_verify_begin(pls_store *store, const struct pls_verify_options *options,
                                       pls_verify **verify, struct pls_error *error);

/*
 * Goes on for about 100 ms, of which much may be waiting for the rate's sake, or until `max` (above
 * 0) damaged records were found: *n of them, by segment and offset ascending over all the calls.
 * Give room for thousands: no more records than that are read at once. *more is false at the end.
 * To cancel is to call it no more. Waits for the disk: not on a thread that others wait for. One
 * thread at a time. Errors: NO_STORE and CLOSED, where the store has gone meanwhile.
 *
 * A record is checked against its length prefix and, where it was appended since the store was
 * opened, its checksum; DAMAGED where they differ or the disk cannot read it. Bytes that were found
 * at open behind a segment's last whole record are no record, and nobody but a holder of refs knows
 * whether they were: a write that a crash cut off, or records behind a damaged length. They are
 * reported once, as NO_RECORD, with offset and length (PLS_PAYLOAD_LIMIT at most) of the whole, and
 * count in no progress. What a compaction removes meanwhile is left out: what lived in it the
 * compaction has checked.
 */
PLS_API enum pls_code pls_verify_next(pls_verify *verify, struct pls_damaged *damaged, size_t max,
                                      size_t *n, bool *more, struct pls_error *error);

/* Between calls of next; afterwards bytes_checked is bytes_total. */
PLS_API void pls_verify_progress(const pls_verify *verify, struct pls_verify_progress *progress);

/* Takes NULL. */
PLS_API void pls_verify_destroy(pls_verify *verify);

/* -- stat -------------------------------------------------------------------------------------- */

struct pls_segment_stat {
    uint32_t file_id;
    bool active;
    uint64_t bytes;
    uint64_t records;
};

struct pls_stat {
    uint64_t disk_usage_bytes; /* the sizes of all files whose names begin with payload_ */
    uint64_t records;
    uint32_t active_id; /* the segment that takes the next append */
    uint64_t epoch;
    char owner[PLS_OWNER_MAX + 1];
    bool sealed; /* whether last_seal was ever given */
    struct pls_seal last_seal;
    char incarnation[33]; /* 32 hexadecimal digits */
    bool appends_stopped; /* the file system is down to the reserve */
    uint64_t free_bytes;  /* that appends may still use, the reserve not counted */
    uint32_t payload_max_bytes;
    struct pls_segment_stat *segments; /* by id, ascending; freed by pls_stat_fini */
    size_t n_segments;
};

/* Waits for the disk. Errors: NO_STORE, IO, NO_MEMORY. */
PLS_API enum pls_code pls_store_stat(pls_store *store, struct pls_stat *stat,
                                     struct pls_error *error);
PLS_API void pls_stat_fini(struct pls_stat *stat);

#ifdef __cplusplus
}
#endif

#endif
