/*
 * Bits that flip, files that are cut short or vanish: under a closed store, and under an open one.
 *
 * A store is made with several segments, records that a compaction has moved and whose older names
 * still count, and one in four times a compaction that a crash has cut behind its commit. Then,
 * each time from the same beginning, one bit of one file is turned, in its first and last bytes as
 * often as anywhere; now and then the file is cut or removed instead. Every name of every record is
 * read, with its checksum and without; the store is scrubbed, sealed, compacted and opened again.
 *
 *   what was hit                 the record there         the others
 *   a segment: a payload byte    DAMAGED                  read
 *   a segment: a length          DAMAGED or NO_RECORD     read; after a crash those behind it need
 *                                                         their checksum
 *   a segment: cut               DAMAGED or NO_RECORD     read
 *   store.state                  the store does not open and says so, its files stay as they are
 *   relocations.tab              the same; or the names forwarded there are DAMAGED, and all that
 *                                lies where its name says reads
 *   a temporary file, the lock   everything reads
 *   any other kind               reads or is DAMAGED
 *
 * Never wrong bytes. FAULT_FLIPS says how many hits there are.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fault.h"
#include "store_fixture.h"
#include "sys.h"
#include "work_dir.h"

enum {
    RECORDS = 70,
    NAMES = 2,
    LARGEST = 160,
    FILES = 64,
    KINDS = 16,
    PLACE = PATH_MAX + 400, /* bytes of the path of a file */
    EDGE = 120,             /* bytes at either end of a file that are hit in turn */
    HITS_A_STORE = 250
};

#define EDGES (2ul * EDGE)

struct record {
    uint32_t seed;
    bool since_open; /* appended by the process that reads it */
    bool moved;      /* by the last compaction */
    unsigned n;
    struct pls_ref names[NAMES]; /* the last one is where it lies */
};

/* -- the store, as it is before each hit ------------------------------------------------------- */

struct image {
    char name[300]; /* below the data directory */
    uint8_t *bytes;
    size_t size;
};

struct pristine {
    struct record records[RECORDS];
    size_t n;
    struct image files[FILES];
    size_t n_files;
    struct pls_options options;
    bool cut_commit, clean;
};

static void load_file(struct pristine *p, const char *base, const char *name)
{
    char path[PLACE];
    struct stat st;
    MUST(p->n_files < FILES, "too many files");
    struct image *image = &p->files[p->n_files++];
    snprintf(image->name, sizeof image->name, "%s", name);
    snprintf(path, sizeof path, "%s/%s", base, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    MUST(fd >= 0 && fstat(fd, &st) == 0, "%s: %s", path, strerror(errno));
    image->size = (size_t)st.st_size;
    image->bytes = malloc(image->size + 1);
    MUST(image->bytes != NULL && pread(fd, image->bytes, image->size, 0) == st.st_size, "%s", path);
    close(fd);
}

static void load_directory(struct pristine *p, const char *base, const char *below)
{
    char path[PLACE], name[300];
    snprintf(path, sizeof path, "%s/%s", base, below);
    DIR *dir = opendir(path);
    MUST(dir != NULL, "%s", path);
    const struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            snprintf(name, sizeof name, "%s%s", below, entry->d_name);
            if (entry->d_type == DT_DIR) {
                strncat(name, "/", sizeof name - strlen(name) - 1);
                load_directory(p, base, name);
            } else {
                load_file(p, base, name);
            }
        }
    }
    closedir(dir);
}

static void write_files(const struct pristine *p, const char *base)
{
    char path[PLACE];
    work_dir_remove(base);
    snprintf(path, sizeof path, "%s/s", base);
    MUST(mkdir(base, 0755) == 0 && mkdir(path, 0755) == 0, "%s", base);
    for (size_t i = 0; i < p->n_files; i++) {
        const struct image *image = &p->files[i];
        snprintf(path, sizeof path, "%s/%s", base, image->name);
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        MUST(fd >= 0 && write(fd, image->bytes, image->size) == (ssize_t)image->size, "%s", path);
        close(fd);
    }
}

static void free_files(struct pristine *p)
{
    for (size_t i = 0; i < p->n_files; i++) {
        free(p->files[i].bytes);
    }
    p->n_files = 0;
}

/* -- making it --------------------------------------------------------------------------------- */

