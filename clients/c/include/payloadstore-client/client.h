/*
 * payloadstore-client: a PayloadStore server's calls in plain C.
 *
 * A client is a connection to one server; calls block until they are answered, fail, or run out of
 * time. Nothing is tried again behind the caller's back unless a function says so. What the calls
 * mean to the data stands in the contract, proto/payloadstore/v1/payload_store.proto.
 *
 * Threads. A client may be used by any number of threads at once. The library keeps a thread of its
 * own for a client, and blocks all signals in it. A process that has opened a client must not use
 * it, or open another one, after a fork in the child.
 *
 * Lifetimes. Arguments are borrowed for the call. What a call hands out is the caller's, whether
 * the client lives on or not: plc_payload_fini and plc_stat_fini free it, and take what is zeroed
 * or was freed before.
 *
 * Errors. Every call returns PLC_OK or what went wrong, and tells it in `error`, which may be NULL.
 * Results are set only on PLC_OK. Beside those a function lists, any call may end with UNAVAILABLE,
 * DEADLINE_EXCEEDED, CANCELLED (the server was stopped), UNIMPLEMENTED (it is older than the call),
 * INVALID_ARGUMENT (a store's name that is none) and NO_MEMORY.
 */
#ifndef PAYLOADSTORE_CLIENT_CLIENT_H
#define PAYLOADSTORE_CLIENT_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "payloadstore-client/error.h"

