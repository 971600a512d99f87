/*
 * Every system call of the store goes through here, so that a test can make any of them fail.
 *
 * Each function is the bare call, once, with its result turned into a non-negative value or -errno.
 * Loops over short transfers and interrupted calls belong to the caller (files.c).
 */
#ifndef PLSI_SYS_H
#define PLSI_SYS_H

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

int plsi_sys_open(int dirfd, const char *name, int flags, mode_t mode);
int plsi_sys_close(int fd);
/* Spares reads the note of when the file was last read, which costs each a tenth; a hint, and
 * nothing is told of it: another's file cannot be had so. */
void plsi_sys_no_atime(int fd);
ssize_t plsi_sys_pread(int fd, void *buffer, size_t length, uint64_t offset);
/* -EAGAIN where the bytes are not in the page cache, -EOPNOTSUPP where the file system cannot tell.
 */
ssize_t plsi_sys_preadv_nowait(int fd, const struct iovec *iov, int n, uint64_t offset);
ssize_t plsi_sys_pwrite(int fd, const void *buffer, size_t length, uint64_t offset);
ssize_t plsi_sys_pwritev(int fd, const struct iovec *iov, int n, uint64_t offset);
int plsi_sys_fdatasync(int fd);
int plsi_sys_fsync(int fd);
/* Has the disk begin with these bytes; a hint, and nothing is told of it: an error is the next
 * fdatasync's to tell. */
void plsi_sys_write_behind(int fd, uint64_t offset, uint64_t length);
int plsi_sys_ftruncate(int fd, uint64_t size);
int plsi_sys_fstat(int fd, struct stat *st);
int plsi_sys_fstatat(int dirfd, const char *name, struct stat *st);
int plsi_sys_rename(int dirfd, const char *from, const char *to);
int plsi_sys_rename_noreplace(int dirfd, const char *from, const char *to);
int plsi_sys_unlink(int dirfd, const char *name);
int plsi_sys_mkdir(int dirfd, const char *name, mode_t mode);
int plsi_sys_lock(int fd); /* -EWOULDBLOCK where another process holds it */
/* Bytes of the file system: free for us, and in all. */
int plsi_sys_space(int fd, uint64_t *free, uint64_t *total);
int plsi_sys_random(void *buffer, size_t length);

/* io_uring (ring.c): a ring with so many entries; its memory, *memory NULL where that fails;
 * enter, with `asked` new reads, waiting until so many results are there. */
struct io_uring_params;
int plsi_sys_ring_open(unsigned entries, struct io_uring_params *params);
int plsi_sys_ring_map(int fd, uint64_t offset, size_t length, void **memory);
void plsi_sys_ring_unmap(void *memory, size_t length);
int plsi_sys_ring_enter(int fd, unsigned asked, unsigned results);

/* A directory walk; *dir takes a duplicate of dirfd. Next gives NULL at the end, *error 0 or
 * -errno. */
int plsi_sys_opendir(int dirfd, DIR **dir);
const char *plsi_sys_readdir(DIR *dir, int *error);
void plsi_sys_closedir(DIR *dir);

/*
 * Fault injection, process-wide. The call number `countdown` from now (1: the next one) fails with
 * `error`; with error 0 a read or write there transfers half, any other call is left alone. 0
 * switches it off. Closing never fails: the descriptor is gone in any case.
 */
void plsi_sys_fail_at(long countdown, int error);
/* That call, where it is a read or write, transfers half, and every call after it fails: the disk
 * stays as a crash would leave it. */
void plsi_sys_fail_from(long countdown, int error);
/* The process ends at that call, which is not made; a write there transfers half before. The exit
 * status is PLSI_SYS_DIED. */
void plsi_sys_die_at(long countdown);
#define PLSI_SYS_DIED 86
/* Whether syncs are only pretended, for tests that make thousands and lose no power. */
void plsi_sys_pretend_syncs(bool pretend);
/* What plsi_sys_space answers from now on; total 0: the truth again. */
void plsi_sys_pretend_space(uint64_t free, uint64_t total);
/* Calls made since the last plsi_sys_fail_at. */
long plsi_sys_calls(void);

/*
 * Recording, process-wide: `watch` is told of every call that changed what is on the disk or made
 * it durable, on the calling thread. What failed is not told, of a short write what went over.
 */
enum plsi_sys_op {
    PLSI_SYS_OPENED,   /* fd; dirfd, name, flags */
    PLSI_SYS_CLOSES,   /* fd; before the call: the number is another file's at once */
    PLSI_SYS_WROTE,    /* fd; the first `length` bytes of iov, at `offset` */
    PLSI_SYS_CUT,      /* fd; to `length` bytes */
    PLSI_SYS_RENAMED,  /* dirfd, name, to */
    PLSI_SYS_REMOVED,  /* dirfd, name */
    PLSI_SYS_MADE_DIR, /* dirfd, name */
    PLSI_SYS_SYNCS,    /* fd; before the call: it vouches for what was told until now */
    PLSI_SYS_SYNCED    /* fd; after it, pretended or not */
};

struct plsi_sys_event {
    enum plsi_sys_op op;
    int fd, dirfd, flags;
    const char *name, *to;
    const struct iovec *iov;
    uint64_t offset, length;
};

typedef void plsi_sys_watch_fn(const struct plsi_sys_event *event);
void plsi_sys_watch(plsi_sys_watch_fn *watch); /* NULL: nobody is told */

#endif
