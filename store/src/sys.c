#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/io_uring.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_bool faults_on;
static atomic_long calls_made;
static atomic_long calls_left;
static atomic_int fault_error;
static atomic_bool fault_goes_on;
static atomic_bool fault_kills;
static atomic_bool syncs_pretended;
static atomic_uint_fast64_t pretended_free, pretended_total;
static _Atomic(plsi_sys_watch_fn *) watcher;

static void arm(long countdown, int error, bool on_and_on)
{
    atomic_store(&fault_kills, false);
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

void plsi_sys_die_at(long countdown)
{
    arm(countdown, 0, false);
    atomic_store(&fault_kills, true);
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

void plsi_sys_watch(plsi_sys_watch_fn *watch)
{
    atomic_store(&watcher, watch);
}

static void tell(const struct plsi_sys_event *event)
{
    plsi_sys_watch_fn *watch = atomic_load_explicit(&watcher, memory_order_relaxed);
    if (watch != NULL) {
        watch(event);
    }
}

/* Tells of a call that succeeded; gives its result back. */
static int told(int value, const struct plsi_sys_event *event)
{
    if (value >= 0) {
        tell(event);
    }
    return value;
}

/* 0, the -errno that this call is to fail with, or 1: it is to transfer half. */
static int fault_of_transfer(void)
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

static int fault(void)
{
    int failed = fault_of_transfer();
    if (failed == 1 && atomic_load(&fault_kills)) {
        _exit(PLSI_SYS_DIED);
    }
    return failed;
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
    if (failed < 0) {
        return failed;
    }
    int fd = result(openat(dirfd, name, flags | O_CLOEXEC, mode));
    return told(fd,
                &(struct plsi_sys_event){
                    .op = PLSI_SYS_OPENED, .fd = fd, .dirfd = dirfd, .name = name, .flags = flags});
}

int plsi_sys_close(int fd)
{
    tell(&(struct plsi_sys_event){.op = PLSI_SYS_CLOSES, .fd = fd});
    return result(close(fd));
}

/* Not with the open: that would fail, having made the file where it is to be made, on a file system
 * that gives files to another. */
void plsi_sys_no_atime(int fd)
{
    (void)fcntl(fd, F_SETFL, O_NOATIME);
}

ssize_t plsi_sys_pread(int fd, void *buffer, size_t length, uint64_t offset)
{
    int failed = fault();
    if (failed < 0) {
        return failed;
    }
    return transferred(pread(fd, buffer, failed ? (length + 1) / 2 : length, (off_t)offset));
}

ssize_t plsi_sys_preadv_nowait(int fd, const struct iovec *iov, int n, uint64_t offset)
{
    int failed = fault();
    if (failed < 0) {
        return failed;
    }
    const struct iovec half = {.iov_base = iov->iov_base, .iov_len = (iov->iov_len + 1) / 2};
    return transferred(
        preadv2(fd, failed ? &half : iov, failed ? 1 : n, (off_t)offset, RWF_NOWAIT));
}

/* After a write: where it was to be the last thing done, it is. */
static ssize_t written(ssize_t value, int failed, int fd, const struct iovec *iov, uint64_t offset)
{
    if (failed == 1 && atomic_load(&fault_kills)) {
        _exit(PLSI_SYS_DIED);
    }
    value = transferred(value);
    if (value > 0) {
        tell(&(struct plsi_sys_event){.op = PLSI_SYS_WROTE,
                                      .fd = fd,
                                      .iov = iov,
                                      .offset = offset,
                                      .length = (uint64_t)value});
    }
    return value;
}

ssize_t plsi_sys_pwrite(int fd, const void *buffer, size_t length, uint64_t offset)
{
    int failed = fault_of_transfer();
    if (failed < 0) {
        return failed;
    }
    const struct iovec iov = {.iov_base = (void *)buffer, .iov_len = length};
    return written(pwrite(fd, buffer, failed ? (length + 1) / 2 : length, (off_t)offset), failed,
                   fd, &iov, offset);
}

ssize_t plsi_sys_pwritev(int fd, const struct iovec *iov, int n, uint64_t offset)
{
    int failed = fault_of_transfer();
    if (failed < 0) {
        return failed;
    }
    ssize_t value = failed && n == 1
                        ? pwrite(fd, iov->iov_base, (iov->iov_len + 1) / 2, (off_t)offset)
                        : pwritev(fd, iov, failed ? n / 2 : n, (off_t)offset);
    return written(value, failed, fd, iov, offset);
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
    tell(&(struct plsi_sys_event){.op = PLSI_SYS_SYNCS, .fd = fd});
    return told(is_pretended() ? 0 : result(fdatasync(fd)),
                &(struct plsi_sys_event){.op = PLSI_SYS_SYNCED, .fd = fd});
}

/* Without the flags that wait: waiting takes the error away that fdatasync is to report. */
void plsi_sys_write_behind(int fd, uint64_t offset, uint64_t length)
{
    if (!is_pretended()) {
        (void)sync_file_range(fd, (off64_t)offset, (off64_t)length, SYNC_FILE_RANGE_WRITE);
    }
}

int plsi_sys_fsync(int fd)
{
    int failed = fault();
    if (failed < 0) {
        return failed;
    }
    tell(&(struct plsi_sys_event){.op = PLSI_SYS_SYNCS, .fd = fd});
    return told(is_pretended() ? 0 : result(fsync(fd)),
                &(struct plsi_sys_event){.op = PLSI_SYS_SYNCED, .fd = fd});
}

int plsi_sys_ftruncate(int fd, uint64_t size)
{
    int failed = fault();
    return failed < 0
               ? failed
               : told(result(ftruncate(fd, (off_t)size)),
                      &(struct plsi_sys_event){.op = PLSI_SYS_CUT, .fd = fd, .length = size});
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
    return failed < 0 ? failed
                      : told(result(renameat(dirfd, from, dirfd, to)),
                             &(struct plsi_sys_event){
                                 .op = PLSI_SYS_RENAMED, .dirfd = dirfd, .name = from, .to = to});
}

int plsi_sys_rename_noreplace(int dirfd, const char *from, const char *to)
{
    int failed = fault();
    return failed < 0 ? failed
                      : told(result(renameat2(dirfd, from, dirfd, to, RENAME_NOREPLACE)),
                             &(struct plsi_sys_event){
                                 .op = PLSI_SYS_RENAMED, .dirfd = dirfd, .name = from, .to = to});
}

int plsi_sys_unlink(int dirfd, const char *name)
{
    int failed = fault();
    return failed < 0 ? failed
                      : told(result(unlinkat(dirfd, name, 0)),
                             &(struct plsi_sys_event){
                                 .op = PLSI_SYS_REMOVED, .dirfd = dirfd, .name = name});
}

int plsi_sys_mkdir(int dirfd, const char *name, mode_t mode)
{
    int failed = fault();
    return failed < 0 ? failed
                      : told(result(mkdirat(dirfd, name, mode)),
                             &(struct plsi_sys_event){
                                 .op = PLSI_SYS_MADE_DIR, .dirfd = dirfd, .name = name});
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

int plsi_sys_ring_open(unsigned entries, struct io_uring_params *params)
{
    int failed = fault();
    return failed < 0 ? failed : result((int)syscall(SYS_io_uring_setup, entries, params));
}

int plsi_sys_ring_map(int fd, uint64_t offset, size_t length, void **memory)
{
    int failed = fault();
    if (failed < 0) {
        return failed;
    }
    void *mapped =
        mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, (off_t)offset);
    if (mapped == MAP_FAILED) {
        return -errno;
    }
    *memory = mapped;
    return 0;
}

void plsi_sys_ring_unmap(void *memory, size_t length)
{
    munmap(memory, length);
}

/* Where it is to transfer half, half of the reads are not made. */
int plsi_sys_ring_enter(int fd, unsigned asked, unsigned results)
{
    int failed = fault();
    if (failed < 0) {
        return failed;
    }
    return result((int)syscall(SYS_io_uring_enter, fd, failed ? asked / 2 : asked, results,
                               results > 0 ? IORING_ENTER_GETEVENTS : 0, NULL, 0));
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
