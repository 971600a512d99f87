#include "work_dir.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>

void work_dir_create(char path[PATH_MAX])
{
    const char *below = getenv("TMPDIR");
    work_dir_create_below(below != NULL ? below : "/tmp", path);
}

void work_dir_create_below(const char *below, char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "%s/payloadstore.XXXXXX", below);
    if (mkdtemp(path) == NULL) {
        perror(path);
        abort();
    }
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *walk)
{
    (void)st;
    (void)kind;
    (void)walk;
    return remove(path);
}

void work_dir_remove(const char *path)
{
    nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}
