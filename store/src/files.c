/* The backend on local files. */
#include "backend.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "error.h"
#include "ring.h"
#include "sys.h"

#define LOCK_FILE  ".payloadstore.lock" /* no store name begins with a dot */
#define RING_LEAST 4u                   /* reads that are cheaper over a ring than one by one */
/* Bytes of one write. More at once is dearer: the kernel then takes blocks of memory as large as
 * the write for its pages, which are in no processor's cache, and under a hypervisor often nowhere
 * yet. */
#define WRITE_MOST (1u << 20)
#define COPY_PART  2560u       /* bytes of a part, on average, up to which a write is copied */
#define COPY_MOST  (96u << 10) /* bytes of such a write */
#define COPY_FEW   (4u << 10)  /* of one that is copied to the stack */

struct file {
    struct plsi_blob blob;
    int fd;
    struct plsi_rings *rings; /* the root's, as below */
};

struct files {
    struct plsi_backend backend;
    int dirfd;
    struct plsi_rings *rings;
};

struct files_root {
    struct plsi_root root;
    int dirfd;
    int lockfd;
    struct plsi_rings rings;
};

static const struct plsi_backend_ops files_ops;
static const struct plsi_root_ops root_ops;

static struct file *file_of(struct plsi_blob *blob)
{
    return (struct file *)blob;
}

static struct files *files_of(struct plsi_backend *backend)
{
    return (struct files *)backend;
}

static struct files_root *root_of(struct plsi_root *root)
{
    return (struct files_root *)root;
}

static enum pls_code code_of(int error)
{
    switch (-error) {
    case 0:
        return PLS_OK;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return PLS_NO_SPACE;
    case EACCES:
    case EPERM:
    case EROFS:
        return PLS_DENIED;
    case ENOMEM:
        return PLS_NO_MEMORY;
    default:
        return PLS_IO;
    }
}

static enum pls_code failed(struct pls_error *error, int cause, const char *doing, const char *name)
{
    char words[128];
    return plsi_fail(error, code_of(cause), "%s %s: %s", doing, name,
                     strerror_r(-cause, words, sizeof words));
}

/* -- blobs ------------------------------------------------------------------------------------- */

static void file_release(struct plsi_blob *blob)
{
    plsi_sys_close(file_of(blob)->fd);
    free(blob);
}

/* Steps over `done` bytes of iov. */
static void advance(struct iovec **iov, int *n, size_t done)
{
    while (*n > 0 && done >= (*iov)->iov_len) {
        done -= (*iov)->iov_len;
        ++*iov;
        --*n;
    }
    if (*n > 0) {
        (*iov)->iov_base = (char *)(*iov)->iov_base + done;
        (*iov)->iov_len -= done;
    }
}

/* The first WRITE_MOST bytes, or all. */
static ssize_t write_some(int fd, uint64_t offset, struct iovec *iov, int n)
{
    size_t bytes = 0;
    int parts = 0;
    while (parts < n && parts < IOV_MAX && bytes < WRITE_MOST) {
        bytes += iov[parts++].iov_len;
    }
    size_t beyond = bytes > WRITE_MOST ? bytes - WRITE_MOST : 0;
    iov[parts - 1].iov_len -= beyond;
    ssize_t written = plsi_sys_pwritev(fd, iov, parts, offset);
    iov[parts - 1].iov_len += beyond;
    return written;
}

static int write_parts(int fd, uint64_t offset, struct iovec *iov, int n)
{
    advance(&iov, &n, 0);
    while (n > 0) {
        ssize_t written = write_some(fd, offset, iov, n);
        if (written == -EINTR) {
            continue;
        }
        if (written <= 0) {
            return written < 0 ? (int)written : -EIO;
        }
        offset += (uint64_t)written;
        advance(&iov, &n, (size_t)written);
    }
    return 0;
}

static int write_one(int fd, uint64_t offset, char *data, size_t length)
{
    while (length > 0) {
        ssize_t written =
            plsi_sys_pwrite(fd, data, length < WRITE_MOST ? length : WRITE_MOST, offset);
        if (written == -EINTR) {
            continue;
        }
        if (written <= 0) {
            return written < 0 ? (int)written : -EIO;
        }
        data += written;
        offset += (uint64_t)written;
        length -= (size_t)written;
    }
    return 0;
}

/* Parts so small cost the kernel more, one by one, than copying them end to end costs us. */
static bool is_worth_copying(int n, size_t bytes)
{
    return n > 1 && bytes <= COPY_MOST && bytes <= (size_t)n * COPY_PART;
}

