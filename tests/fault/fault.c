#include "fault.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "store_fixture.h"
#include "work_dir.h"

#define MEMORY      "/dev/shm"
#define MEMORY_ROOM (256ull << 20) /* bytes; with less the data lies on the disk */

struct chance chance_from(uint64_t seed)
{
    struct chance chance = {.state = seed * 0x9e3779b97f4a7c15u + 0x632be59bd9b4e019u};
    for (int i = 0; i < 4; i++) {
        below(&chance, 2); /* neighbouring seeds part */
    }
    return chance;
}

uint32_t below(struct chance *chance, uint32_t n)
{
    chance->state ^= chance->state << 13;
    chance->state ^= chance->state >> 7;
    chance->state ^= chance->state << 17;
    return (uint32_t)(chance->state >> 33) % n;
}

bool one_in(struct chance *chance, uint32_t n)
{
    return below(chance, n) == 0;
}

unsigned long number_from(const char *variable, unsigned long otherwise)
{
    const char *text = getenv(variable);
    return text != NULL ? strtoul(text, NULL, 10) : otherwise;
}

unsigned long fault_seed(const char *test)
{
    unsigned long seed = number_from("FAULT_SEED", 1);
    printf("%s: FAULT_SEED=%lu\n", test, seed);
    fflush(stdout);
    return seed;
}

static const char *place(void)
{
    const char *given = getenv("FAULT_DIR");
    struct statvfs room;
    if (given != NULL) {
        return given;
    }
    if (access(MEMORY, W_OK) == 0 && statvfs(MEMORY, &room) == 0 &&
        (uint64_t)room.f_bavail * room.f_frsize >= MEMORY_ROOM) {
        return MEMORY;
    }
    given = getenv("TMPDIR");
    return given != NULL ? given : "/tmp";
}

void fault_dir_create(char path[PATH_MAX])
{
    work_dir_create_below(place(), path);
}

void must_failed(const char *file, int line, const char *condition, const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "%s:%d: %s: %s\n", file, line, condition, text);
    fflush(NULL);
    _exit(1);
}

enum reading reading_of(pls_store *store, const struct pls_ref *ref, uint32_t seed)
{
    static const enum reading errors[PLS_N_CODES] = {
        [PLS_NO_RECORD] = NOTHING, [PLS_DAMAGED] = DAMAGE};
    struct pls_view view = {0};
    enum pls_code code = try_read(store, ref, &view);
    if (code != PLS_OK) {
        MUST(errors[code] != RIGHT, "reading gives %s", pls_strerror(code));
        return errors[code];
    }
    uint8_t *bytes = malloc((size_t)ref->length + 1);
    MUST(bytes != NULL, "out of memory");
    fill(bytes, ref->length, seed);
    bool same = view.length == ref->length && memcmp(view.data, bytes, ref->length) == 0;
    free(bytes);
    pls_view_release(&view);
    return same ? RIGHT : WRONG;
}

static int by_place(const void *key, const void *element)
{
    const struct pls_ref *a = key, *b = &((const struct pls_relocation *)element)->old_ref;
    if (a->file_id != b->file_id) {
        return a->file_id < b->file_id ? -1 : 1;
    }
    return (a->offset > b->offset) - (a->offset < b->offset);
}

const struct pls_relocation *find_in_map(const struct pls_relocation *map, size_t n,
                                         const struct pls_ref *old_ref)
{
    return n > 0 ? bsearch(old_ref, map, n, sizeof *map, by_place) : NULL;
}
