#include "clock.h"

#include <stdatomic.h>
#include <time.h>

static atomic_int_least64_t stopped_ns; /* 0: it runs */
static atomic_int_least64_t shift_ns;

int64_t plsi_machine_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t plsi_now_ns(void)
{
    int64_t stopped = atomic_load_explicit(&stopped_ns, memory_order_relaxed);
    return (stopped != 0 ? stopped : plsi_machine_ns()) +
           atomic_load_explicit(&shift_ns, memory_order_relaxed);
}

int64_t plsi_tick_ms(void)
{
    if (atomic_load_explicit(&stopped_ns, memory_order_relaxed) != 0) {
        return plsi_now_ms();
    }
    struct timespec tick;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &tick);
    return (int64_t)tick.tv_sec * 1000 + tick.tv_nsec / 1000000 + PLSI_TICK_MS +
           atomic_load_explicit(&shift_ns, memory_order_relaxed) / 1000000;
}

void plsi_clock_stop(void)
{
    atomic_store(&stopped_ns, plsi_machine_ns());
}

void plsi_clock_shift(int64_t ms)
{
    atomic_fetch_add(&shift_ns, ms * 1000000);
}