static size_t count_bytes(const struct iovec *iov, int n)
{
    size_t bytes = 0;
    for (int i = 0; i < n; i++) {
        bytes += iov[i].iov_len;
    }
    return bytes;
}

static void copy_parts(const struct iovec *iov, int n, char *to)
{
    for (int i = 0; i < n; i++) {
        if (iov[i].iov_len > 0) { /* an empty part may have no address */
            memcpy(to, iov[i].iov_base, iov[i].iov_len);
            to += iov[i].iov_len;
        }
    }
}

/* As one part. */
static int write_copied(int fd, uint64_t offset, struct iovec *iov, int n, size_t bytes)
{
    char few[COPY_FEW];
    char *copy = bytes <= sizeof few ? few : malloc(bytes);
    if (copy == NULL) {
        return write_parts(fd, offset, iov, n);
    }
    copy_parts(iov, n, copy);
    int error = write_one(fd, offset, copy, bytes);
    if (copy != few) {
        free(copy);
    }
    return error;
}

static void file_append(struct plsi_blob *blob, uint64_t offset, struct iovec *iov, int n,
                        plsi_append_fn *done, void *arg)
{
    int fd = file_of(blob)->fd;
    size_t bytes = count_bytes(iov, n);
    int error = is_worth_copying(n, bytes) ? write_copied(fd, offset, iov, n, bytes)
                                           : write_parts(fd, offset, iov, n);
    done(arg, code_of(error));
}

static enum pls_code file_put(struct plsi_blob *blob, uint64_t offset, const void *data,
                              size_t length)
{
    return code_of(write_one(file_of(blob)->fd, offset, (char *)data, length));
}

static enum pls_code file_sync(struct plsi_blob *blob)
{
    /* Not even EINTR is tried again: after a failure the pages may be marked clean and yet be lost.
     */
    return code_of(plsi_sys_fdatasync(file_of(blob)->fd));
}

static void file_write_behind(struct plsi_blob *blob, uint64_t offset, uint64_t length)
{
    plsi_sys_write_behind(file_of(blob)->fd, offset, length);
}

static enum pls_code file_truncate(struct plsi_blob *blob, uint64_t size)
{
    int error;
    do {
        error = plsi_sys_ftruncate(file_of(blob)->fd, size);
    } while (error == -EINTR);
    return code_of(error);
}

static int read_all(int fd, uint64_t offset, char *data, size_t length, size_t *got)
{
    while (*got < length) {
        ssize_t n = plsi_sys_pread(fd, data + *got, length - *got, offset + *got);
        if (n == -EINTR) {
            continue;
        }
        if (n <= 0) {
            return (int)n;
        }
        *got += (size_t)n;
    }
    return 0;
}

static bool file_read(struct plsi_blob *blob, uint64_t offset, void *data, size_t length,
                      enum plsi_wait wait, size_t *got, enum pls_code *code)
{
    int fd = file_of(blob)->fd;
    *got = 0;
    *code = PLS_OK;
    if (wait == PLSI_NO_WAIT) {
        ssize_t n = plsi_sys_preadv_nowait(fd, &(struct iovec){data, length}, 1, offset);
        if (n != (ssize_t)length) {
            return false; /* all or nothing: whoever may wait finds out what it is */
        }
        *got = length;
        return true;
    }
    *code = code_of(read_all(fd, offset, data, length, got));
    return true;
}

static void read_one_by_one(struct plsi_piece *pieces, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct plsi_piece *piece = &pieces[i];
        ssize_t got = plsi_sys_preadv_nowait(file_of(piece->blob)->fd, piece->iov, piece->n_iov,
                                             piece->offset);
        piece->there = got == (ssize_t)piece->length;
    }
}

static void read_at_once(struct plsi_ring *ring, struct plsi_piece *pieces, size_t n)
{
    size_t i;
    ssize_t got;
    for (i = 0; i < n; i++) {
        pieces[i].there = false;
        plsi_ring_add(ring, file_of(pieces[i].blob)->fd, pieces[i].iov, pieces[i].n_iov,
                      pieces[i].offset, i);
    }
    plsi_ring_run(ring);
    while (plsi_ring_next(ring, &i, &got)) {
        pieces[i].there = got == (ssize_t)pieces[i].length;
    }
}

static void files_read_pieces(struct plsi_piece *pieces, size_t n)
{
    struct plsi_rings *rings = file_of(pieces[0].blob)->rings;
    struct plsi_ring *ring = n < RING_LEAST ? NULL : plsi_rings_take(rings);
    if (ring == NULL) {
        read_one_by_one(pieces, n);
        return;
    }
    read_at_once(ring, pieces, n);
    plsi_rings_give(rings, ring);
}

