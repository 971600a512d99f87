/*
 * What the measurements of the store share: how they are described and run, a store with records in
 * it, what they do in a process of their own.
 *
 * A measurement is a pair of functions, each of which does the same work once and says how long an
 * operation took: ours on the store, and the bare one on files over the same bytes. main.c runs
 * them in turn. Whatever goes wrong ends the program with a message and status 1; there is nothing
 * to give back then.
 */
#ifndef BENCH_STORE_BENCH_H
#define BENCH_STORE_BENCH_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <payloadstore/payloadstore.h>

#define KIB ((size_t)1024)
#define MIB (KIB * KIB)

/* Zero: the measurement's own default. */
struct options {
    const char *directory; /* for all data; there */
    uint32_t bytes;        /* of a payload */
    uint32_t ops;          /* of a round: appends, reads, or records of a store */
    uint32_t records;      /* of a store that is read; at least ops */
    uint32_t callers;      /* threads */
    uint32_t in_flight;    /* of each caller */
    uint32_t segments;
    uint32_t live_every; /* of a compaction: each so manieth record is live */
    bool synced;
    bool sealed;
    bool unclean;
    bool cold;
};

/* What one side of one round took. */
struct taken {
    double ns;         /* an operation */
    double cpu_ns;     /* an operation: this process.s processor time, whichever thread.s */
    double peak_bytes; /* of memory, above what the process had before; 0: not looked at */
};

struct measure {
    const char *name;
    const char *ours, *bare; /* for people: what is timed */
    struct options defaults; /* its callers, in_flight and segments are 1 where left out */
    bool any_size; /* where ops is not given it follows from bytes: 64 MiB, `ops` at most */
    void (*set_up)(const struct options *options); /* NULL: nothing to do */
    struct taken (*run_ours)(const struct options *options);
    struct taken (*run_bare)(const struct options *options);
    void (*tear_down)(void); /* NULL */
};

extern const struct measure measure_append;  /* append.c */
extern const struct measure measure_read;    /* read.c */
extern const struct measure measure_compact; /* compact.c */
extern const struct measure measure_refs;    /* refs.c */
extern const struct measure measure_open;    /* open.c */

/* -- */

/* Each ends the program where it is not so: with errno's words, these words, the code's, or the
 * error's. */
void must(bool ok, const char *what);
void must_agree(bool ok, const char *what);
void must_be_ok(enum pls_code code, const char *what);
void must_tell(enum pls_code code, const struct pls_error *error);
/* Zeroed; never NULL. */
void *allocate(size_t n, size_t size);

struct instant {
    double wall_ns, cpu_ns;
};
struct instant now(void);
struct taken taken_since(struct instant start, uint32_t ops);
/* Below the directory. One at a time: the next call overwrites it. */
const char *path_of(const struct options *options, const char *name);
/* With everything in it; there may be nothing. */
void remove_tree(const char *path);

/* Payload number i: neighbours overlap in memory and differ, so that it costs no time to make. */
const uint8_t *payload_of(uint32_t i);
/* Before any is asked for: how long they are at most. */
void payloads_init(uint32_t bytes);

/* -- a store -- */

struct place {
    pls_dir *dir;
    pls_store *store;
};

/* The data directory "store" below ours, made where it is not there, and a store in it.
 * segment_max_bytes may be 0. */
void place_open(struct place *place, const struct options *options, uint64_t segment_max_bytes);
/* Waits until everything is on the device. */
void place_close(struct place *place);

/* How many records of that size fill's batches have, where it does not matter. */
uint32_t batch_of(uint32_t bytes);
/* Appends payloads number 0 to n - 1, a batch an append. refs: n, or NULL. */
void fill(pls_store *store, uint32_t n, uint32_t bytes, uint32_t a_batch, struct pls_ref *refs);
/* A new store with options->ops records in options->segments segments, closed. In a process of its
 * own, so that its memory is not ours. */
void make_store(const struct options *options, struct pls_ref *refs);
struct pls_seal seal(pls_store *store);
/* Reads a few of n refs, the last one among them; ref number i is of the payload number i * every.
 * The program ends where one reads as something else. */
void check_some(pls_store *store, const struct pls_ref *refs, uint32_t n, uint32_t bytes,
                uint32_t every);

/* -- */

/* Memory that a process made later shares. */
void *shared(size_t bytes);
void shared_end(void *memory, size_t bytes);
/* Runs it in a process of its own that ends with _exit: what it leaves open stays as it is. */
void in_child(void (*run)(const struct options *options, void *arg), const struct options *options,
              void *arg);

#endif
