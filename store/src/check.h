/*
 * Records of a segment read in large pieces and checked: the prefix, and every checksum known. What
 * compaction (rewrite.c) and the scrub (verify.c) share.
 *
 * Neighbours that fit into the buffer together are read together; a record larger than the buffer
 * goes through it in pieces.
 */
#ifndef PLSI_CHECK_H
#define PLSI_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "segment.h"

#define PLSI_CHECK_BYTES (1u << 20) /* of a buffer that records go through as fast as they can */

/* Whose records, and where they are read to. Everything is borrowed. */
struct plsi_check {
    struct plsi_segment *segment;
    const uint32_t *claimed; /* a checksum a walked record, told by others, 0: none; or NULL */
    uint8_t *buffer;
    size_t room; /* bytes the buffer takes */
};

/* The ref of record i, with the checksum where one is known. */
struct pls_ref plsi_check_ref(const struct plsi_check *check, uint64_t i);

/* The checksum of record i, which lies at `at` in the buffer. */
uint32_t plsi_check_crc(const struct plsi_check *check, uint64_t i, size_t at);

/* Called with a record that is not intact; what is not OK ends the run. */
typedef enum pls_code plsi_damage_fn(void *arg, uint64_t i);

/*
 * Reads the records first..last-1, neighbours of `length` bytes together that fit into the buffer,
 * and calls `damaged` for each that is not intact. *whole: the buffer holds all of them.
 */
enum pls_code plsi_check_run(const struct plsi_check *check, uint64_t first, uint64_t last,
                             size_t length, plsi_damage_fn *damaged, void *arg, bool *whole);

/* A record on its way through the buffer in pieces; zeroed but for the first two. */
struct plsi_pieces {
    uint64_t i;    /* the record */
    size_t length; /* of the record in bytes, its prefix included */
    size_t done;   /* bytes read */
    uint32_t prefix;
    uint32_t crc; /* of the payload so far */
    bool unreadable;
};

/* Reads the next piece to the buffer's beginning. Its length; 0 at the end of the record, and where
 * it cannot be read. */
size_t plsi_check_piece(const struct plsi_check *check, struct plsi_pieces *pieces);

/* After the last piece. */
bool plsi_check_pieces_intact(const struct plsi_check *check, const struct plsi_pieces *pieces);

#endif
