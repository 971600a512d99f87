/*
 * What the fuzz targets share. A target is a file with LLVMFuzzerTestOneInput: libFuzzer calls it
 * with inputs of its own making, replay.c with those of the corpus. A property that does not hold
 * ends the process.
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/*
 * libFuzzer's change of an input, and a target's own in place of it: both change `data` in place,
 * up to `max` bytes, and return its new size.
 */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);

/* Changes a protobuf message of any type, mutate.c; `depth` 0. */
size_t mutate_message(uint8_t *data, size_t size, size_t max, unsigned depth, unsigned seed);

#define insist(condition)                                                                 \
    do {                                                                                  \
        if (!(condition)) {                                                               \
            (void)fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                      \
        }                                                                                 \
    } while (0)

/* An input that is taken apart from the front. */
struct input {
    const uint8_t *at;
    size_t left;
};

/* 0 at the end. */
static inline unsigned take_byte(struct input *in)
{
    if (in->left == 0) {
        return 0;
    }
    in->left--;
    return *in->at++;
}

/* At most `n` bytes, their number in *length. Not terminated. */
static inline const uint8_t *take(struct input *in, size_t n, size_t *length)
{
    const uint8_t *at = in->at;

    *length = n < in->left ? n : in->left;
    in->at += *length;
    in->left -= *length;
    return at;
}

/* The same as a string on the heap, which ends at a NUL already where there is one. */
static inline char *take_string(struct input *in, size_t n)
{
    size_t length;
    const uint8_t *bytes = take(in, n, &length);
    char *string = malloc(length + 1);

    insist(string != NULL);
    memcpy(string, bytes, length);
    string[length] = '\0';
    return string;
}

/* Whether these bytes are UTF-8: told by decoding and encoding again, not as the shim tells it. */
bool is_utf8(const uint8_t *bytes, size_t length);

/*
 * What the program's own code has of the heap (libraries' allocations are not seen), for targets
 * that are linked with heap.c: bytes now, and the most since heap_mark.
 */
void heap_mark(void);
size_t heap_most(void);

#endif
