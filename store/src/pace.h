/*
 * The pace of compactions, of all stores of a directory together, since they share processors and
 * disk. Two things keep it: a number of bytes a second, where one is asked for (time in which
 * nothing was copied is not made up for), and the rest that a compaction takes after each piece
 * while somebody calls, so that nobody's call waits for more than a piece of it, and few for that.
 * It is a short one while more is appended than copied: garbage must not grow without end.
 */
#ifndef PLSI_PACE_H
#define PLSI_PACE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct plsi_pace {
    pthread_mutex_t lock;   /* a leaf; guards turn_ns and called_ns */
    int64_t turn_ns;        /* when the next copy may begin, on the monotonic clock */
    int64_t called_ns;      /* when a compaction last found that somebody had called; 0: never */
    atomic_bool called;     /* since then */
    _Atomic int64_t behind; /* bytes appended since a compaction began, without those copied */
};

void plsi_pace_init(struct plsi_pace *pace);
void plsi_pace_fini(struct plsi_pace *pace);

/* When `bytes` may be copied, at a rate above 0; who asks next comes after them. */
int64_t plsi_pace_turn(struct plsi_pace *pace, uint64_t bytes_per_second, size_t bytes);

/* An append or a read came. Any thread; writes only where a compaction has looked since. */
static inline void plsi_pace_called(struct plsi_pace *pace)
{
    if (!atomic_load_explicit(&pace->called, memory_order_relaxed)) {
        atomic_store_explicit(&pace->called, true, memory_order_relaxed);
    }
}

/* So many bytes were appended. Any thread. */
static inline void plsi_pace_appended(struct plsi_pace *pace, uint64_t bytes)
{
    atomic_fetch_add_explicit(&pace->behind, (int64_t)bytes, memory_order_relaxed);
}

/* A compaction begins: what was called and appended before is nothing to it. */
static inline void plsi_pace_begin(struct plsi_pace *pace)
{
    atomic_store_explicit(&pace->called, false, memory_order_relaxed);
    atomic_store_explicit(&pace->behind, 0, memory_order_relaxed);
}

/* For how long to rest after a piece of `bytes` that took `piece_ns`; 0 where nobody has called of
 * late. */
int64_t plsi_pace_rest(struct plsi_pace *pace, int64_t piece_ns, size_t bytes);

#endif
