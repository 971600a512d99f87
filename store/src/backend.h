/*
 * The seam: what the operations (append, read, seal, compact, recover) ask of whatever holds the
 * bytes.
 *
 * The first backend is local files (files.c). Nothing above this header may assume a file
 * descriptor, a mapping or a fast sync: on an object store a segment may be a run of objects and a
 * sync a guarded write of milliseconds.
 *
 * A root is the data directory: it is owned by one process, and holds a backend a store. A backend
 * holds blobs by name. Functions wait for the disk unless they say otherwise, and may be called
 * from any thread; of one blob `append` and `truncate` only from one at a time.
 */
#ifndef PLSI_BACKEND_H
#define PLSI_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "payloadstore/error.h"

#define PLSI_META_MAX 4096 /* bytes of a metadata file */

struct plsi_backend;

struct plsi_blob {
    const struct plsi_backend_ops *ops;
};

#define PLSI_PIECES 64u /* that are read at once, at most */

/* Bytes of a blob, read into one or several places. */
struct plsi_piece {
    struct plsi_blob *blob;
    uint64_t offset;
    struct iovec *iov;
    int n_iov;
    size_t length; /* of all of iov */
    bool there;    /* the answer */
};

/* Called with each name found; returns false to end the walk. */
typedef bool plsi_list_fn(void *arg, const char *name, uint64_t size);

typedef void plsi_append_fn(void *arg, enum pls_code code);

enum plsi_wait { PLSI_NO_WAIT, PLSI_MAY_WAIT };

struct plsi_backend_ops {
    void (*close)(struct plsi_backend *backend);

    enum pls_code (*list)(struct plsi_backend *backend, plsi_list_fn *fn, void *arg,
                          struct pls_error *error);

    /* A new, empty blob; fails where the name is taken. Durable when it returns. */
    enum pls_code (*create)(struct plsi_backend *backend, const char *name, struct plsi_blob **blob,
                            struct pls_error *error);
    /* A blob that can be made again from others, an index: emptied where it is there already. Its
     * name is durable with the next sync_names. */
    enum pls_code (*make_derived)(struct plsi_backend *backend, const char *name,
                                  struct plsi_blob **blob, struct pls_error *error);
    /* NO_RECORD where there is none of that name. */
    enum pls_code (*open)(struct plsi_backend *backend, const char *name, struct plsi_blob **blob,
                          uint64_t *size, struct pls_error *error);
    /* Renames without ever replacing; NO_RECORD where there is no `from`. Durable after sync_names.
     */
    enum pls_code (*publish)(struct plsi_backend *backend, const char *from, const char *to,
                             struct pls_error *error);
    /* Renames, taking away what bore the name: one step, durable after sync_names. */
    enum pls_code (*replace)(struct plsi_backend *backend, const char *from, const char *to,
                             struct pls_error *error);
    /* Missing already is success. Durable after sync_names. */
    enum pls_code (*remove)(struct plsi_backend *backend, const char *name,
                            struct pls_error *error);
    enum pls_code (*sync_names)(struct plsi_backend *backend, struct pls_error *error);

    /* A small file, replaced in one atomic, durable step. `data` has room for PLSI_META_MAX bytes.
     */
    enum pls_code (*get_meta)(struct plsi_backend *backend, const char *name, void *data,
                              size_t *length, bool *found, struct pls_error *error);
    enum pls_code (*put_meta)(struct plsi_backend *backend, const char *name, const void *data,
                              size_t length, struct pls_error *error);

    /* -- of a blob -- */
    void (*release)(struct plsi_blob *blob);
    /*
     * Writes all of iov at `offset`, the blob's end, and calls done(arg, code) once, on this thread
     * or another. After a failure some of the bytes may be there: truncate takes them away. iov is
     * borrowed until done.
     */
    void (*append)(struct plsi_blob *blob, uint64_t offset, struct iovec *iov, int n,
                   plsi_append_fn *done, void *arg);
    /* Writes anywhere: for derived blobs alone. */
    enum pls_code (*put)(struct plsi_blob *blob, uint64_t offset, const void *data, size_t length);
    /* What was appended before is on the device afterwards. After a failure nothing is known of it.
     */
    enum pls_code (*sync)(struct plsi_blob *blob);
    /* Says that these bytes will be synced soon: so that the device is not idle until then. */
    void (*write_behind)(struct plsi_blob *blob, uint64_t offset, uint64_t length);
    enum pls_code (*truncate)(struct plsi_blob *blob, uint64_t size);
    /*
     * Reads up to `length` bytes; *got is fewer at the end of the blob only. With PLSI_NO_WAIT
     * returns false, having read nothing, where the bytes are not in memory; else true.
     */
    bool (*read)(struct plsi_blob *blob, uint64_t offset, void *data, size_t length,
                 enum plsi_wait wait, size_t *got, enum pls_code *code);
    /* Reads up to PLSI_PIECES of any blobs of one root, in any order, none of which waits: of each
     * says whether it is there, all of it. */
    void (*read_pieces)(struct plsi_piece *pieces, size_t n);
};

struct plsi_backend {
    const struct plsi_backend_ops *ops;
};

struct plsi_root {
    const struct plsi_root_ops *ops;
};

/* Bytes of the medium, which all stores of a root share. */
struct plsi_space {
    uint64_t free; /* that can still be written; INT64_MAX where nobody can tell */
    uint64_t total;
};

struct plsi_root_ops {
    void (*close)(struct plsi_root *root);
    enum pls_code (*space)(struct plsi_root *root, struct plsi_space *space);
    /* The names of what may be stores, in any order; size is 0. */
    enum pls_code (*list)(struct plsi_root *root, plsi_list_fn *fn, void *arg,
                          struct pls_error *error);
    /* NO_STORE where it is missing and `create` is not set. Durable when it returns. */
    enum pls_code (*store)(struct plsi_root *root, const char *name, bool create,
                           struct plsi_backend **backend, struct pls_error *error);
};

/* An append that is waited for. */
enum pls_code plsi_append_and_wait(struct plsi_blob *blob, uint64_t offset, void *data,
                                   size_t length);

/* The local file system. Makes `path` where missing; LOCKED where another process owns it. */
enum pls_code plsi_files_open(const char *path, struct plsi_root **root, struct pls_error *error);

#endif
