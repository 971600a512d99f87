/* A new directory for a test's data, below TMPDIR, which ctest sets to a place in the build
 * directory. */
#ifndef TESTS_WORK_DIR_H
#define TESTS_WORK_DIR_H

#include <limits.h>

/* Ends the process where it cannot be made. */
void work_dir_create(char path[PATH_MAX]);
/* The same, below another directory. */
void work_dir_create_below(const char *below, char path[PATH_MAX]);
/* With everything in it. */
void work_dir_remove(const char *path);

#endif
