/*
 * Packing with lent ranges: protobuf-c hands a `bytes` field's own pointer to the buffer it packs
 * into, which recognises the pointer and takes a reference-counted slice over that memory. All
 * else is copied, in runs between the lent ranges.
 */
#include <stdlib.h>
#include <string.h>

#include <grpc/slice.h>
#include <grpc/slice_buffer.h>

#include "codec.h"
#include "core.h"

#define LOAN_MAGIC 0x6c6f616eu /* "loan" */
#define CHUNK_MAX  4096u       /* bytes copied fields are gathered in */
#define STACK_LENT 8u          /* ranges for which no array is allocated */

/* What a slice over lent memory carries through core. */
struct loan {
    uint32_t magic;
    atomic_uint armed;
    void (*release)(void *arg);
    void *arg;
};

struct packer {
    ProtobufCBuffer base; /* first: what append gets */
    const struct grpc_c_lent *lent;
    const grpc_slice *slices; /* one over each lent range */
    size_t n_lent;
    size_t next;      /* the range expected next: they mostly come in order */
    uintptr_t low;    /* no range begins below ... */
    uintptr_t high;   /* ... or above these */
    size_t to_copy;   /* estimate of the bytes still to be copied */
    grpc_slice chunk; /* copied bytes: [run, used) is not in `out` yet */
    size_t run;
    size_t used;
    grpc_slice_buffer out;
};

static void loan_return(void *data)
{
    struct loan *loan = data;

    (void)atomic_load_explicit(&loan->armed, memory_order_acquire);
    GCI_CHECK(loan->magic == LOAN_MAGIC);
    loan->release(loan->arg);
    free(loan);
}

static grpc_slice lent_slice(const struct grpc_c_lent *lent)
{
    struct loan *loan = lent->length == 0 ? NULL : malloc(sizeof(*loan));

    if (loan == NULL) {
        grpc_slice copy = grpc_slice_from_copied_buffer(lent->data, lent->length);
        lent->release(lent->arg);
        return copy;
    }
    loan->magic = LOAN_MAGIC;
    loan->release = lent->release;
    loan->arg = lent->arg;
    atomic_store_explicit(&loan->armed, 1, memory_order_release);
    return grpc_slice_new_with_user_data((void *)lent->data, lent->length, loan_return, loan);
}

grpc_byte_buffer *gci_lend(const struct grpc_c_lent *message)
{
    grpc_slice slice = lent_slice(message);
    grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);

    grpc_slice_unref(slice);
    return buffer;
}

static bool is_range(const struct packer *packer, size_t i, const uint8_t *data, size_t length)
{
    return packer->lent[i].data == data && packer->lent[i].length == length;
}

/* The index of the range that is exactly these bytes, n_lent where none is. */
static size_t find_range(struct packer *packer, const uint8_t *data, size_t length)
{
    if ((uintptr_t)data < packer->low || (uintptr_t)data > packer->high || length == 0) {
        return packer->n_lent;
    }
    if (packer->next < packer->n_lent && is_range(packer, packer->next, data, length)) {
        return packer->next++;
    }
    for (size_t i = 0; i < packer->n_lent; i++) {
        if (is_range(packer, i, data, length)) {
            packer->next = i + 1;
            return i;
        }
    }
    return packer->n_lent;
}

static void end_run(struct packer *packer)
{
    if (packer->used > packer->run) {
        grpc_slice_buffer_add(&packer->out,
                              grpc_slice_sub(packer->chunk, packer->run, packer->used));
        packer->run = packer->used;
    }
}

static void new_chunk(struct packer *packer, size_t at_least)
{
    size_t size = packer->to_copy < CHUNK_MAX ? packer->to_copy : CHUNK_MAX;

    end_run(packer);
    grpc_slice_unref(packer->chunk);
    packer->chunk = grpc_slice_malloc(size > at_least ? size : at_least);
    packer->run = 0;
    packer->used = 0;
}

static void append(ProtobufCBuffer *base, size_t length, const uint8_t *data)
{
    struct packer *packer = gci_container_of(base, struct packer, base);
    size_t i = find_range(packer, data, length);

    if (length == 0) { /* of an empty field, whose pointer may be NULL */
        return;
    }
    if (i < packer->n_lent) {
        end_run(packer);
        grpc_slice_buffer_add(&packer->out, grpc_slice_ref(packer->slices[i]));
        return;
    }
    if (GRPC_SLICE_LENGTH(packer->chunk) - packer->used < length) {
        new_chunk(packer, length);
    }
    memcpy(GRPC_SLICE_START_PTR(packer->chunk) + packer->used, data, length);
    packer->used += length;
    packer->to_copy -= length < packer->to_copy ? length : packer->to_copy;
}

static void packer_init(struct packer *packer, const struct grpc_c_lent *lent, size_t n_lent,
                        size_t packed_size)
{
    memset(packer, 0, sizeof(*packer));
    packer->base.append = append;
    packer->lent = lent;
    packer->n_lent = n_lent;
    packer->low = UINTPTR_MAX;
    packer->to_copy = packed_size;
    packer->chunk = grpc_empty_slice();
    grpc_slice_buffer_init(&packer->out);
    for (size_t i = 0; i < n_lent; i++) {
        uintptr_t at = (uintptr_t)lent[i].data;
        packer->low = at < packer->low ? at : packer->low;
        packer->high = at > packer->high ? at : packer->high;
        packer->to_copy -= lent[i].length < packer->to_copy ? lent[i].length : packer->to_copy;
    }
}

static grpc_byte_buffer *pack_with(const ProtobufCMessage *message, const struct grpc_c_lent *lent,
                                   const grpc_slice *slices, size_t n_lent)
{
    struct packer packer;
    grpc_byte_buffer *buffer;

    packer_init(&packer, lent, n_lent, protobuf_c_message_get_packed_size(message));
    packer.slices = slices;
    (void)protobuf_c_message_pack_to_buffer(message, &packer.base);
    end_run(&packer);
    grpc_slice_unref(packer.chunk);
    buffer = grpc_raw_byte_buffer_create(packer.out.slices, packer.out.count);
    grpc_slice_buffer_destroy(&packer.out);
    return buffer;
}

grpc_byte_buffer *gci_pack_lent(const ProtobufCMessage *message, const struct grpc_c_lent *lent,
                                size_t n_lent)
{
    grpc_slice stack[STACK_LENT];
    grpc_slice *slices = n_lent <= STACK_LENT ? stack : malloc(n_lent * sizeof(*slices));
    grpc_byte_buffer *buffer;

    if (n_lent == 0 || slices == NULL) { /* without memory copying is slower, and right */
        buffer = gci_pack(message);
        for (size_t i = 0; i < n_lent; i++) {
            lent[i].release(lent[i].arg);
        }
        return buffer;
    }
    for (size_t i = 0; i < n_lent; i++) {
        slices[i] = lent_slice(&lent[i]);
    }
    buffer = pack_with(message, lent, slices, n_lent);
    for (size_t i = 0; i < n_lent; i++) {
        grpc_slice_unref(slices[i]); /* a range that no field was gets its release here */
    }
    if (slices != stack) {
        free(slices);
    }
    return buffer;
}
