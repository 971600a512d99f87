#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/statvfs.h>
#include <unistd.h>

static atomic_bool faults_on;
static atomic_long calls_made;
static atomic_long calls_left;
static atomic_int fault_error;
static atomic_bool fault_goes_on;
static atomic_bool syncs_pretended;
static atomic_uint_fast64_t pretended_free, pretended_total;

static void arm(long countdown, int error, bool on_and_on)
{
    atomic_store(&calls_made, 0);
    atomic_store(&calls_left, countdown > 0 ? countdown : LONG_MAX);
    atomic_store(&fault_error, error);
    atomic_store(&fault_goes_on, on_and_on);
    atomic_store(&faults_on, true);
}

void plsi_sys_fail_at(long countdown, int error)
{
    arm(countdown, error, false);
}

void plsi_sys_fail_from(long countdown, int error)
{
    arm(countdown, error, true);
}

void plsi_sys_pretend_syncs(bool pretend)
{
    atomic_store(&syncs_pretended, pretend);
}

void plsi_sys_pretend_space(uint64_t free, uint64_t total)
{
    atomic_store(&pretended_free, free);
    atomic_store(&pretended_total, total);
}

long plsi_sys_calls(void)
{
    return atomic_load(&calls_made);
}

/* 0, the -errno that this call is to fail with, or 1: it is to transfer half. */
static int fault(void)
{
    if (!atomic_load_explicit(&faults_on, memory_order_relaxed)) {
        return 0;
    }
    atomic_fetch_add(&calls_made, 1);
    long left = atomic_fetch_sub(&calls_left, 1);
    bool goes_on = atomic_load(&fault_goes_on);
    if (left > 1 || (left < 1 && !goes_on)) {
        return 0;
    }
    int error = left == 1 && goes_on ? 0 : atomic_load(&fault_error);
    return error != 0 ? -error : 1;
}

static int result(int value)
{
    return value < 0 ? -errno : value;
}

static ssize_t transferred(ssize_t value)
{
    return value < 0 ? -errno : value;
}

int plsi_sys_open(int dirfd, const char *name, int flags, mode_t mode)
{
    int failed = fault();
    return failed < 0 ? failed : result(openat(dirfd, name, flags | O_CLOEXEC, mode));
}

int plsi_sys_close(int fd)
{
    return result(close(fd));
}

ssize_t plsi_sys_pread(int fd, void *buffer, size_t length, uint64_t offset)
{
    int failed = fault();
    if (failed < 0) {
        return failed;
    }
    return transferred(pread(fd, buffer, failed ? (length + 1) / 2 : length, (off_t)offset));
}

ssize_t plsi_sys_pread_nowait(int fd, void *buffer, size_t length, uint64_t offset)
{
    int failed = fault();
    if (failed < 0) {
        return failed;
    }
    struct iovec iov = {.iov_base = buffer, .iov_len = failed ? (length + 1) / 2 : length};
    return transferred(preadv2(fd, &iov, 1, (off_t)offset, RWF_NOWAIT));
}

ssize_t plsi_sys_pwrite(int fd, const void *buffer, size_t length, uint64_t offset)
{
    int failed = fault();
    if (failed < 0) {
        return failed;
    }
    return transferred(pwrite(fd, buffer, failed ? (length + 1) / 2 : length, (off_t)offset));
}

ssize_t plsi_sys_pwritev(int fd, const struct iovec *iov, int n, uint64_t offset)
{
    int failed = fault();
    if (failed < 0) {
        return failed;
    }
    if (failed && n == 1) {
        return transferred(pwrite(fd, iov->iov_base, (iov->iov_len + 1) / 2, (off_t)offset));
    }
    return transferred(pwritev(fd, iov, failed ? n / 2 : n, (off_t)offset));
}

static bool is_pretended(void)
{
    return atomic_load_explicit(&syncs_pretended, memory_order_relaxed);
}

int plsi_sys_fdatasync(int fd)
{
    int failed = fault();
    if (failed < 0) {
        return failed;
    }
    return is_pretended() ? 0 : result(fdatasync(fd));
}

int plsi_sys_fsync(int fd)
{
    int failed = fault();
    if (failed < 0) {
        return failed;
    }
    return is_pretended() ? 0 : result(fsync(fd));
}

int plsi_sys_ftruncate(int fd, uint64_t size)
{
    int failed = fault();
    return failed < 0 ? failed : result(ftruncate(fd, (off_t)size));
}

int plsi_sys_fstat(int fd, struct stat *st)
{
    int failed = fault();
    return failed < 0 ? failed : result(fstat(fd, st));
}

int plsi_sys_fstatat(int dirfd, const char *name, struct stat *st)
{
    int failed = fault();
    return failed < 0 ? failed : result(fstatat(dirfd, name, st, 0));
}

int plsi_sys_rename(int dirfd, const char *from, const char *to)
{
    int failed = fault();
    return failed < 0 ? failed : result(renameat(dirfd, from, dirfd, to));
}

int plsi_sys_rename_noreplace(int dirfd, const char *from, const char *to)
{
    int failed = fault();
    return failed < 0 ? failed : result(renameat2(dirfd, from, dirfd, to, RENAME_NOREPLACE));
}

int plsi_sys_unlink(int dirfd, const char *name)
{
    int failed = fault();
    return failed < 0 ? failed : result(unlinkat(dirfd, name, 0));
}

int plsi_sys_mkdir(int dirfd, const char *name, mode_t mode)
{
    int failed = fault();
    return failed < 0 ? failed : result(mkdirat(dirfd, name, mode));
}

int plsi_sys_lock(int fd)
{
    int failed = fault();
    return failed < 0 ? failed : result(flock(fd, LOCK_EX | LOCK_NB));
}

int plsi_sys_space(int fd, uint64_t *free, uint64_t *total)
{
    int failed = fault();
    if (failed < 0) {
        return failed;
    }
    *total = atomic_load(&pretended_total);
    *free = atomic_load(&pretended_free);
    if (*total != 0) {
        return 0;
    }
    struct statvfs space;
    int error = result(fstatvfs(fd, &space));
    if (error == 0) {
        *free = (uint64_t)space.f_bavail * space.f_frsize;
        *total = (uint64_t)space.f_blocks * space.f_frsize;
    }
    return error;
}

int plsi_sys_random(void *buffer, size_t length)
{
    int failed = fault();
    return failed < 0 ? failed : result((int)getrandom(buffer, length, 0));
}

int plsi_sys_opendir(int dirfd, DIR **dir)
{
    int fd = plsi_sys_open(dirfd, ".", O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0) {
        return fd;
    }
    *dir = fdopendir(fd);
    if (*dir == NULL) {
        int error = -errno;
        plsi_sys_close(fd);
        return error;
    }
    return 0;
}

const char *plsi_sys_readdir(DIR *dir, int *error)
{
    int failed = fault();
    if (failed < 0) {
        *error = failed;
        return NULL;
    }
    errno = 0;
    const struct dirent *entry = readdir(dir); /* one thread walks one stream */
    *error = entry == NULL ? -errno : 0;
    return entry == NULL ? NULL : entry->d_name;
}

void plsi_sys_closedir(DIR *dir)
{
    closedir(dir);
}
