/* The monotonic clock. */
#ifndef PLSI_CLOCK_H
#define PLSI_CLOCK_H

#include <stdint.h>

int64_t plsi_now_ns(void);
/* As the machine has it, whatever tests do to the other: for what is waited for. */
int64_t plsi_machine_ns(void);

static inline int64_t plsi_now_ms(void)
{
    return plsi_now_ns() / 1000000;
}

/* Never before now, and at most a tick of the machine's timer after it: at a third of the cost. */
int64_t plsi_tick_ms(void);

/* For tests: the clock of the whole process stands still from now on, and moves by shifts alone. */
void plsi_clock_stop(void);
void plsi_clock_shift(int64_t ms);

#endif
