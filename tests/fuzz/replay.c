/*
 * Runs a target on each file of a corpus: replay DIRECTORY
 *
 * An input lies in memory of just its size, so that a sanitizer sees a byte too many being read.
 */
#include "fuzz.h"

#include <dirent.h>
#include <sys/stat.h>

/* Nothing is changed here. */
/* NOLINTNEXTLINE(readability-non-const-parameter): libFuzzer's declaration */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max)
{
    (void)data;
    (void)max;
    return size;
}

static void run_file(const char *path)
{
    struct stat stat_of;
    FILE *file = fopen(path, "rb");
    uint8_t *bytes;
    size_t size;

    insist(file != NULL && stat(path, &stat_of) == 0);
    size = (size_t)stat_of.st_size;
    bytes = malloc(size > 0 ? size : 1);
    insist(bytes != NULL && fread(bytes, 1, size, file) == size);
    (void)fclose(file);
    (void)printf("%s\n", path);
    (void)fflush(stdout); /* the last one printed is the one that failed */
    (void)LLVMFuzzerTestOneInput(bytes, size);
    free(bytes);
}

int main(int argc, char **argv)
{
    struct dirent **entries;
    unsigned ran = 0;
    int n = argc == 2 ? scandir(argv[1], &entries, NULL, alphasort) : -1;

    if (n < 0) {
        (void)fprintf(stderr, "replay: takes a directory of inputs\n");
        return EXIT_FAILURE;
    }
    for (int i = 0; i < n; i++) {
        if (entries[i]->d_name[0] != '.') {
            char path[4096];
            (void)snprintf(path, sizeof(path), "%s/%s", argv[1], entries[i]->d_name);
            run_file(path);
            ran++;
        }
        free(entries[i]);
    }
    free(entries);
    (void)printf("%u inputs\n", ran);
    return ran > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
