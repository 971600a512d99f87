#include "ring.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "backend.h"
#include "sys.h"

/* The kernel's side of a ring is memory that we share with it: two queues, each a ring of entries
 * between a head, which the reader moves, and a tail, which the writer moves. */
struct queue {
    _Atomic uint32_t *head, *tail;
    uint32_t mask;
};

struct plsi_ring {
    int fd;
    void *rings, *entries; /* mapped */
    size_t rings_bytes, entries_bytes;
    struct queue asked, answered;
    struct io_uring_sqe *reads;
    struct io_uring_cqe *results;
};

/* -- making one -------------------------------------------------------------------------------- */

static size_t greater(size_t a, size_t b)
{
    return a > b ? a : b;
}

static void *at(const struct plsi_ring *ring, uint32_t offset)
{
    return (uint8_t *)ring->rings + offset;
}

/* The queue of reads is a queue of numbers of entries: each its own. */
static void lay_out(struct plsi_ring *ring, const struct io_uring_params *params)
{
    const struct io_sqring_offsets *sq = &params->sq_off;
    const struct io_cqring_offsets *cq = &params->cq_off;
    uint32_t *numbers = at(ring, sq->array);
    ring->asked = (struct queue){at(ring, sq->head), at(ring, sq->tail), params->sq_entries - 1};
    ring->answered = (struct queue){at(ring, cq->head), at(ring, cq->tail), params->cq_entries - 1};
    ring->reads = ring->entries;
    ring->results = at(ring, cq->cqes);
    for (uint32_t i = 0; i < params->sq_entries; i++) {
        numbers[i] = i;
    }
}

static void ring_close(struct plsi_ring *ring)
{
    if (ring->entries != NULL) {
        plsi_sys_ring_unmap(ring->entries, ring->entries_bytes);
    }
    if (ring->rings != NULL) {
        plsi_sys_ring_unmap(ring->rings, ring->rings_bytes);
    }
    if (ring->fd >= 0) {
        plsi_sys_close(ring->fd);
    }
    free(ring);
}

/* Both queues in one mapping, as kernels since 5.4 have it. */
static bool map(struct plsi_ring *ring, const struct io_uring_params *params)
{
    if (!(params->features & IORING_FEAT_SINGLE_MMAP)) {
        return false;
    }
    ring->rings_bytes =
        greater(params->sq_off.array + params->sq_entries * sizeof(uint32_t),
                params->cq_off.cqes + params->cq_entries * sizeof(struct io_uring_cqe));
    ring->entries_bytes = params->sq_entries * sizeof(struct io_uring_sqe);
    return plsi_sys_ring_map(ring->fd, IORING_OFF_SQ_RING, ring->rings_bytes, &ring->rings) == 0 &&
           plsi_sys_ring_map(ring->fd, IORING_OFF_SQES, ring->entries_bytes, &ring->entries) == 0;
}

/* NULL where the kernel does not have it, or does not let us. */
static struct plsi_ring *ring_open(void)
{
    struct io_uring_params params = {0};
    struct plsi_ring *ring = calloc(1, sizeof *ring);
    if (ring == NULL) {
        return NULL;
    }
    ring->fd = plsi_sys_ring_open(PLSI_PIECES, &params);
    if (ring->fd < 0 || !map(ring, &params)) {
        ring_close(ring);
        return NULL;
    }
    lay_out(ring, &params);
    return ring;
}

/* -- all of them ------------------------------------------------------------------------------- */

void plsi_rings_init(struct plsi_rings *rings)
{
    *rings = (struct plsi_rings){.made = 0};
    pthread_mutex_init(&rings->lock, NULL);
}

void plsi_rings_fini(struct plsi_rings *rings)
{
    while (rings->n_free > 0) {
        ring_close(rings->free[--rings->n_free]);
    }
    pthread_mutex_destroy(&rings->lock);
}

struct plsi_ring *plsi_rings_take(struct plsi_rings *rings)
{
    struct plsi_ring *ring = NULL;
    bool make = false;
    pthread_mutex_lock(&rings->lock);
    if (rings->n_free > 0) {
        ring = rings->free[--rings->n_free];
    } else if (!rings->refused && rings->made < PLSI_RINGS) {
        rings->made++;
        make = true;
    }
    pthread_mutex_unlock(&rings->lock);
    if (!make) {
        return ring;
    }
    ring = ring_open();
    if (ring == NULL) {
        pthread_mutex_lock(&rings->lock);
        rings->refused = true;
        pthread_mutex_unlock(&rings->lock);
    }
    return ring;
}

void plsi_rings_give(struct plsi_rings *rings, struct plsi_ring *ring)
{
    pthread_mutex_lock(&rings->lock);
    rings->free[rings->n_free++] = ring;
    pthread_mutex_unlock(&rings->lock);
}

/* -- reads ------------------------------------------------------------------------------------- */

/* Only we move the tail of one and the head of the other: their values need no order. */
static uint32_t own(_Atomic uint32_t *end)
{
    return atomic_load_explicit(end, memory_order_relaxed);
}

void plsi_ring_add(struct plsi_ring *ring, int fd, const struct iovec *iov, int n, uint64_t offset,
                   size_t tag)
{
    uint32_t tail = own(ring->asked.tail);
    struct io_uring_sqe *read = &ring->reads[tail & ring->asked.mask];
    *read = (struct io_uring_sqe){
        .fd = fd, .off = offset, .rw_flags = RWF_NOWAIT, .user_data = (uint64_t)tag};
    if (n == 1) { /* cheaper than a list of one */
        read->opcode = IORING_OP_READ;
        read->addr = (uintptr_t)iov->iov_base;
        read->len = (uint32_t)iov->iov_len;
    } else {
        read->opcode = IORING_OP_READV;
        read->addr = (uintptr_t)iov;
        read->len = (uint32_t)n;
    }
    atomic_store_explicit(ring->asked.tail, tail + 1, memory_order_release);
}

/* Reads that were asked for and have not been looked at by the kernel. */
static uint32_t waiting(const struct plsi_ring *ring)
{
    return own(ring->asked.tail) - atomic_load_explicit(ring->asked.head, memory_order_acquire);
}

static uint32_t results(const struct plsi_ring *ring)
{
    return atomic_load_explicit(ring->answered.tail, memory_order_acquire) -
           own(ring->answered.head);
}

void plsi_ring_run(struct plsi_ring *ring)
{
    uint32_t n = waiting(ring);
    (void)plsi_sys_ring_enter(ring->fd, n, 0);
    n -= waiting(ring);
    /* What the kernel has not taken it is not to find the next time. */
    atomic_store_explicit(ring->asked.tail, own(ring->asked.tail) - waiting(ring),
                          memory_order_release);
    while (results(ring) < n) { /* not of reads like these; but they write to our memory */
        (void)plsi_sys_ring_enter(ring->fd, 0, n);
    }
}

bool plsi_ring_next(struct plsi_ring *ring, size_t *tag, ssize_t *result)
{
    if (results(ring) == 0) {
        return false;
    }
    uint32_t head = own(ring->answered.head);
    const struct io_uring_cqe *answer = &ring->results[head & ring->answered.mask];
    *tag = (size_t)answer->user_data;
    *result = answer->res;
    atomic_store_explicit(ring->answered.head, head + 1, memory_order_release);
    return true;
}
