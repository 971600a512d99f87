#include "recording.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sys.h"

enum { SECTOR = 512, FDS = 4096, NAME = 64, ROOT = 1 };

enum kind { CREATE, MAKE_DIR, RENAME, REMOVE, WRITE, CUT, SYNC };

/* A file or directory is a number from ROOT on; 0: none of ours. */
struct step {
    enum kind kind;
    unsigned object; /* what is made, renamed, removed, written, cut or synced */
    unsigned dir;    /* of the names */
    char name[NAME], to[NAME];
    uint64_t offset, length;
    uint8_t *bytes;
    size_t until; /* of a sync: it vouches for the steps before this one */
};

struct entry {
    unsigned dir, object;
    char name[NAME];
};

/* The names in all directories. */
struct tree {
    struct entry *entries;
    size_t n, room;
};

static struct {
    pthread_mutex_t lock; /* a leaf; guards everything here */
    char root[PATH_MAX];
    struct step *steps;
    size_t n, room;
    unsigned objects;
    struct tree tree; /* as it is now */
    unsigned fds[FDS];
} rec = {.lock = PTHREAD_MUTEX_INITIALIZER};

static _Thread_local size_t sync_began;

/* -- names ------------------------------------------------------------------------------------- */

static struct entry *find(const struct tree *tree, unsigned dir, const char *name)
{
    for (size_t i = 0; i < tree->n; i++) {
        if (tree->entries[i].dir == dir && strcmp(tree->entries[i].name, name) == 0) {
            return &tree->entries[i];
        }
    }
    return NULL;
}

static void set_name(char to[NAME], const char *name)
{
    MUST(strlen(name) < NAME, "the name %s is too long", name);
    snprintf(to, NAME, "%s", name);
}

/* Whatever bore the name bears it no longer. */
static void put_entry(struct tree *tree, unsigned dir, const char *name, unsigned object)
{
    struct entry *entry = find(tree, dir, name);
    if (entry == NULL) {
        if (tree->n == tree->room) {
            tree->room = tree->room * 2 + 16;
            tree->entries = realloc(tree->entries, tree->room * sizeof *tree->entries);
            MUST(tree->entries != NULL, "out of memory");
        }
        entry = &tree->entries[tree->n++];
        entry->dir = dir;
        set_name(entry->name, name);
    }
    entry->object = object;
}

static void remove_entry(struct tree *tree, struct entry *entry)
{
    assert(tree->n > 0);
    *entry = tree->entries[--tree->n];
}

/* False, and nothing done, where the file that the step is about does not bear the name. */
static bool apply_name(struct tree *tree, const struct step *step)
{
    struct entry *entry = find(tree, step->dir, step->name);
    if (step->kind == CREATE || step->kind == MAKE_DIR) {
        put_entry(tree, step->dir, step->name, step->object);
        return true;
    }
    if (entry == NULL || entry->object != step->object) {
        return false;
    }
    remove_entry(tree, entry);
    if (step->kind == RENAME) {
        put_entry(tree, step->dir, step->to, step->object);
    }
    return true;
}

/* -- watching ---------------------------------------------------------------------------------- */

static struct step *add_step(enum kind kind, unsigned object)
{
    if (rec.n == rec.room) {
        rec.room = rec.room * 2 + 256;
        rec.steps = realloc(rec.steps, rec.room * sizeof *rec.steps);
        MUST(rec.steps != NULL, "out of memory");
    }
    struct step *step = &rec.steps[rec.n++];
    *step = (struct step){.kind = kind, .object = object};
    return step;
}

static unsigned object_of(int fd)
{
    return fd >= 0 && fd < FDS ? rec.fds[fd] : 0;
}

static void name_step(enum kind kind, unsigned dir, const char *name, const char *to,
                      unsigned object)
{
    struct step *step = add_step(kind, object);
    step->dir = dir;
    set_name(step->name, name);
    set_name(step->to, to);
    MUST(apply_name(&rec.tree, step), "%s is not known", name);
}

static void opened(const struct plsi_sys_event *event)
{
    MUST(event->fd < FDS, "too many files are open");
    unsigned *object = &rec.fds[event->fd];
    *object = 0;
    if (event->dirfd == AT_FDCWD) {
        *object = strcmp(event->name, rec.root) == 0 ? ROOT : 0;
        return;
    }
    unsigned dir = object_of(event->dirfd);
    if (dir == 0) {
        return;
    }
    if (strcmp(event->name, ".") == 0) {
        *object = dir;
        return;
    }
    const struct entry *entry = find(&rec.tree, dir, event->name);
    if (entry == NULL) {
        MUST(event->flags & O_CREAT, "%s was there before the recording", event->name);
        *object = ++rec.objects;
        name_step(CREATE, dir, event->name, "", *object);
        return;
    }
    *object = entry->object;
    if (event->flags & O_TRUNC) {
        add_step(CUT, *object);
    }
}

