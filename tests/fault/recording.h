/*
 * What a store's system calls did to a directory, in order, and what of it a disk may have after
 * the power failed.
 *
 * Recorded are the calls that succeeded. A position in the recording is the number of steps before
 * it; a crash at position c has seen the first c steps, and whoever was answered at a position up
 * to c relies on them.
 *
 * After the crash there is for certain: of a file what was written before a sync of it began that
 * ended before the crash, its length included; of a directory the names that were made, changed or
 * removed before such a sync of the directory. A sync of a file vouches for no name, its own
 * included. What is not certain:
 *
 *   data          each sector of 512 bytes that was written may be there or not, by itself: writes
 *                 are dropped, torn, and overtake each other. The file may have grown to where they
 *                 ended or to the last of them that is there; what is not there reads as zeros, or
 *                 as what was there before
 *   names         IN_ORDER: the first so many changes, as a journalling file system has them;
 *                 ANY: each change by itself, where the file that it is about is there
 */
#ifndef RECORDING_H
#define RECORDING_H

#include <stddef.h>

#include "fault.h"

enum names { IN_ORDER, ANY };

/* Watches what is done in an empty directory, one at a time in a process. */
void recording_start(const char *path);
/* Stops watching; what was recorded stays. */
void recording_stop(void);
void recording_free(void);

/* The position now; any thread. */
size_t recording_now(void);

/* Makes a directory what the recorded one may be after a crash at a position. */
void recording_replay(size_t at, enum names names, struct chance *chance, const char *path);

#endif
