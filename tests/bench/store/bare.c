#include "bare.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <isa-l/crc.h>

#define PREFIX 4u /* bytes of a record before its payload */

static uint32_t crc32c(const uint8_t *data, size_t length)
{
    return ~crc32_iscsi((unsigned char *)data, (int)length, ~0u);
}

static int make_file(const char *path)
{
    unlink(path);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    must(fd >= 0, path);
    return fd;
}

/* -- append ------------------------------------------------------------------------------------ */

static uint32_t append_one(int fd, uint32_t i, uint32_t bytes)
{
    uint8_t *payload = (uint8_t *)payload_of(i);
    struct iovec iov[] = {{&bytes, PREFIX}, {payload, bytes}};
    uint32_t crc = crc32c(payload, bytes);
    ssize_t record = (ssize_t)(PREFIX + (size_t)bytes);
    must(pwritev(fd, iov, 2, (off_t)i * record) == record, "pwritev");
    return crc;
}

struct taken bare_append(const struct options *options)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s", path_of(options, "bare"));
    int fd = make_file(path);
    uint32_t *sums = allocate(options->ops, sizeof *sums);
    struct instant start = now();
    for (uint32_t i = 0; i < options->ops; i++) {
        sums[i] = append_one(fd, i, options->bytes);
        must(!options->synced || fdatasync(fd) == 0, "fdatasync");
    }
    struct taken taken = taken_since(start, options->ops);
    close(fd);
    unlink(path);
    free(sums);
    return taken;
}

/* -- the store's files ------------------------------------------------------------------------- */

static DIR *open_store(const struct options *options)
{
    DIR *dir = opendir(path_of(options, "store/bench"));
    must(dir != NULL, "the store's directory");
    return dir;
}

/* The next regular file, opened; -1 at the end. */
static int open_next(DIR *dir, const struct dirent **entry)
{
    while ((*entry = readdir(dir)) != NULL) {
        if ((*entry)->d_type == DT_REG) {
            int fd = openat(dirfd(dir), (*entry)->d_name, O_RDONLY | O_CLOEXEC);
            must(fd >= 0, (*entry)->d_name);
            return fd;
        }
    }
    return -1;
}

void drop_cache(const struct options *options)
{
    const struct dirent *entry;
    DIR *dir = open_store(options);
    int fd;
    while ((fd = open_next(dir, &entry)) >= 0) {
        /* Only what is clean goes. */
        must(fdatasync(fd) == 0 && posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0,
             entry->d_name);
        close(fd);
    }
    closedir(dir);
}

struct taken bare_open(const struct options *options)
{
    struct stat st;
    size_t n = 0, room = 2 * (size_t)options->segments + 1000;
    const struct dirent *entry;
    int *fds = allocate(room, sizeof *fds);
    struct instant start = now();
    DIR *dir = open_store(options);
    while (n < room && (fds[n] = open_next(dir, &entry)) >= 0) {
        must(fstat(fds[n], &st) == 0, entry->d_name);
        n++;
    }
    closedir(dir);
    struct taken taken = taken_since(start, 1);
    while (n > 0) {
        close(fds[--n]);
    }
    free(fds);
    return taken;
}

/* -- read -------------------------------------------------------------------------------------- */

static int *segment_fds;
static uint32_t n_segment_fds;

/* ULONG_MAX: none. */
static unsigned long segment_of(const char *name)
{
    static const char begins[] = "payload_";
    return strncmp(name, begins, sizeof begins - 1) == 0
               ? strtoul(name + sizeof begins - 1, NULL, 10)
               : ULONG_MAX;
}

void bare_read_open(const struct options *options)
{
    const struct dirent *entry;
    int fd;
    n_segment_fds = 2 * options->segments + 1000;
    segment_fds = allocate(n_segment_fds, sizeof *segment_fds);
    DIR *dir = open_store(options);
    while ((fd = open_next(dir, &entry)) >= 0) {
        unsigned long id = segment_of(entry->d_name);
        if (id < n_segment_fds) {
            segment_fds[id] = fd;
        } else {
            close(fd);
        }
    }
    closedir(dir);
}

static bool read_one(const struct pls_ref *ref, uint8_t *record)
{
    ssize_t n =
        pread(segment_fds[ref->file_id], record, PREFIX + (size_t)ref->length, (off_t)ref->offset);
    return n == (ssize_t)(PREFIX + (size_t)ref->length) &&
           crc32c(record + PREFIX, ref->length) == ref->crc32c;
}

struct taken bare_read(const struct options *options, const struct pls_ref *refs,
                       const uint32_t *reads)
{
    uint8_t *record = allocate(1, PREFIX + (size_t)options->bytes);
    struct instant start = now();
    for (uint32_t i = 0; i < options->ops; i++) {
        must(read_one(&refs[reads[i]], record), "a bare read");
    }
    struct taken taken = taken_since(start, options->ops);
    free(record);
    return taken;
}

void bare_read_close(void)
{
    for (uint32_t i = 0; i < n_segment_fds; i++) {
        if (segment_fds[i] > 0) {
            close(segment_fds[i]);
        }
    }
    free(segment_fds);
}

/* -- copy -------------------------------------------------------------------------------------- */

/* Of so many bytes, on the device. */
static void make_original(const char *path, uint64_t bytes)
{
    int fd = make_file(path);
    for (uint64_t at = 0; at < bytes; at += MIB) {
        size_t n = bytes - at < MIB ? (size_t)(bytes - at) : MIB;
        must(write(fd, payload_of((uint32_t)(at / MIB)), n) == (ssize_t)n, path);
    }
    must(fsync(fd) == 0, path);
    close(fd);
}

struct copy {
    char from[PATH_MAX], to[PATH_MAX];
};

static void run_cp(const struct options *options, void *arg)
{
    const struct copy *copy = arg;
    (void)options;
    execlp("cp", "cp", copy->from, copy->to, (char *)NULL);
    must(false, "cp");
}

struct taken bare_copy(const struct options *options, uint64_t bytes)
{
    struct copy copy;
    snprintf(copy.from, sizeof copy.from, "%s", path_of(options, "original"));
    snprintf(copy.to, sizeof copy.to, "%s", path_of(options, "copy"));
    make_original(copy.from, bytes);
    struct instant start = now();
    in_child(run_cp, options, &copy);
    int fd = open(copy.to, O_RDONLY | O_CLOEXEC);
    must(fd >= 0 && fsync(fd) == 0, "syncing the copy");
    struct taken taken = taken_since(start, 1);
    close(fd);
    unlink(copy.to);
    unlink(copy.from);
    return taken;
}