static void append_some(struct record *records, size_t *n, size_t more, pls_store *store,
                        struct chance *chance)
{
    uint8_t bytes[LARGEST];
    for (size_t i = 0; i < more && *n < RECORDS; i++) {
        struct record *record = &records[*n];
        size_t length = below(chance, LARGEST);
        *record = (struct record){.seed = (uint32_t)*n + 1, .n = 1};
        fill(bytes, length, record->seed);
        MUST(try_append(store, bytes, length, PLS_BUFFERED, &record->names[0]) == PLS_OK, "append");
        ++*n;
    }
}

static void forget_some(struct pristine *p, struct chance *chance)
{
    size_t n = 0;
    for (size_t i = 0; i < p->n; i++) {
        if (!one_in(chance, 4)) {
            p->records[n++] = p->records[i];
        }
    }
    p->n = n;
}

/* A quarter of the records is let go of; where the others have gone, their old names count on. */
static void compact_most(struct pristine *p, pls_store *store, struct chance *chance,
                         unsigned percent)
{
    struct pls_ref live[RECORDS * NAMES];
    struct outcome outcome;
    struct pls_seal given;
    const struct pls_compact_options options = {.min_garbage_percent = percent};
    size_t n = 0;
    MUST(pls_store_seal(store, 0, &given, NULL) == PLS_OK, "seal");
    forget_some(p, chance);
    for (size_t i = 0; i < p->n; i++) {
        for (unsigned k = 0; k < p->records[i].n; k++) {
            live[n++] = p->records[i].names[k];
        }
    }
    compact(store, &given, &options, live, n, &outcome);
    MUST(outcome.code == PLS_OK, "%s", outcome.error.text);
    for (size_t i = 0; i < p->n; i++) {
        struct record *record = &p->records[i];
        const struct pls_relocation *moved =
            find_in_map(outcome.map, outcome.n_map, &record->names[record->n - 1]);
        record->moved = moved != NULL;
        if (moved != NULL) {
            record->n = 2;
            record->names[1] = moved->new_ref;
        }
    }
    outcome_fini(&outcome);
}

/* Some steps after the commit the files are taken as a crash would leave them. */
static struct {
    struct pristine *p;
    const char *base;
    unsigned steps;
    bool committed;
} taker;

static void take_after_commit(const struct plsi_sys_event *event)
{
    taker.committed |= event->op == PLSI_SYS_RENAMED && strcmp(event->to, "relocations.tab") == 0;
    if (taker.committed && taker.steps > 0 && --taker.steps == 0) {
        load_directory(taker.p, taker.base, "");
    }
}

static void make_store(struct pristine *p, const char *base, struct chance *chance)
{
    pls_dir *dir;
    pls_store *store;
    work_dir_remove(base); /* of the last hit */
    p->n = 0;
    p->options = (struct pls_options){.segment_max_bytes = 900, .io_threads = 1};
    p->cut_commit = one_in(chance, 4);
    p->clean = one_in(chance, 2) && !p->cut_commit;
    MUST(pls_dir_open(base, &p->options, &dir, NULL) == PLS_OK &&
             pls_store_open(dir, "s", 0, &store, NULL) == PLS_OK,
         "open");
    append_some(p->records, &p->n, 40, store, chance);
    compact_most(p, store, chance, 0);
    append_some(p->records, &p->n, 20, store, chance);
    if (p->cut_commit) {
        taker.p = p;
        taker.base = base;
        taker.steps = 1 + below(chance, 8);
        taker.committed = false;
        plsi_sys_watch(take_after_commit);
    }
    compact_most(p, store, chance, below(chance, 2) * 60);
    plsi_sys_watch(NULL);
    if (!p->cut_commit) {
        append_some(p->records, &p->n, 10, store, chance);
    }
    if (!p->clean && p->n_files == 0) {
        load_directory(p, base, "");
    }
    pls_store_release(store);
    MUST(pls_dir_close(dir) == PLS_OK, "close");
    if (p->clean) {
        load_directory(p, base, "");
    }
    work_dir_remove(base);
}

/* -- a hit ------------------------------------------------------------------------------------- */

enum how { FLIP, CUT, REMOVE };

/* What may come of it; a set of enum reading. */
enum {
    OF_RIGHT = 1 << RIGHT,
    OF_NOTHING = 1 << NOTHING,
    OF_DAMAGE = 1 << DAMAGE,
    OF_WRONG = 1 << WRONG
};

