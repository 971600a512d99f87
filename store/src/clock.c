#include "clock.h"

#include <stdatomic.h>
#include <time.h>

#define TICK_NS INT64_C(10000000) /* of the timer; Linux has none that is longer */

static atomic_int_least64_t stopped_ns; /* 0: it runs */
static atomic_int_least64_t shift_ns;

static int64_t read_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Unless it stands still. */
static int64_t read_ahead_ns(clockid_t clock, int64_t ahead)
{
    int64_t stopped = atomic_load_explicit(&stopped_ns, memory_order_relaxed);
    return (stopped != 0 ? stopped : read_ns(clock) + ahead) +
           atomic_load_explicit(&shift_ns, memory_order_relaxed);
}

int64_t plsi_machine_ns(void)
{
    return read_ns(CLOCK_MONOTONIC);
}

int64_t plsi_now_ns(void)
{
    return read_ahead_ns(CLOCK_MONOTONIC, 0);
}

int64_t plsi_tick_ms(void)
{
    return read_ahead_ns(CLOCK_MONOTONIC_COARSE, TICK_NS) / 1000000;
}

void plsi_clock_stop(void)
{
    atomic_store(&stopped_ns, plsi_machine_ns());
}

void plsi_clock_shift(int64_t ms)
{
    atomic_fetch_add(&shift_ns, ms * 1000000);
}
