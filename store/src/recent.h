/*
 * When records were appended: runs of neighbouring records, each with the moment at which the
 * youngest of it was written.
 *
 * The writer notes a run a second for each segment that takes appends (append.c). A compaction
 * hands the moments on to where it moves the records (carry.c), and Seal stores them with its
 * handle (ages.c). What has no run was there before this start of the process: it is undated.
 *
 * Every rounding, and every merging of runs into one, makes records younger, never older: what a
 * caller may still be about to hear of is not deleted.
 */
#ifndef PLSI_RECENT_H
#define PLSI_RECENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PLSI_UNDATED    INT64_MAX /* younger than all */
#define PLSI_NOT_RECENT INT64_MIN /* older than all */

/* The records from here on up to the next run, which may begin in a later segment. */
struct plsi_run {
    uint32_t file;
    uint64_t offset;
    int64_t ms; /* when the youngest was written, on the monotonic clock; or one of the above */
};

/* Ascending by place. Zeroed: empty. */
struct plsi_runs {
    struct plsi_run *at;
    size_t n, room;
};

/* Takes empty and zeroed ones. */
void plsi_runs_fini(struct plsi_runs *runs);
/* Behind the last one; nothing where that has the same moment. False where memory has run out. */
bool plsi_runs_add(struct plsi_runs *runs, uint32_t file, uint64_t offset, int64_t ms);
/*
 * Merges neighbours until no more than `max` (above 0) are left: first those that differ in age by
 * a quarter at most, then by a half, and so on.
 */
void plsi_runs_thin(struct plsi_runs *runs, size_t max, int64_t now);
/* In milliseconds; UINT64_MAX for what is never recent. */
uint64_t plsi_run_age(const struct plsi_run *run, int64_t now);
/* The number of the run that a place lies in; `n` where it lies before them all. */
size_t plsi_runs_find(const struct plsi_runs *runs, uint32_t file, uint64_t offset);

#define PLSI_RECENT_MAX 256 /* runs of a segment: the last four minutes by the second, and ages */

/* Of a segment. Guarded by the store's queue_lock while the segment takes appends. */
struct plsi_recent {
    struct plsi_runs runs;
    uint64_t end; /* of the records that were noted */
};

/* Records from `offset` to `end` of a segment have been written by now. Where memory has run out
 * they count with those before them, which become younger. */
void plsi_recent_note(struct plsi_recent *recent, uint32_t file, uint64_t offset, uint64_t end,
                      int64_t now);

#endif
