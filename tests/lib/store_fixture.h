/*
 * What the store's tests share: a data directory of its own for each test, appends and reads that
 * wait for their answer, compactions in one call, and hands on the files behind the store's back.
 *
 * Functions named assert_, and those that say so, fail the running test; from other threads than
 * the test's only those marked "any thread" may be called.
 */
#ifndef STORE_FIXTURE_H
#define STORE_FIXTURE_H

#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "payloadstore/payloadstore.h"

#define KIB ((size_t)1024)
#define MIB ((size_t)1024 * KIB)

struct fixture {
    char path[PATH_MAX];        /* the data directory */
    struct pls_options options; /* for the next fx_open */
    pls_dir *dir;
    pls_store *store;     /* the one named "s" */
    pthread_mutex_t lock; /* a leaf; guards the log */
    char log[16 * KIB];   /* "event: text" a line, as far as there is room */
};

/* cmocka's setup and teardown: *state is a fixture whose directory is open, with 1 MiB segments. */
int fx_setup(void **state);
int fx_teardown(void **state);
#define STORE_TEST(function) cmocka_unit_test_setup_teardown(function, fx_setup, fx_teardown)

/* Open, close, and both; each step has to succeed. */
void fx_open(struct fixture *fx);
void fx_close(struct fixture *fx);
void fx_reopen(struct fixture *fx);
/* Waits for what the store does by itself, finishing segments: a call made to fail from here on is
 * one of the test's own. Done by fx_open and seal. */
void settle(pls_store *store);
/* As fx_reopen, but finds what the death of the process would have left at this moment. */
void fx_crash(struct fixture *fx);
/* Makes the data directory what it is now, once again, under `path`. */
void fx_copy(const struct fixture *fx, const char *path);
/* Whether a line of the log holds the words. Any thread. */
bool fx_logged(struct fixture *fx, const char *words);

/* -- payloads -- */

/* Bytes that differ from those of any other seed. Any thread. */
void fill(uint8_t *data, size_t n, uint32_t seed);

/* Appends and waits. Any thread. */
enum pls_code try_append(pls_store *store, const void *data, size_t n,
                         enum pls_durability durability, struct pls_ref *ref);
/* The same by the holder of an epoch other than 0. Any thread. */
enum pls_code try_append_as(pls_store *store, uint64_t epoch, const void *data, size_t n,
                            enum pls_durability durability, struct pls_ref *ref);
/* Each has to succeed; BUFFERED. */
struct pls_ref put(pls_store *store, const void *data, size_t n);
struct pls_ref put_text(pls_store *store, const char *text);
struct pls_ref put_filled(pls_store *store, size_t n, uint32_t seed);

/* Reads and waits. Any thread. */
enum pls_code try_read(pls_store *store, const struct pls_ref *ref, struct pls_view *view);
/* The same of n refs, as one batch. */
void try_read_batch(pls_store *store, const struct pls_ref *refs, size_t n, struct pls_view *views,
                    enum pls_code *codes);
/* Whether a ref reads and gives fill's bytes. Any thread. */
bool reads_filled(pls_store *store, const struct pls_ref *ref, uint32_t seed);

void assert_text(pls_store *store, const struct pls_ref *ref, const char *text);
void assert_filled(pls_store *store, const struct pls_ref *ref, uint32_t seed);
void assert_unreadable(pls_store *store, const struct pls_ref *ref, enum pls_code code);
void assert_ref(const struct pls_ref *ref, uint32_t file_id, uint64_t offset, uint32_t length);

/* -- seal, compaction, stat -- */

struct pls_seal seal(pls_store *store);
void assert_seal(const struct pls_seal *given, uint32_t sealed_id, uint32_t compaction_id);
uint64_t disk_usage(pls_store *store);
uint32_t active_id(pls_store *store);

struct outcome {
    enum pls_code code;
    bool committed; /* by this call or an earlier one; code is not OK where the map could not be
                       read */
    struct pls_error error;
    struct pls_compact_summary summary;
    struct pls_relocation *map;
    size_t n_map;
    struct pls_damaged damaged[16];
    size_t n_damaged;
};

/* Begin, live, run, map: as far as it goes. options may be NULL. Any thread. */
void compact(pls_store *store, const struct pls_seal *given,
             const struct pls_compact_options *options, const struct pls_ref *live, size_t n,
             struct outcome *outcome);
/* As compact, for one that has to succeed and whose map nobody looks at. */
struct pls_compact_summary compact_ok(pls_store *store, const struct pls_seal *given,
                                      const struct pls_ref *live, size_t n);
void outcome_fini(struct outcome *outcome);
/* Where the map says that a ref is now; NULL where it is not in the map. */
const struct pls_ref *moved(const struct outcome *outcome, const struct pls_ref *old_ref);

/* -- files, by their path below the data directory -- */

bool file_exists(const struct fixture *fx, const char *name);
uint64_t file_size(const struct fixture *fx, const char *name);
/* Writes bytes at an offset, making file and directory where missing. */
void file_write(const struct fixture *fx, const char *name, uint64_t offset, const void *data,
                size_t n);
void file_read(const struct fixture *fx, const char *name, uint64_t offset, void *data, size_t n);
void file_flip(const struct fixture *fx, const char *name, uint64_t offset);
void file_remove(const struct fixture *fx, const char *name);
void file_cut(const struct fixture *fx, const char *name, uint64_t size);
/* How many files of a directory have names that begin so. */
size_t file_count(const struct fixture *fx, const char *directory, const char *prefix);

#endif
