/*
 * How much of the file system appends may still use.
 *
 * Appends stop while it has no more free than the reserve; whatever gives room back, or keeps what
 * there is readable, may use that: seal, claim, a compaction's outputs and table, the states and
 * indexes. All stores of a directory share the file system, and so this account.
 *
 *   state     an append   left by
 *   going on  counted     a look that finds no room for an append, and less than a step of it
 *   stopped   refused     a look that finds a step of room again: each append looks, and Stat
 *
 * The file system is asked once a step (an eighth of the reserve, 16 MiB at most), not for each
 * append: what other programs write meanwhile, appends do not see. A step is also what has to be
 * free before appends go on, so that they do not stop and go with every record.
 */
#ifndef PLSI_ROOM_H
#define PLSI_ROOM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "payloadstore/payloadstore.h"

/* Zeroed at first: nothing is known. */
struct plsi_room {
    atomic_int_fast64_t left; /* bytes that may be appended before the next look */
    atomic_bool stopped;
};

/* Looks for the first time. INVALID_ARGUMENT where the reserve is no less than the file system. */
enum pls_code plsi_room_init(pls_dir *dir, struct pls_error *error);

/*
 * Asked before `bytes` are appended. OK, also where the file system cannot be asked: the write will
 * tell; DISK_RESERVE. Logs where appends stop or go on: under no lock that a callback could want.
 */
enum pls_code plsi_room_take(pls_dir *dir, uint64_t bytes);

/* Whether `bytes` need no look. Never waits. */
bool plsi_room_has(const pls_dir *dir, uint64_t bytes);

/* A write has found the disk full: the next take looks. */
void plsi_room_doubt(pls_dir *dir);

/* Looks now. *spare: what appends may still use, 0 where they are stopped. IO: it cannot be told.
 */
enum pls_code plsi_room_stat(pls_dir *dir, uint64_t *spare, bool *stopped);

#endif
