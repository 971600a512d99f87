/*
 * The pace of compactions: bytes copied a second, of all stores of a directory together, since they
 * share the disk. Time in which nothing was copied is not made up for.
 */
#ifndef PLSI_PACE_H
#define PLSI_PACE_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

struct plsi_pace {
    pthread_mutex_t lock; /* a leaf; guards turn_ns */
    int64_t turn_ns;      /* when the next copy may begin, on the monotonic clock */
};

void plsi_pace_init(struct plsi_pace *pace);
void plsi_pace_fini(struct plsi_pace *pace);

/* When `bytes` may be copied, at a rate above 0; who asks next comes after them. */
int64_t plsi_pace_turn(struct plsi_pace *pace, uint64_t bytes_per_second, size_t bytes);

#endif
