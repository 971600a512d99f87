/*
 * A ReadStreamResponse written down by hand, payloads being read where they stand in it: no copy,
 * and no message object a result.
 *
 * A result is a field of the response, and the payload a field of the result: each has a tag and a
 * length before it, four bytes at least, into which the record's prefix may be read before they are
 * written. protobuf-c would make the same bytes of the message.
 */
#ifndef PAYLOADSTORED_READ_RESULTS_H
#define PAYLOADSTORED_READ_RESULTS_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of a result with a payload of that length. */
size_t psd_result_bytes(uint32_t length);

/* Where a result's record is to be read: pls_read's room, with which the result ends. */
uint8_t *psd_result_room(uint8_t *result, uint32_t length);

/* Writes what stands before the payload, which has been read. Returns the result's end. */
uint8_t *psd_result_finish(uint8_t *result, uint32_t length);

#endif
