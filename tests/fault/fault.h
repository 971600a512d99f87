/*
 * What the fault tests share: numbers by chance from a seed that is printed, a place for their
 * data, and an end with a word where something that must hold does not.
 *
 *   variable          says
 *   FAULT_SEED        what the test begins with; 1
 *   FAULT_KILLS, FAULT_CRASHES, FAULT_FLIPS
 *                     how many of them; each test has a number that takes some seconds
 *   FAULT_DIR         where the data lies; memory (/dev/shm) where it has room, else TMPDIR
 */
#ifndef FAULT_H
#define FAULT_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "payloadstore/payloadstore.h"

/* -- chance -- */

struct chance {
    uint64_t state;
};

struct chance chance_from(uint64_t seed);
/* 0 to n - 1. */
uint32_t below(struct chance *chance, uint32_t n);
bool one_in(struct chance *chance, uint32_t n);

/* A variable's number, or what it is otherwise. */
unsigned long number_from(const char *variable, unsigned long otherwise);
/* FAULT_SEED, printed. */
unsigned long fault_seed(const char *test);

/* -- data -- */

/* A new directory, taken away by work_dir_remove. */
void fault_dir_create(char path[PATH_MAX]);

/* -- what must hold -- */

/* Ends the process with 1, and says why and where; in a child of the test, too. Any thread. */
#define MUST(condition, ...)                                          \
    do {                                                              \
        if (!(condition)) {                                           \
            must_failed(__FILE__, __LINE__, #condition, __VA_ARGS__); \
        }                                                             \
    } while (0)
_Noreturn void must_failed(const char *file, int line, const char *condition, const char *format,
                           ...) __attribute__((format(printf, 4, 5)));

/* What a ref reads, compared with what fill() makes of the seed. */
enum reading { RIGHT, NOTHING, DAMAGE, WRONG };
enum reading reading_of(pls_store *store, const struct pls_ref *ref, uint32_t seed);

/* The place in a map, which is by old ref ascending; NULL where it is not in it. */
const struct pls_relocation *find_in_map(const struct pls_relocation *map, size_t n,
                                         const struct pls_ref *old_ref);

#endif