static enum pls_code file_wrap(struct files *files, int fd, struct plsi_blob **blob,
                               struct pls_error *error)
{
    struct file *file = malloc(sizeof *file);
    if (file == NULL) {
        plsi_sys_close(fd);
        return plsi_fail(error, PLS_NO_MEMORY, "out of memory");
    }
    plsi_sys_no_atime(fd);
    *file = (struct file){.blob.ops = &files_ops, .fd = fd, .rings = files->rings};
    *blob = &file->blob;
    return PLS_OK;
}

/* -- a store's directory ----------------------------------------------------------------------- */

static void files_close(struct plsi_backend *backend)
{
    plsi_sys_close(files_of(backend)->dirfd);
    free(backend);
}

static bool list_one(int dirfd, const char *name, bool sizes, plsi_list_fn *fn, void *arg,
                     int *error)
{
    struct stat st = {0};
    if (sizes) {
        *error = plsi_sys_fstatat(dirfd, name, &st);
        if (*error == -ENOENT) {
            *error = 0; /* removed since the walk saw it */
            return true;
        }
        if (*error < 0) {
            return false;
        }
    }
    return fn(arg, name, (uint64_t)st.st_size);
}

static enum pls_code list_names(int dirfd, bool sizes, plsi_list_fn *fn, void *arg,
                                struct pls_error *error)
{
    DIR *dir;
    int cause = plsi_sys_opendir(dirfd, &dir);
    if (cause < 0) {
        return failed(error, cause, "listing", "the directory");
    }
    const char *name;
    while ((name = plsi_sys_readdir(dir, &cause)) != NULL) {
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
            continue;
        }
        if (!list_one(dirfd, name, sizes, fn, arg, &cause)) {
            break;
        }
    }
    plsi_sys_closedir(dir);
    return cause < 0 ? failed(error, cause, "listing", "the directory") : PLS_OK;
}

static enum pls_code files_list(struct plsi_backend *backend, plsi_list_fn *fn, void *arg,
                                struct pls_error *error)
{
    return list_names(files_of(backend)->dirfd, true, fn, arg, error);
}

static enum pls_code files_sync_names(struct plsi_backend *backend, struct pls_error *error)
{
    int cause = plsi_sys_fsync(files_of(backend)->dirfd);
    return cause < 0 ? failed(error, cause, "syncing", "the directory") : PLS_OK;
}

static enum pls_code files_create(struct plsi_backend *backend, const char *name,
                                  struct plsi_blob **blob, struct pls_error *error)
{
    int dirfd = files_of(backend)->dirfd;
    int fd = plsi_sys_open(dirfd, name, O_RDWR | O_CREAT | O_EXCL, 0644);
    if (fd < 0) {
        return failed(error, fd, "creating", name);
    }
    enum pls_code code = file_wrap(files_of(backend), fd, blob, error);
    if (code != PLS_OK) {
        goto unlink;
    }
    code = files_sync_names(backend, error);
    if (code != PLS_OK) {
        goto release;
    }
    return PLS_OK;

release:
    file_release(*blob);
unlink:
    plsi_sys_unlink(dirfd, name);
    return code;
}

static enum pls_code files_make_derived(struct plsi_backend *backend, const char *name,
                                        struct plsi_blob **blob, struct pls_error *error)
{
    int fd = plsi_sys_open(files_of(backend)->dirfd, name, O_RDWR | O_CREAT | O_TRUNC, 0644);
    return fd < 0 ? failed(error, fd, "creating", name)
                  : file_wrap(files_of(backend), fd, blob, error);
}

static enum pls_code files_open(struct plsi_backend *backend, const char *name,
                                struct plsi_blob **blob, uint64_t *size, struct pls_error *error)
{
    int fd = plsi_sys_open(files_of(backend)->dirfd, name, O_RDWR, 0);
    if (fd == -ENOENT) {
        return plsi_fail(error, PLS_NO_RECORD, "there is no %s", name);
    }
    if (fd < 0) {
        return failed(error, fd, "opening", name);
    }
    struct stat st;
    int cause = plsi_sys_fstat(fd, &st);
    if (cause == 0 && !S_ISREG(st.st_mode)) {
        cause = -EINVAL;
    }
    if (cause < 0) {
        plsi_sys_close(fd);
        return failed(error, cause, "looking at", name);
    }
    *size = (uint64_t)st.st_size;
    return file_wrap(files_of(backend), fd, blob, error);
}

