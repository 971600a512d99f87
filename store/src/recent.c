#include "recent.h"

#include <stdlib.h>

void plsi_runs_fini(struct plsi_runs *runs)
{
    free(runs->at);
    *runs = (struct plsi_runs){0};
}

bool plsi_runs_add(struct plsi_runs *runs, uint32_t file, uint64_t offset, int64_t ms)
{
    if (runs->n > 0 && runs->at[runs->n - 1].ms == ms) {
        return true;
    }
    if (runs->n == runs->room) {
        size_t room = runs->room * 2 + 8;
        struct plsi_run *at = realloc(runs->at, room * sizeof *at);
        if (at == NULL) {
            return false;
        }
        runs->at = at;
        runs->room = room;
    }
    runs->at[runs->n++] = (struct plsi_run){.file = file, .offset = offset, .ms = ms};
    return true;
}

/* -- thinning ---------------------------------------------------------------------------------- */

uint64_t plsi_run_age(const struct plsi_run *run, int64_t now)
{
    if (run->ms == PLSI_NOT_RECENT) {
        return UINT64_MAX;
    }
    return run->ms < now ? (uint64_t)(now - run->ms) : 0;
}

/* How far the ages of one run may lie apart: a quarter, doubled at each step, in the end anything.
 */
static uint64_t allowed(uint64_t youngest, unsigned step)
{
    uint64_t quarter = youngest / 4 + 250;
    return quarter > UINT64_MAX >> step ? UINT64_MAX : quarter << step;
}

static void merge_neighbours(struct plsi_runs *runs, unsigned step, int64_t now)
{
    size_t n = 1;
    uint64_t youngest = plsi_run_age(&runs->at[0], now), oldest = youngest;
    for (size_t i = 1; i < runs->n; i++) {
        uint64_t age = plsi_run_age(&runs->at[i], now);
        uint64_t low = age < youngest ? age : youngest, high = age > oldest ? age : oldest;
        if (high - low <= allowed(low, step)) {
            struct plsi_run *run = &runs->at[n - 1];
            run->ms = runs->at[i].ms > run->ms ? runs->at[i].ms : run->ms;
            youngest = low;
            oldest = high;
        } else {
            runs->at[n++] = runs->at[i];
            youngest = oldest = age;
        }
    }
    runs->n = n;
}

void plsi_runs_thin(struct plsi_runs *runs, size_t max, int64_t now)
{
    for (unsigned step = 0; runs->n > max; step++) {
        merge_neighbours(runs, step, now);
    }
}

/* -- looking up -------------------------------------------------------------------------------- */

static bool is_above(const struct plsi_run *run, uint32_t file, uint64_t offset)
{
    return run->file != file ? run->file > file : run->offset > offset;
}

size_t plsi_runs_find(const struct plsi_runs *runs, uint32_t file, uint64_t offset)
{
    size_t low = 0, high = runs->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (is_above(&runs->at[middle], file, offset)) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low > 0 ? low - 1 : runs->n;
}

/* -- a segment --------------------------------------------------------------------------------- */

void plsi_recent_note(struct plsi_recent *recent, uint32_t file, uint64_t offset, uint64_t end,
                      int64_t now)
{
    struct plsi_runs *runs = &recent->runs;
    recent->end = end;
    if (runs->n > 0 && runs->at[runs->n - 1].ms / 1000 == now / 1000) {
        runs->at[runs->n - 1].ms = now;
        return;
    }
    if (runs->n == PLSI_RECENT_MAX) {
        plsi_runs_thin(runs, PLSI_RECENT_MAX / 2, now);
    }
    if (!plsi_runs_add(runs, file, offset, now) && runs->n > 0) {
        runs->at[runs->n - 1].ms = now;
    }
}
