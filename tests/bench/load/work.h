/*
 * What a load asks for and what must come back: requests encoded once, before the clock runs, and
 * answers checked where they lie.
 *
 * A payload is the same pattern every time but for its first eight bytes, its number's; there are
 * `distinct` numbers. So the checksum of each is known beforehand, and an answer that belongs to
 * another request is noticed.
 */
#ifndef LOAD_WORK_H
#define LOAD_WORK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buffer.h"

enum method { APPEND, READ, APPEND_STREAM, READ_STREAM };

struct payloads {
    size_t bytes;
    uint32_t distinct;
    uint8_t *pattern;
    uint32_t *checksums; /* CRC-32C by number */
};

struct ref {
    uint64_t offset;
    uint32_t file_id, length, crc32c;
    uint32_t number; /* of the payload that lies there */
};

struct work {
    enum method method;
    uint32_t batch; /* payloads an op: 1 unless streamed */
    const struct payloads *payloads;
    struct ref *refs; /* to be read; of appends, where they are kept, or NULL */
    size_t n_refs;
    size_t n;             /* requests, taken in turn, over and over */
    struct buffer bytes;  /* of all requests, each with gRPC's five-byte prefix */
    size_t *request_ends; /* in `bytes` */
};

void payloads_init(struct payloads *payloads, size_t bytes);
void payloads_fini(struct payloads *payloads);
/* The payload of this number, of payloads->bytes bytes, for those who append it by other means. */
void payload_write(const struct payloads *payloads, uint32_t number, uint8_t *out);

/* Appends of one payload, or with a batch, of AppendStream. `refs` NULL, or room for as many as are
 * going to be appended, which must be unary then. `durability` as in the contract's enum. */
void work_init_append(struct work *work, const struct payloads *payloads, const char *store,
                      uint32_t durability, uint32_t batch, bool streamed, struct ref *refs);
/* Reads of `refs`, n > 0, in a random order that is the same every time. Keeps and reorders them.
 */
void work_init_read(struct work *work, const struct payloads *payloads, const char *store,
                    uint32_t batch, bool streamed, struct ref *refs, size_t n);
/* Takes zeroed work. */
void work_fini(struct work *work);

/* The request of the op by this number. */
const uint8_t *work_request(const struct work *work, uint64_t op, size_t *n);

/*
 * Checks one message of the op's answer, without its prefix. `*done` counts the payloads answered
 * so far, rightly or not; the op has ended with the last one. NULL, or what is wrong with the
 * message.
 */
const char *work_check(const struct work *work, uint64_t op, uint32_t *done, const uint8_t *message,
                       size_t n);

#endif