static enum pls_code files_publish(struct plsi_backend *backend, const char *from, const char *to,
                                   struct pls_error *error)
{
    int cause = plsi_sys_rename_noreplace(files_of(backend)->dirfd, from, to);
    if (cause == -ENOENT) {
        return plsi_fail(error, PLS_NO_RECORD, "there is no %s", from);
    }
    return cause < 0 ? failed(error, cause, "renaming a file to", to) : PLS_OK;
}

static enum pls_code files_replace(struct plsi_backend *backend, const char *from, const char *to,
                                   struct pls_error *error)
{
    int cause = plsi_sys_rename(files_of(backend)->dirfd, from, to);
    return cause < 0 ? failed(error, cause, "renaming a file to", to) : PLS_OK;
}

static enum pls_code files_remove(struct plsi_backend *backend, const char *name,
                                  struct pls_error *error)
{
    int cause = plsi_sys_unlink(files_of(backend)->dirfd, name);
    return cause < 0 && cause != -ENOENT ? failed(error, cause, "deleting", name) : PLS_OK;
}

static enum pls_code files_get_meta(struct plsi_backend *backend, const char *name, void *data,
                                    size_t *length, bool *found, struct pls_error *error)
{
    *length = 0;
    int fd = plsi_sys_open(files_of(backend)->dirfd, name, O_RDONLY, 0);
    *found = fd != -ENOENT;
    if (!*found) {
        return PLS_OK;
    }
    if (fd < 0) {
        return failed(error, fd, "opening", name);
    }
    int cause = read_all(fd, 0, data, PLSI_META_MAX, length);
    plsi_sys_close(fd);
    return cause < 0 ? failed(error, cause, "reading", name) : PLS_OK;
}

/* The file under its temporary name, whole and on the device. */
static int write_meta(int dirfd, const char *name, const void *data, size_t length)
{
    int fd = plsi_sys_open(dirfd, name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0) {
        return fd;
    }
    int cause = write_one(fd, 0, (char *)data, length);
    if (cause == 0) {
        cause = plsi_sys_fsync(fd);
    }
    plsi_sys_close(fd);
    return cause;
}

static enum pls_code files_put_meta(struct plsi_backend *backend, const char *name,
                                    const void *data, size_t length, struct pls_error *error)
{
    int dirfd = files_of(backend)->dirfd;
    char temporary[64];
    snprintf(temporary, sizeof temporary, "%s.tmp", name);
    int cause = write_meta(dirfd, temporary, data, length);
    if (cause == 0) {
        cause = plsi_sys_rename(dirfd, temporary, name);
    }
    if (cause < 0) {
        plsi_sys_unlink(dirfd, temporary);
        return failed(error, cause, "writing", name);
    }
    return files_sync_names(backend, error);
}

static const struct plsi_backend_ops files_ops = {
    .close = files_close,
    .list = files_list,
    .create = files_create,
    .make_derived = files_make_derived,
    .open = files_open,
    .publish = files_publish,
    .replace = files_replace,
    .remove = files_remove,
    .sync_names = files_sync_names,
    .get_meta = files_get_meta,
    .put_meta = files_put_meta,
    .release = file_release,
    .append = file_append,
    .put = file_put,
    .sync = file_sync,
    .write_behind = file_write_behind,
    .truncate = file_truncate,
    .read = file_read,
    .read_pieces = files_read_pieces,
};

/* -- the data directory ------------------------------------------------------------------------ */

static void root_close(struct plsi_root *root)
{
    plsi_rings_fini(&root_of(root)->rings);
    plsi_sys_close(root_of(root)->lockfd); /* and with it goes the lock */
    plsi_sys_close(root_of(root)->dirfd);
    free(root);
}

static enum pls_code root_space(struct plsi_root *root, struct plsi_space *space)
{
    enum pls_code code = code_of(plsi_sys_space(root_of(root)->dirfd, &space->free, &space->total));
    if (code == PLS_OK && space->total == 0) {
        space->free = space->total = INT64_MAX; /* some file systems know no end */
    }
    return code;
}

static enum pls_code root_list(struct plsi_root *root, plsi_list_fn *fn, void *arg,
                               struct pls_error *error)
{
    return list_names(root_of(root)->dirfd, false, fn, arg, error);
}

