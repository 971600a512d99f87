/* The flags, as every language's interoperability programs take them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "interop.h"

uint8_t interop_zeros[PAYLOAD_MAX];

static bool set(const struct flag *flag, const char *given)
{
    size_t length = strlen(flag->name);

    if (strncmp(given, flag->name, length) != 0 || given[length] != '=') {
        return false;
    }
    *flag->value = given + length + 1;
    return true;
}

void flags_parse(const struct flag *flags, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *given = argv[i] + strspn(argv[i], "-");
        const struct flag *flag = flags;
        while (flag->name != NULL && !set(flag, given)) {
            flag++;
        }
        if (flag->name == NULL || given == argv[i]) {
            (void)fprintf(stderr, "%s: there is no flag %s, or it has no value\n", argv[0],
                          argv[i]);
            exit(2);
        }
    }
}

bool flag_is_true(const char *name, const char *value)
{
    if (strcmp(value, "true") == 0 || strcmp(value, "1") == 0) {
        return true;
    }
    if (strcmp(value, "false") != 0 && strcmp(value, "0") != 0) {
        (void)fprintf(stderr, "--%s is true or false, not %s\n", name, value);
        exit(2);
    }
    return false;
}