enum what { SEGMENT, STATE, TABLE, INDIFFERENT, UNKNOWN };

struct hit {
    const struct pristine *p;
    struct chance chance;
    unsigned long seed, number;
    enum how how;
    bool open; /* under an open store */
    const struct image *image;
    enum what what;
    uint32_t segment;
    uint64_t at; /* the byte; of a cut, the new size */
    uint8_t bit;
    struct record records[RECORDS];
    size_t n;
    pls_dir *dir;
    pls_store *store;
    bool right[RECORDS][NAMES]; /* what reads with its checksum */
};

#define HOLDS(hit, condition, format, ...)                                               \
    MUST(condition, "FAULT_SEED=%lu, hit %lu of it (%s %s at %ju, bit %u, %s): " format, \
         (hit)->seed, (hit)->number, how_names[(hit)->how], (hit)->image->name,          \
         (uintmax_t)(hit)->at, (hit)->bit, (hit)->open ? "open" : "closed", __VA_ARGS__)

static const char *const how_names[] = {"flip", "cut", "remove"};

static bool ends_in(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* The number between the two, which are all there is beside it. */
static bool number_in(const char *name, const char *before, const char *after, uint32_t *number)
{
    char *end;
    size_t n = strlen(before);
    if (strncmp(name, before, n) != 0) {
        return false;
    }
    *number = (uint32_t)strtoul(name + n, &end, 10);
    return end > name + n && strcmp(end, after) == 0;
}

/* Outputs that a crash has left under their temporary names are segments all the same. */
static void name_hit(struct hit *hit)
{
    const char *name = hit->image->name;
    if (number_in(name, "s/payload_", ".dat", &hit->segment) ||
        (hit->p->cut_commit && number_in(name, "s/compact_", ".tmp", &hit->segment))) {
        hit->what = SEGMENT;
    } else if (strcmp(name, "s/store.state") == 0) {
        hit->what = STATE;
    } else if (strcmp(name, "s/relocations.tab") == 0) {
        hit->what = TABLE;
    } else {
        hit->what = ends_in(name, ".lock") || ends_in(name, ".tmp") ? INDIFFERENT : UNKNOWN;
    }
}

static void do_hit(const struct hit *hit, const char *base)
{
    char path[PLACE];
    snprintf(path, sizeof path, "%s/%s", base, hit->image->name);
    if (hit->how == REMOVE) {
        MUST(unlink(path) == 0, "%s", path);
        return;
    }
    int fd = open(path, O_RDWR | O_CLOEXEC);
    uint8_t byte = 0;
    MUST(fd >= 0, "%s", path);
    if (hit->how == CUT) {
        MUST(ftruncate(fd, (off_t)hit->at) == 0, "%s", path);
    } else {
        MUST(pread(fd, &byte, 1, (off_t)hit->at) == 1, "%s", path);
        byte ^= (uint8_t)(1u << hit->bit);
        MUST(pwrite(fd, &byte, 1, (off_t)hit->at) == 1, "%s", path);
    }
    close(fd);
}

/* -- what may be read -- */

static unsigned of_its_segment(const struct hit *hit, const struct record *record, bool known,
                               bool bare)
{
    const struct pls_ref *place = &record->names[record->n - 1];
    uint64_t payload = place->offset + 4, end = payload + place->length;
    if (hit->how == REMOVE) {
        return hit->open ? OF_RIGHT : OF_NOTHING | OF_DAMAGE;
    }
    if (hit->how == CUT) {
        return end <= hit->at ? OF_RIGHT : OF_NOTHING | OF_DAMAGE;
    }
    if (hit->at >= payload && hit->at < end) {
        return OF_DAMAGE | (known ? 0 : OF_WRONG);
    }
    if (hit->at >= place->offset && hit->at < payload) {
        return OF_DAMAGE | OF_NOTHING;
    }
    /* Behind a length that is not what it was, a walk finds records where none begin: a ref with
     * its checksum is a reason to look, another is not. */
    bool walked = !hit->open && !hit->p->clean && hit->at < place->offset;
    return OF_RIGHT | (walked && bare ? OF_NOTHING : 0);
}

static unsigned may_read(const struct hit *hit, const struct record *record, unsigned name,
                         bool bare)
{
    const struct pls_ref *place = &record->names[record->n - 1];
    bool forwarded = name + 1 < record->n; /* the table knows its checksum */
    bare = bare || place->crc32c == 0;     /* as the empty payload's is */
    bool known = !bare || forwarded || record->since_open || hit->p->clean;
    switch (hit->what) {
    case SEGMENT:
        return place->file_id == hit->segment ? of_its_segment(hit, record, known, bare) : OF_RIGHT;
    case TABLE:
        if (hit->how != FLIP) {
            /* Without it, what it was to finish has not begun. */
            return OF_RIGHT | OF_NOTHING | (forwarded ? OF_DAMAGE : 0);
        }
        return OF_RIGHT | (forwarded ? OF_DAMAGE : 0);
    case UNKNOWN:
        return OF_RIGHT | OF_DAMAGE;
    default:
        return OF_RIGHT;
    }
}

static void check_name(struct hit *hit, size_t i, unsigned k)
{
    const struct record *record = &hit->records[i];
    struct pls_ref ref = record->names[k];
    enum reading reading = reading_of(hit->store, &ref, record->seed);
    HOLDS(hit, (1u << reading) & may_read(hit, record, k, false) & ~(unsigned)OF_WRONG,
          "%u:%ju of %u bytes reads %d", ref.file_id, (uintmax_t)ref.offset, ref.length, reading);
    hit->right[i][k] = reading == RIGHT;
    ref.crc32c = 0;
    reading = reading_of(hit->store, &ref, record->seed);
    HOLDS(hit, (1u << reading) & may_read(hit, record, k, true),
          "%u:%ju of %u bytes reads %d without its checksum", ref.file_id, (uintmax_t)ref.offset,
          ref.length, reading);
}

static void check_names(struct hit *hit)
{
    for (size_t i = 0; i < hit->n; i++) {
        for (unsigned k = 0; k < hit->records[i].n; k++) {
            check_name(hit, i, k);
        }
    }
}

/* -- what still works -- */

static void check_scrub(struct hit *hit)
{
    pls_verify *verify;
    struct pls_damaged damaged[64];
    struct pls_error error;
    bool more = true;
    MUST(pls_verify_begin(hit->store, NULL, &verify, &error) == PLS_OK, "%s", error.text);
    while (more) {
        size_t n;
        enum pls_code code = pls_verify_next(verify, damaged, 64, &n, &more, &error);
        HOLDS(hit, code == PLS_OK, "the scrub: %s", error.text);
        for (size_t i = 0; i < n; i++) {
            HOLDS(hit,
                  hit->what == UNKNOWN ||
                      (hit->what == SEGMENT && damaged[i].ref.file_id == hit->segment),
                  "the scrub finds %u:%ju damaged", damaged[i].ref.file_id,
                  (uintmax_t)damaged[i].ref.offset);
        }
    }
    pls_verify_destroy(verify);
}

static void check_kept(struct hit *hit)
{
    for (size_t i = 0; i < hit->n; i++) {
        for (unsigned k = 0; k < hit->records[i].n; k++) {
            const struct pls_ref *ref = &hit->records[i].names[k];
            enum reading reading = reading_of(hit->store, ref, hit->records[i].seed);
            HOLDS(hit,
                  reading == RIGHT || (reading != WRONG && (!hit->right[i][k] || ref->crc32c == 0)),
                  "%u:%ju of %u bytes reads %d later", ref->file_id, (uintmax_t)ref->offset,
                  ref->length, reading);
        }
    }
}

/* What was damaged has not been made good by a new checksum. */
static void check_map(struct hit *hit, const struct outcome *outcome)
{
    for (size_t i = 0; outcome->committed && i < hit->n; i++) {
        for (unsigned k = 0; k < hit->records[i].n; k++) {
            const struct pls_ref *name = &hit->records[i].names[k];
            const struct pls_relocation *moved = find_in_map(outcome->map, outcome->n_map, name);
            enum reading reading =
                moved == NULL ? RIGHT
                              : reading_of(hit->store, &moved->new_ref, hit->records[i].seed);
            HOLDS(hit, reading == RIGHT || (reading != WRONG && !hit->right[i][k]),
                  "%u:%ju was moved to where it reads %d", name->file_id, (uintmax_t)name->offset,
                  reading);
        }
    }
}

static void check_compaction(struct hit *hit)
{
    struct pls_ref live[RECORDS * NAMES];
    const struct pls_compact_options options = {.keep_damaged = !one_in(&hit->chance, 3),
                                                .min_garbage_percent = below(&hit->chance, 2) * 50};
    struct outcome outcome;
    struct pls_seal given;
    struct pls_error error;
    size_t n = 0;
    enum pls_code code = pls_store_seal(hit->store, 0, &given, &error);
    HOLDS(hit, code == PLS_OK, "%s", error.text);
    for (size_t i = 0; i < hit->n; i++) {
        for (unsigned k = 0; k < hit->records[i].n; k++) {
            live[n++] = hit->records[i].names[k];
        }
    }
    compact(hit->store, &given, &options, live, n, &outcome);
    bool reported = !options.keep_damaged &&
                    (outcome.code == PLS_LIVE_DAMAGED || outcome.code == PLS_LIVE_NO_RECORD);
    HOLDS(hit, outcome.code == PLS_OK || reported || (hit->what == TABLE && outcome.code == PLS_IO),
          "%s", outcome.error.text);
    check_map(hit, &outcome);
    outcome_fini(&outcome);
    check_kept(hit);
}

/* -- one hit after the other -- */

static bool may_refuse(const struct hit *hit)
{
    return hit->what == STATE || hit->what == TABLE ||
           (hit->what == SEGMENT && hit->how != FLIP && hit->p->cut_commit);
}

/* As long as an output is missing that a commit counts on, its sources may be all there is. */
static bool must_refuse(const struct hit *hit)
{
    bool output = false;
    for (size_t i = 0; i < hit->p->n; i++) {
        const struct record *record = &hit->p->records[i];
        output |= record->moved && record->names[record->n - 1].file_id == hit->segment;
    }
    return hit->how == FLIP ? hit->what == STATE
                            : (hit->what == STATE && hit->how == CUT) ||
                                  (hit->what == SEGMENT && hit->p->cut_commit && output);
}

static bool open_store(struct hit *hit, const char *base)
{
    struct pls_error error;
    enum pls_code code = pls_dir_open(base, &hit->p->options, &hit->dir, &error);
    HOLDS(hit, code == PLS_OK, "%s", error.text);
    code = pls_store_find(hit->dir, "s", &hit->store, &error);
    HOLDS(hit, code == PLS_OK || (code == PLS_BAD_FORMAT && may_refuse(hit) && !hit->open), "%s",
          error.text);
    if (code != PLS_OK) {
        hit->store = NULL;
    }
    return code == PLS_OK;
}

static void close_store(struct hit *hit)
{
    pls_store_release(hit->store);
    HOLDS(hit, pls_dir_close(hit->dir) == PLS_OK, "%s", "the close");
}

/* A store that does not open is left as it is. */
static void check_untouched(struct hit *hit, const char *base)
{
    struct pristine after = {0};
    size_t files = hit->p->n_files - (hit->how == REMOVE);
    load_directory(&after, base, "");
    HOLDS(hit, after.n_files == files, "%zu files, before there were %zu", after.n_files, files);
    for (size_t i = 0; i < hit->p->n_files; i++) {
        const struct image *a = &hit->p->files[i];
        for (size_t k = 0; k < after.n_files; k++) {
            const struct image *b = &after.files[k];
            if (strcmp(a->name, b->name) == 0 && a != hit->image && !ends_in(a->name, ".lock")) {
                HOLDS(hit, a->size == b->size && memcmp(a->bytes, b->bytes, a->size) == 0,
                      "%s is another", a->name);
            }
        }
    }
    free_files(&after);
}

/* A turned bit harms what is read later no more than what is read at once. */
static void check_afterwards(struct hit *hit, const char *base)
{
    if (one_in(&hit->chance, 2)) {
        check_scrub(hit);
        check_compaction(hit);
    }
    if (hit->how == FLIP && (hit->what == SEGMENT || hit->what == UNKNOWN)) {
        close_store(hit);
        MUST(open_store(hit, base), "the second open");
        check_kept(hit);
    }
    close_store(hit);
}

static void run_closed(struct hit *hit, const char *base)
{
    do_hit(hit, base);
    bool opened = open_store(hit, base);
    HOLDS(hit, !opened || !must_refuse(hit), "%s", "the store opens");
    if (!opened) {
        close_store(hit);
        check_untouched(hit, base);
        return;
    }
    check_names(hit);
    check_afterwards(hit, base);
}

static void run_open(struct hit *hit, const char *base)
{
    hit->open = false; /* as long as it opens */
    MUST(open_store(hit, base), "a store that nothing has hit does not open");
    hit->open = true;
    size_t before = hit->n;
    append_some(hit->records, &hit->n, 6, hit->store, &hit->chance);
    for (size_t i = before; i < hit->n; i++) {
        hit->records[i].since_open = true;
    }
    do_hit(hit, base);
    check_names(hit);
    check_afterwards(hit, base);
}

/* -- which byte -- */

struct kind {
    char name[32];
    unsigned long hits;
};

static struct kind kinds[KINDS];

/* The name up to its number, and how it ends. */
static void count_kind(const char *name)
{
    char kind[32];
    const char *last = strrchr(name, '/') != NULL ? strrchr(name, '/') + 1 : name;
    size_t stem = strcspn(last, "0123456789");
    const char *rest = last + stem + strspn(last + stem, "0123456789");
    snprintf(kind, sizeof kind, "%.*s%s%s", (int)stem, last, last[stem] != '\0' ? "N" : "", rest);
    for (size_t i = 0; i < KINDS; i++) {
        if (kinds[i].hits == 0 || strcmp(kinds[i].name, kind) == 0) {
            memcpy(kinds[i].name, kind, sizeof kind);
            kinds[i].hits++;
            return;
        }
    }
}

/* The files in turn, whatever their size. */
static void aim(struct hit *hit)
{
    const struct pristine *p = hit->p;
    unsigned long left = hit->number * 7919 % (p->n_files * EDGES);
    hit->how = one_in(&hit->chance, 12) ? CUT : one_in(&hit->chance, 40) ? REMOVE : FLIP;
    hit->bit = (uint8_t)below(&hit->chance, 8);
    do {
        hit->image = &p->files[left / EDGES % p->n_files];
        uint64_t edge = left % EDGES;
        uint64_t size = hit->image->size;
        bool is_edge = one_in(&hit->chance, 2) && size > EDGES;
        if (is_edge) {
            hit->at = edge < EDGE ? edge : size - 1 - (edge - EDGE);
        } else if (size > 0) {
            hit->at = below(&hit->chance, (uint32_t)size);
        }
        left += EDGES;
        name_hit(hit);
    } while (hit->image->size == 0 || (hit->what == INDIFFERENT && !one_in(&hit->chance, 8)));
}

static void run_hit(const struct pristine *p, unsigned long seed, unsigned long number,
                    const char *base)
{
    static struct hit hit;
    memset(&hit, 0, sizeof hit);
    hit.p = p;
    hit.seed = seed;
    hit.number = number;
    hit.chance = chance_from(seed * 100003 + number);
    memcpy(hit.records, p->records, sizeof hit.records);
    hit.n = p->n;
    aim(&hit);
    count_kind(hit.image->name);
    write_files(p, base);
    /* A commit that is not finished has files that go at the next open. */
    if (one_in(&hit.chance, 3) && !p->cut_commit) {
        run_open(&hit, base);
    } else {
        run_closed(&hit, base);
    }
}

int main(void)
{
    static struct pristine pristine;
    unsigned long seed = fault_seed("fault_flip");
    unsigned long hits = number_from("FAULT_FLIPS", 4000), done = 0;
    char base[PATH_MAX], path[PATH_MAX + 8];
    fault_dir_create(base);
    snprintf(path, sizeof path, "%s/hit", base);
    plsi_sys_pretend_syncs(true);
    for (unsigned long i = 0; done < hits; i++) {
        struct chance chance = chance_from(seed + i);
        make_store(&pristine, path, &chance);
        for (unsigned long k = 0; k < HITS_A_STORE && done < hits; k++, done++) {
            run_hit(&pristine, seed + i, k, path);
        }
        free_files(&pristine);
    }
    work_dir_remove(base);
    printf("--- report\nfault_flip: %lu hits, seed %lu:", done, seed);
    for (size_t i = 0; i < KINDS && kinds[i].hits > 0; i++) {
        printf(" %s %lu", kinds[i].name, kinds[i].hits);
    }
    printf("\n--- end\n");
    return 0;
}