static void wrote(const struct plsi_sys_event *event, unsigned object)
{
    struct step *step = add_step(WRITE, object);
    step->offset = event->offset;
    step->length = event->length;
    step->bytes = malloc((size_t)event->length);
    MUST(step->bytes != NULL, "out of memory");
    size_t done = 0;
    for (const struct iovec *part = event->iov; done < event->length; part++) {
        size_t left = (size_t)event->length - done;
        size_t n = part->iov_len < left ? part->iov_len : left;
        memcpy(step->bytes + done, part->iov_base, n);
        done += n;
    }
}

static void renamed_or_removed(const struct plsi_sys_event *event, unsigned dir)
{
    const struct entry *entry = find(&rec.tree, dir, event->name);
    MUST(entry != NULL, "%s is not known", event->name);
    if (event->op == PLSI_SYS_RENAMED) {
        name_step(RENAME, dir, event->name, event->to, entry->object);
    } else {
        name_step(REMOVE, dir, event->name, "", entry->object);
    }
}

static void note(const struct plsi_sys_event *event)
{
    unsigned object = object_of(event->fd), dir = object_of(event->dirfd);
    switch (event->op) {
    case PLSI_SYS_OPENED:
        opened(event);
        break;
    case PLSI_SYS_CLOSES:
        rec.fds[event->fd] = 0;
        break;
    case PLSI_SYS_WROTE:
        if (object != 0) {
            wrote(event, object);
        }
        break;
    case PLSI_SYS_CUT:
        if (object != 0) {
            add_step(CUT, object)->length = event->length;
        }
        break;
    case PLSI_SYS_RENAMED:
    case PLSI_SYS_REMOVED:
        if (dir != 0) {
            renamed_or_removed(event, dir);
        }
        break;
    case PLSI_SYS_MADE_DIR:
        if (dir != 0) {
            name_step(MAKE_DIR, dir, event->name, "", ++rec.objects);
        }
        break;
    case PLSI_SYS_SYNCS:
        sync_began = rec.n;
        break;
    case PLSI_SYS_SYNCED:
        if (object != 0) {
            add_step(SYNC, object)->until = sync_began;
        }
        break;
    }
}

static void watch(const struct plsi_sys_event *event)
{
    pthread_mutex_lock(&rec.lock);
    note(event);
    pthread_mutex_unlock(&rec.lock);
}

void recording_start(const char *path)
{
    recording_free();
    snprintf(rec.root, sizeof rec.root, "%s", path);
    rec.objects = ROOT;
    memset(rec.fds, 0, sizeof rec.fds);
    plsi_sys_watch(watch);
}

void recording_stop(void)
{
    plsi_sys_watch(NULL);
}

void recording_free(void)
{
    for (size_t i = 0; i < rec.n; i++) {
        free(rec.steps[i].bytes);
    }
    free(rec.steps);
    free(rec.tree.entries);
    rec.steps = NULL;
    rec.n = rec.room = 0;
    rec.tree = (struct tree){0};
}

size_t recording_now(void)
{
    pthread_mutex_lock(&rec.lock);
    size_t n = rec.n;
    pthread_mutex_unlock(&rec.lock);
    return n;
}

/* -- after the crash --------------------------------------------------------------------------- */

struct crash {
    size_t at;
    size_t *synced; /* of each object: what was done to it before this step is certain */
    struct tree tree;
    struct chance *chance;
};

static void find_synced(struct crash *crash)
{
    crash->synced = calloc((size_t)rec.objects + 1, sizeof *crash->synced);
    MUST(crash->synced != NULL, "out of memory");
    for (size_t i = 0; i < crash->at; i++) {
        const struct step *step = &rec.steps[i];
        if (step->kind == SYNC && step->until > crash->synced[step->object]) {
            crash->synced[step->object] = step->until;
        }
    }
}

static bool is_name(const struct step *step)
{
    return step->kind <= REMOVE;
}

static void settle_names(struct crash *crash, enum names names)
{
    size_t certain = 0; /* in order: what comes before something certain is certain, too */
    for (size_t i = 0; i < crash->at; i++) {
        const struct step *step = &rec.steps[i];
        if (is_name(step) && i < crash->synced[step->dir]) {
            certain = i + 1;
        }
    }
    size_t first = certain + below(crash->chance, (uint32_t)(crash->at - certain + 1));
    unsigned share = below(crash->chance, 5); /* of four */
    for (size_t i = 0; i < crash->at; i++) {
        const struct step *step = &rec.steps[i];
        if (is_name(step) && (i < crash->synced[step->dir] ||
                              (names == IN_ORDER ? i < first : below(crash->chance, 4) < share))) {
            apply_name(&crash->tree, step);
        }
    }
}

