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
ssize_t plsi_sys_pread(int fd, void *buffer, size_t length, uint64_t offset);
/* -EAGAIN where the bytes are not in the page cache, -EOPNOTSUPP where the file system cannot tell.
 */
ssize_t plsi_sys_pread_nowait(int fd, void *buffer, size_t length, uint64_t offset);
ssize_t plsi_sys_pwrite(int fd, const void *buffer, size_t length, uint64_t offset);
ssize_t plsi_sys_pwritev(int fd, const struct iovec *iov, int n, uint64_t offset);
int plsi_sys_fdatasync(int fd);
int plsi_sys_fsync(int fd);
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
/* Whether syncs are only pretended, for tests that make thousands and lose no power. */
void plsi_sys_pretend_syncs(bool pretend);
/* What plsi_sys_space answers from now on; total 0: the truth again. */
void plsi_sys_pretend_space(uint64_t free, uint64_t total);
/* Calls made since the last plsi_sys_fail_at. */
long plsi_sys_calls(void);

#endif
