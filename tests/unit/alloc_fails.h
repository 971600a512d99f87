/*
 * Allocations that fail. The linker puts these functions in front of malloc's for the program and
 * the library (--wrap), not for gRPC core, which aborts by design.
 */
#ifndef TESTS_UNIT_ALLOC_FAILS_H
#define TESTS_UNIT_ALLOC_FAILS_H

#include <stdbool.h>

/* `n` more succeed, then one fails, then all succeed; on whatever threads. */
void alloc_fails_after(int n);

void alloc_fails_never(void);

/* Whether the one has failed. */
bool alloc_has_failed(void);

#endif
