/*
 * Many reads in one system call: io_uring, used for reads that do not wait and for nothing else.
 *
 * A system call costs as much as a quarter of a small read. Where the kernel has no rings, or does
 * not let us have any, as in many containers, the reads are made one by one; so they are where all
 * rings are in use. Each read is told not to wait, so that none is ever left to a kernel thread.
 *
 * Threads: rings any, at the same time; a ring whoever has taken it.
 */
#ifndef PLSI_RING_H
#define PLSI_RING_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#define PLSI_RINGS 8u /* made as they are needed, with a descriptor each */

struct plsi_ring;

struct plsi_rings {
    pthread_mutex_t lock; /* a leaf; guards everything below */
    unsigned made;        /* rings there are, or are being made */
    bool refused;         /* by the kernel: not asked again */
    unsigned n_free;
    struct plsi_ring *free[PLSI_RINGS];
};

void plsi_rings_init(struct plsi_rings *rings);
/* All were given back. */
void plsi_rings_fini(struct plsi_rings *rings);

/* NULL where none can be had now. */
struct plsi_ring *plsi_rings_take(struct plsi_rings *rings);
void plsi_rings_give(struct plsi_rings *rings, struct plsi_ring *ring);

/* Up to PLSI_PIECES, then run. `iov` is borrowed until then. */
void plsi_ring_add(struct plsi_ring *ring, int fd, const struct iovec *iov, int n, uint64_t offset,
                   size_t tag);
/* Makes the reads. Nothing of them goes on when it returns. */
void plsi_ring_run(struct plsi_ring *ring);
/* The next result, in any order: bytes, or -errno, as plsi_sys_preadv_nowait has it. False at the
 * end: what had no result was not made. */
bool plsi_ring_next(struct plsi_ring *ring, size_t *tag, ssize_t *result);

#endif