static enum pls_code root_store(struct plsi_root *root, const char *name, bool create,
                                struct plsi_backend **backend, struct pls_error *error)
{
    int dirfd = root_of(root)->dirfd;
    struct files *files = malloc(sizeof *files);
    if (files == NULL) {
        return plsi_fail(error, PLS_NO_MEMORY, "out of memory");
    }
    int cause = create ? plsi_sys_mkdir(dirfd, name, 0755) : 0;
    if (create && (cause == 0 || cause == -EEXIST)) {
        /* Also where it is there: whoever made it may have died before this. */
        cause = plsi_sys_fsync(dirfd);
    }
    if (cause == 0) {
        cause = plsi_sys_open(dirfd, name, O_RDONLY | O_DIRECTORY, 0);
    }
    if (cause == -ENOENT || cause == -ENOTDIR) {
        free(files);
        return plsi_fail(error, PLS_NO_STORE, "%s", pls_strerror(PLS_NO_STORE));
    }
    if (cause < 0) {
        free(files);
        return failed(error, cause, "opening the directory", name);
    }
    *files =
        (struct files){.backend.ops = &files_ops, .dirfd = cause, .rings = &root_of(root)->rings};
    *backend = &files->backend;
    return PLS_OK;
}

static const struct plsi_root_ops root_ops = {
    .close = root_close,
    .space = root_space,
    .list = root_list,
    .store = root_store,
};

/* Makes the name of a directory just made durable, in the directory above it. */
static int sync_parent(const char *path)
{
    char parent[PATH_MAX + sizeof "/.."];
    snprintf(parent, sizeof parent, "%s/..", path);
    int fd = plsi_sys_open(AT_FDCWD, parent, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0) {
        return fd;
    }
    int error = plsi_sys_fsync(fd);
    plsi_sys_close(fd);
    return error;
}

/* `mkdir -p`, durable. */
static int make_path(const char *path)
{
    char part[PATH_MAX];
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof part) {
        return length == 0 ? -ENOENT : -ENAMETOOLONG;
    }
    for (size_t i = 1; i <= length; i++) {
        if (path[i] != '/' && path[i] != '\0') {
            continue;
        }
        memcpy(part, path, i);
        part[i] = '\0';
        int error = plsi_sys_mkdir(AT_FDCWD, part, 0755);
        if (error == 0) {
            error = sync_parent(part);
        } else if (error == -EEXIST || path[i] == '/') {
            error = 0; /* what lies above may be there and be closed to us: the last part decides */
        }
        if (error < 0) {
            return error;
        }
    }
    return 0;
}

/* The lock file holds its owner's process id, for people. */
static enum pls_code take_lock(int dirfd, const char *path, int *lockfd, struct pls_error *error)
{
    int fd = plsi_sys_open(dirfd, LOCK_FILE, O_RDWR | O_CREAT, 0644);
    if (fd < 0) {
        return failed(error, fd, "opening the lock file of", path);
    }
    char pid[32] = "";
    int cause = plsi_sys_lock(fd);
    if (cause < 0) {
        ssize_t n = plsi_sys_pread(fd, pid, sizeof pid - 1, 0);
        pid[n > 0 ? n : 0] = '\0';
        pid[strcspn(pid, "\n")] = '\0';
        plsi_sys_close(fd);
        if (cause != -EWOULDBLOCK) {
            return failed(error, cause, "locking", path);
        }
        return plsi_fail(error, PLS_LOCKED, "%s is in use by the process %s", path,
                         pid[0] != '\0' ? pid : "that locked it");
    }
    int length = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    cause = plsi_sys_ftruncate(fd, 0);
    if (cause == 0) {
        cause = (int)plsi_sys_pwrite(fd, pid, (size_t)length, 0);
    }
    /* A full disk must not keep a server from starting: the lock holds without the number in it. */
    if (cause < 0 && code_of(cause) != PLS_NO_SPACE) {
        plsi_sys_close(fd);
        return failed(error, cause, "writing the lock file of", path);
    }
    *lockfd = fd;
    return PLS_OK;
}

enum pls_code plsi_files_open(const char *path, struct plsi_root **root, struct pls_error *error)
{
    int cause = make_path(path);
    if (cause < 0) {
        return failed(error, cause, "making the data directory", path);
    }
    int dirfd = plsi_sys_open(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    if (dirfd < 0) {
        return failed(error, dirfd, "opening the data directory", path);
    }
    int lockfd = -1;
    enum pls_code code = take_lock(dirfd, path, &lockfd, error);
    if (code != PLS_OK) {
        goto close_dir;
    }
    struct files_root *files = malloc(sizeof *files);
    if (files == NULL) {
        code = plsi_fail(error, PLS_NO_MEMORY, "out of memory");
        goto unlock;
    }
    *files = (struct files_root){.root.ops = &root_ops, .dirfd = dirfd, .lockfd = lockfd};
    plsi_rings_init(&files->rings);
    *root = &files->root;
    return PLS_OK;

unlock:
    plsi_sys_close(lockfd);
close_dir:
    plsi_sys_close(dirfd);
    return code;
}
