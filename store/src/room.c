#include "room.h"

#include <inttypes.h>

#include "dir.h"
#include "error.h"
#include "log.h"

#define MIB             (1ull << 20)
#define RESERVE_DEFAULT (512 * MIB)
#define RESERVE_SHARE   20u /* of the file system, where that is less: 5 % */
#define STEP_SHARE      8u
#define STEP_LEAST      (64u << 10)
#define STEP_MOST       (16 * MIB)

/* What a look found. */
struct look {
    struct plsi_space space;
    uint64_t reserve;
    uint64_t spare; /* free above the reserve */
    uint64_t step;
};

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static bool has_reserve(const pls_dir *dir)
{
    return dir->options.reserve_bytes != PLS_RESERVE_NONE;
}

/* File systems grow: the default follows. */
static uint64_t reserve_of(const pls_dir *dir, uint64_t total)
{
    if (!has_reserve(dir)) {
        return 0;
    }
    return dir->options.reserve_bytes != 0 ? dir->options.reserve_bytes
                                           : least(RESERVE_DEFAULT, total / RESERVE_SHARE);
}

static uint64_t step_of(uint64_t reserve, uint64_t total)
{
    uint64_t step = reserve / STEP_SHARE;
    step = step < STEP_LEAST ? STEP_LEAST : least(step, STEP_MOST);
    /* Of a file system that is nearly all reserve there must be enough for appends to go on. */
    return total > reserve ? least(step, (total - reserve) / STEP_SHARE) : step;
}

static enum pls_code look_at(pls_dir *dir, struct look *look)
{
    enum pls_code code = dir->root->ops->space(dir->root, &look->space);
    if (code != PLS_OK) {
        return code;
    }
    look->reserve = reserve_of(dir, look->space.total);
    look->spare = look->space.free > look->reserve ? look->space.free - look->reserve : 0;
    look->step = step_of(look->reserve, look->space.total);
    return PLS_OK;
}

/* Whoever finds it changed says so, once. */
static void set_stopped(pls_dir *dir, const struct look *look, bool stopped)
{
    if (atomic_exchange(&dir->room.stopped, stopped) == stopped) {
        return;
    }
    if (stopped) {
        plsi_log(dir, PLS_LOG_WARNING, NULL, "appends_stopped",
                 "the file system has %" PRIu64 " bytes free, of which %" PRIu64
                 " are reserved for compaction: compact, or free some disk",
                 look->space.free, look->reserve);
    } else {
        plsi_log(dir, PLS_LOG_INFO, NULL, "appends_go_on",
                 "the file system has %" PRIu64 " bytes free above the reserve", look->spare);
    }
}

/* Settles what a look means for `bytes` that are to be appended. */
static enum pls_code settle(pls_dir *dir, const struct look *look, uint64_t bytes)
{
    bool fits = bytes <= look->spare;
    bool stopped = look->spare < look->step && (!fits || atomic_load(&dir->room.stopped));
    bool goes = fits && !stopped;
    uint64_t left = stopped ? 0 : least(look->spare, look->step);
    atomic_store(&dir->room.left, (int64_t)left - (int64_t)(goes ? least(bytes, left) : 0));
    set_stopped(dir, look, stopped);
    return goes ? PLS_OK : PLS_DISK_RESERVE;
}

enum pls_code plsi_room_init(pls_dir *dir, struct pls_error *error)
{
    struct look look;
    if (look_at(dir, &look) != PLS_OK) {
        return PLS_OK;
    }
    if (look.reserve > 0 && look.reserve >= look.space.total) {
        return plsi_fail(error, PLS_INVALID_ARGUMENT,
                         "a reserve of %" PRIu64
                         " bytes leaves nothing of a file system of %" PRIu64,
                         look.reserve, look.space.total);
    }
    if (has_reserve(dir)) {
        settle(dir, &look, 1);
    }
    return PLS_OK;
}

enum pls_code plsi_room_take(pls_dir *dir, uint64_t bytes)
{
    /* Taking too much is put right by the look that follows. */
    if (!has_reserve(dir) || atomic_fetch_sub_explicit(&dir->room.left, (int64_t)bytes,
                                                       memory_order_relaxed) >= (int64_t)bytes) {
        return PLS_OK;
    }
    struct look look;
    return look_at(dir, &look) == PLS_OK ? settle(dir, &look, bytes) : PLS_OK;
}

bool plsi_room_has(const pls_dir *dir, uint64_t bytes)
{
    return !has_reserve(dir) ||
           atomic_load_explicit(&dir->room.left, memory_order_relaxed) >= (int64_t)bytes;
}

void plsi_room_doubt(pls_dir *dir)
{
    atomic_store(&dir->room.left, 0);
}

enum pls_code plsi_room_stat(pls_dir *dir, uint64_t *spare, bool *stopped)
{
    struct look look;
    enum pls_code code = look_at(dir, &look);
    if (code == PLS_OK) {
        *stopped = has_reserve(dir) ? settle(dir, &look, 1) != PLS_OK : look.spare == 0;
        *spare = *stopped ? 0 : look.spare;
    }
    return code;
}
