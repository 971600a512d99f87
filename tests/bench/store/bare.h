/*
 * The bare side: what the bytes cost by themselves, without a store around them.
 */
#ifndef BENCH_STORE_BARE_H
#define BENCH_STORE_BARE_H

#include "bench.h"

/* A checksum and one gathered write a record into a new file, on one thread, and where `synced`
 * one fdatasync each. */
struct taken bare_append(const struct options *options);

/* A pread and a checksum of each ref, number reads[0] on, out of the store's own files. */
void bare_read_open(const struct options *options);
struct taken bare_read(const struct options *options, const struct pls_ref *refs,
                       const uint32_t *reads);
void bare_read_close(void);

/* The program cp makes a copy of a file of so many bytes, and that is synced. */
struct taken bare_copy(const struct options *options, uint64_t bytes);

/* Opens each file of the store's directory and looks at its size. */
struct taken bare_open(const struct options *options);

/* Takes what there is of the store's files out of memory. */
void drop_cache(const struct options *options);

#endif