#ifdef __cplusplus
extern "C" {
#endif

#define PLC_DEADLINE_DEFAULT_MS 30000
#define PLC_PAYLOAD_LIMIT       0x7fffffffu /* bytes; protobuf's. Servers take 64 MiB unless told */

typedef struct plc_client plc_client;

/* -- the connection ---------------------------------------------------------------------------- */

/* What an answered append survives. */
enum plc_durability {
    PLC_SERVER_DEFAULT, /* what the server was started with */
    PLC_BUFFERED,       /* the server's process */
    PLC_SYNCED          /* a loss of power */
};

/* Whom to believe, and what to prove. All files are PEM, and read once, by plc_client_open. */
struct plc_tls {
    const char *ca_file;          /* authorities that servers are checked by; NULL: the system's */
    const char *certificate_file; /* for servers that ask for one; NULL: none */
    const char *key_file;         /* to it, without a passphrase; both or neither */
    const char *server_name;      /* whom the certificate must name; NULL: the target's host */
};

/* Zero means the default everywhere. */
struct plc_options {
    const char *store;          /* of calls that name none; "default" */
    int64_t deadline_ms;        /* for each call; PLC_DEADLINE_DEFAULT_MS */
    int64_t append_deadline_ms; /* for appends; deadline_ms. Compaction goes by it: see compact.h */
    size_t max_payload_bytes;   /* larger ones cannot be read; 64 MiB */
    bool wait_for_server;       /* wait to the deadline for a server that is down, where otherwise
                                   a call ends with UNAVAILABLE at once */
    const struct plc_tls *tls;  /* NULL: plaintext */
    /*
     * A server from which nothing has come for keepalive_ms while a call runs is asked for a sign
     * of life; where it gives none for keepalive_timeout_ms, the connection is given up and its
     * calls end with UNAVAILABLE. What asks more often than every 5 s a server may hang up on.
     */
    int keepalive_ms;              /* 20,000; below 0: never */
    unsigned keepalive_timeout_ms; /* 10,000 */
    unsigned connect_timeout_ms;   /* of one attempt to connect, 10,000 */
    unsigned reconnect_ms;         /* the longest pause between two attempts; 5,000 */
};

/*
 * A client of the server at `target`: "host:port", "unix:path", "dns:///host:port". The connection
 * is made by the first call, and again after it was lost. One whose server or client is not who the
 * other believes is not made: calls end with UNAVAILABLE, with the cause as far as this side knows
 * it, or where they wait for the server with DEADLINE_EXCEEDED. Errors: INVALID_ARGUMENT (also a
 * file of TLS that is not what it should be: the message names it).
 */
PLC_API enum plc_code plc_client_open(const char *target, const struct plc_options *options,
                                      plc_client **client, struct plc_error *error);

/* No call may run. Takes NULL. */
PLC_API void plc_client_close(plc_client *client);

/* How a call is made. NULL or zeroes: as the client was opened. */
struct plc_call {
    const char *store;
    uint64_t epoch; /* from plc_claim, for calls that write; 0 where the store was never claimed */
    int64_t deadline_ms; /* from now */
};

/* -- payloads ---------------------------------------------------------------------------------- */

/* Where a payload lies. Opaque but for a key: (file_id, offset) is unique in a store. */
struct plc_ref {
    uint32_t file_id;
    uint64_t offset; /* bytes */
    uint32_t length; /* of the payload, bytes */
    uint32_t crc32c; /* of the payload */
};

/*
 * Stores a payload; of length 0 too, then `payload` may be NULL. A store that does not exist is
 * made. After UNAVAILABLE, DEADLINE_EXCEEDED and CANCELLED it may have been stored all the same: to
 * append it again is safe, and leaves the first copy to the next compaction. Errors: EPOCH_STALE,
 * DISK_RESERVE, PAYLOAD_TOO_LARGE, RESOURCE_EXHAUSTED, INVALID_ARGUMENT.
 */
PLC_API enum plc_code plc_append(plc_client *client, const struct plc_call *call,
                                 const void *payload, size_t length, enum plc_durability durability,
                                 struct plc_ref *ref, struct plc_error *error);

struct plc_payload {
    void *data;    /* NULL where length is 0 */
    size_t length; /* bytes */
};

PLC_API void plc_payload_fini(struct plc_payload *payload);

/*
 * Reads the payload of a ref. Errors: INVALID_ARGUMENT (it could never have been a ref), NOT_FOUND
 * (no such store, or no record of that length starts there), DATA_LOSS (the record is there, and
 * damaged), RESOURCE_EXHAUSTED (larger than max_payload_bytes).
 */
PLC_API enum plc_code plc_read(plc_client *client, const struct plc_call *call,
                               const struct plc_ref *ref, struct plc_payload *payload,
                               struct plc_error *error);

struct plc_read_result {
    size_t index; /* of the ref */
    enum plc_code code;
    const void *data; /* on PLC_OK; until the callback returns */
    size_t length;
    const struct plc_error *error; /* never NULL; until the callback returns */
};

/*
 * Reads many refs over one stream, with several batches of them on their way: `read` is called on
 * this thread for each, in their order, with the payload or with plc_read's error for that one.
 * False stops it with STOPPED. *n_read is how many results there were, whatever comes back: where
 * the connection was lost, go on with the ref of that index. The deadline is for the whole, and a
 * call without one has the client's. Errors: INVALID_ARGUMENT.
 */
PLC_API enum plc_code plc_read_many(plc_client *client, const struct plc_call *call,
                                    const struct plc_ref *refs, size_t n,
                                    bool (*read)(void *arg, const struct plc_read_result *result),
                                    void *arg, size_t *n_read, struct plc_error *error);

/* -- seal and claim ---------------------------------------------------------------------------- */

struct plc_seal {
    uint32_t sealed_id;     /* every segment up to and including this one is frozen */
    uint32_t compaction_id; /* kept free for what compaction rewrites */
};

/*
 * Freezes every segment. With nothing appended and nothing compacted since, the same handle comes
 * back: a lost answer may be asked for again. plc_compact does this itself. Errors: EPOCH_STALE,
 * DISK_RESERVE, RESOURCE_EXHAUSTED.
 */
PLC_API enum plc_code plc_seal_store(plc_client *client, const struct plc_call *call,
                                     struct plc_seal *seal, struct plc_error *error);

/*
 * Makes the caller the store's only writer: *epoch is for every writing call from now on, and once
 * this has answered, nothing older takes effect. `owner` is text for people, UTF-8 of at most 255
 * bytes, NULL for none. `if_epoch`, where not NULL, is what the store's epoch must be, 0 for never
 * claimed: FAILED_PRECONDITION where it is another. call->epoch is not looked at. After a lost
 * answer, claim again with the same if_epoch: FAILED_PRECONDITION says that this claim, or somebody
 * else's, took effect, and plc_stat tells whose.
 */
PLC_API enum plc_code plc_claim(plc_client *client, const struct plc_call *call, const char *owner,
                                const uint64_t *if_epoch, uint64_t *epoch, struct plc_error *error);

/* -- stat, list, verify and delete
 * --------------------------------------------------------------------------- */

struct plc_segment_stat {
    uint32_t file_id;
    bool active;
    uint64_t bytes;
    uint64_t records;
};

struct plc_stat {
    char *store;
    uint64_t disk_usage_bytes; /* payloads and their 4-byte prefixes, dead ones included */
    uint64_t records;
    uint32_t active_id;
    uint64_t epoch;
    char *owner; /* "": nobody */
    bool sealed; /* whether last_seal was ever given */
    struct plc_seal last_seal;
    char *incarnation; /* changes when a store is deleted and made again */
    bool appends_stopped;
    uint64_t free_bytes; /* that appends may still use */
    uint64_t max_payload_bytes;
    struct plc_segment_stat *segments; /* by id, ascending */
    size_t n_segments;
};

/* Describes a store; plc_stat_fini frees it. Errors: NOT_FOUND. */
PLC_API enum plc_code plc_stat(plc_client *client, const struct plc_call *call,
                               struct plc_stat *stat, struct plc_error *error);
PLC_API void plc_stat_fini(struct plc_stat *stat);

/*
 * Names the stores, in byte order: `name` is called on this thread with each, and keeps nothing of
 * it. False stops it with STOPPED. What is made or deleted meanwhile may be named or not.
 * call->store means nothing here; the deadline is for a page of 1,000 names.
 */
PLC_API enum plc_code plc_list_stores(plc_client *client, const struct plc_call *call,
                                      bool (*name)(void *arg, const char *store), void *arg,
                                      struct plc_error *error);

/* A record that cannot be read. */
struct plc_damaged {
    struct plc_ref ref;
    enum plc_code code; /* NOT_FOUND or DATA_LOSS */
    const char *message;
};

struct plc_verified {
    uint64_t records_checked;
    uint64_t bytes_checked;
    uint64_t bytes_total; /* falls where a compaction deletes what was not checked yet */
    uint64_t damaged;     /* records and tails that were told of */
};

/* What plc_verify tells, on the calling thread; each may be NULL. */
struct plc_verify_callbacks {
    /* DATA_LOSS: a record. NOT_FOUND: `length` bytes behind a segment's last whole record. */
    void (*damaged)(void *arg, const struct plc_damaged *damaged, size_t n);
    /* A few a second. False stops it with STOPPED. */
    bool (*progress)(void *arg, const struct plc_verified *so_far);
    void *arg;
};

/*
 * Has the server read and check every record of a store. It reads no more than `bytes_per_second`;
 * 0: as fast as it goes. Damage is a result and no error. call->deadline_ms is for the whole of it,
 * and 0 means none: a dead server is found in 30 s. `callbacks` may be NULL. *verified is set
 * whatever comes back, to what was checked. Errors: NOT_FOUND.
 */
PLC_API enum plc_code plc_verify(plc_client *client, const struct plc_call *call,
                                 uint64_t bytes_per_second,
                                 const struct plc_verify_callbacks *callbacks,
                                 struct plc_verified *verified, struct plc_error *error);

/*
 * Deletes a store and its payloads. call->store must be set: nothing is deleted by default.
 * `incarnation` as plc_stat gave it, so that a repeated call cannot delete a store made in between;
 * NULL: whichever. Errors: NOT_FOUND, EPOCH_STALE, FAILED_PRECONDITION (another incarnation).
 */
PLC_API enum plc_code plc_delete_store(plc_client *client, const struct plc_call *call,
                                       const char *incarnation, struct plc_error *error);

#ifdef __cplusplus
}
#endif

#endif