/* -- a file -- */

struct file {
    uint8_t *bytes;
    uint64_t size, room;
    uint64_t reached; /* the end of what was written, there or not */
};

static void reach(struct file *file, uint64_t end)
{
    if (end > file->room) {
        uint64_t room = end * 2;
        file->bytes = realloc(file->bytes, (size_t)room);
        MUST(file->bytes != NULL, "out of memory");
        memset(file->bytes + file->room, 0, (size_t)(room - file->room));
        file->room = room;
    }
}

static void put_bytes(struct file *file, const struct step *step, uint64_t from, uint64_t to)
{
    memcpy(file->bytes + from, step->bytes + (from - step->offset), (size_t)(to - from));
    file->size = to > file->size ? to : file->size;
}

/* Each sector by itself; `share` of four are there. */
static void tear(struct file *file, const struct step *step, unsigned share, struct chance *chance)
{
    uint64_t end = step->offset + step->length;
    for (uint64_t from = step->offset; from < end;) {
        uint64_t to = (from / SECTOR + 1) * SECTOR;
        to = to < end ? to : end;
        if (below(chance, 4) < share) {
            put_bytes(file, step, from, to);
        }
        from = to;
    }
}

static void cut(struct file *file, uint64_t size)
{
    reach(file, size);
    if (size < file->size) {
        memset(file->bytes + size, 0, (size_t)(file->size - size));
    }
    file->size = size;
    file->reached = size;
}

static void settle_file(const struct crash *crash, unsigned object, struct file *file)
{
    unsigned share = below(crash->chance, 5); /* of four: none, some, all */
    *file = (struct file){0};
    reach(file, 1);
    for (size_t i = 0; i < crash->at; i++) {
        const struct step *step = &rec.steps[i];
        bool certain = i < crash->synced[object];
        if (step->object != object) {
            continue;
        }
        if (step->kind == CUT && (certain || below(crash->chance, 4) < share)) {
            cut(file, step->length);
        } else if (step->kind == WRITE) {
            uint64_t end = step->offset + step->length;
            reach(file, end);
            file->reached = end > file->reached ? end : file->reached;
            tear(file, step, certain ? 4 : share, crash->chance);
        }
    }
    if (file->reached > file->size && one_in(crash->chance, 2)) {
        file->size = file->reached;
    }
}

static void make_file(const struct crash *crash, int dirfd, const struct entry *entry)
{
    struct file file;
    settle_file(crash, entry->object, &file);
    int fd = openat(dirfd, entry->name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    MUST(fd >= 0 && write(fd, file.bytes, (size_t)file.size) == (ssize_t)file.size,
         "%s cannot be written: %s", entry->name, strerror(errno));
    close(fd);
    free(file.bytes);
}

static bool is_directory(unsigned object)
{
    for (size_t i = 0; i < rec.n; i++) {
        if (rec.steps[i].kind == MAKE_DIR && rec.steps[i].object == object) {
            return true;
        }
    }
    return object == ROOT;
}

static void make_directory(const struct crash *crash, unsigned object, const char *path)
{
    MUST(mkdir(path, 0755) == 0, "%s cannot be made: %s", path, strerror(errno));
    int dirfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    MUST(dirfd >= 0, "%s cannot be opened", path);
    for (size_t i = 0; i < crash->tree.n; i++) {
        const struct entry *entry = &crash->tree.entries[i];
        if (entry->dir == object && !is_directory(entry->object)) {
            make_file(crash, dirfd, entry);
        }
    }
    close(dirfd);
}

void recording_replay(size_t at, enum names names, struct chance *chance, const char *path)
{
    struct crash crash = {.at = at, .chance = chance};
    find_synced(&crash);
    settle_names(&crash, names);
    make_directory(&crash, ROOT, path);
    for (size_t i = 0; i < crash.tree.n; i++) {
        const struct entry *entry = &crash.tree.entries[i];
        char below_it[PATH_MAX];
        if (entry->dir == ROOT && is_directory(entry->object)) {
            MUST(snprintf(below_it, sizeof below_it, "%s/%s", path, entry->name) < PATH_MAX,
                 "%s is too long a path", path);
            make_directory(&crash, entry->object, below_it);
        }
    }
    free(crash.tree.entries);
    free(crash.synced);
}
