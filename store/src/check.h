/*
 * Records of a segment read in large pieces and checked, prefix and checksum: what compaction
 * (rewrite.c) and the scrub (verify.c) share.
 *
 * Records that lie close together make a span, which is read at once, what lies between them
 * included; a record larger than the buffer is a span of its own, and goes through the buffer in
 * pieces.
 */
#ifndef PLSI_CHECK_H
#define PLSI_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "segment.h"

#define PLSI_CHECK_BYTES  (1u << 20)   /* of a buffer that records go through as fast as they can */
#define PLSI_PIECE_BYTES  (128u << 10) /* of that buffer where others are to get their turn */
#define PLSI_SPAN_RECORDS 4096u        /* at most */
#define PLSI_SPAN_GAP     (16u << 10)  /* bytes between two records that are still read together */

struct plsi_record {
    uint64_t i; /* its number in the segment */
    struct plsi_entry entry;
};

struct plsi_check {
    struct plsi_segment *segment; /* borrowed */
    struct plsi_cursor cursor;    /* over its index */
    uint8_t *buffer;
    size_t room; /* bytes the buffer takes */
    /* The span. */
    struct plsi_record *records;
    size_t n;
    uint64_t length; /* bytes from the beginning of the first record to the end of the last */
};

/* NO_MEMORY. */
enum pls_code plsi_check_init(struct plsi_check *check, size_t room);
/* Takes a zeroed one. */
void plsi_check_fini(struct plsi_check *check);
/* Whose records are checked from now on; NULL: nobody's. */
void plsi_check_segment(struct plsi_check *check, struct plsi_segment *segment);

/* Empties the span. */
void plsi_span_begin(struct plsi_check *check);
/*
 * Adds record i, which lies behind those there are. *added is false where it does not fit in with
 * them; a first one always does. DAMAGED: index and data are both unreadable there. NO_MEMORY.
 */
enum pls_code plsi_span_add(struct plsi_check *check, uint64_t i, bool *added);

struct pls_ref plsi_check_ref(const struct plsi_check *check, const struct plsi_record *record);

/* Called with a record that is not intact; what is not OK ends the check. */
typedef enum pls_code plsi_damage_fn(void *arg, const struct plsi_record *record);

/*
 * Reads a span that fits into the buffer, and calls `damaged` for each record that is not intact.
 * *whole: the buffer holds all of them, each at its distance from the first.
 */
enum pls_code plsi_check_span(const struct plsi_check *check, plsi_damage_fn *damaged, void *arg,
                              bool *whole);

/* A record on its way through the buffer in pieces; zeroed but for the first. */
struct plsi_pieces {
    struct plsi_record record;
    uint64_t done; /* bytes read, of prefix and payload */
    uint32_t prefix;
    uint32_t crc; /* of the payload so far */
    bool unreadable;
};

/* Reads the next piece to the buffer's beginning. Its length; 0 at the end of the record, and where
 * it cannot be read. */
size_t plsi_check_piece(const struct plsi_check *check, struct plsi_pieces *pieces);

/* After the last piece. */
bool plsi_check_pieces_intact(const struct plsi_pieces *pieces);

#endif
