#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const texts[] = {
#define PLS_TEXT(name, text) [PLS_##name] = (text),
    PLS_ERROR_MAP(PLS_TEXT)
#undef PLS_TEXT
};

const char *pls_strerror(int code)
{
    return code >= 0 && code < PLS_N_CODES ? texts[code] : "unknown error";
}

enum pls_code plsi_fail(struct pls_error *error, enum pls_code code, const char *format, ...)
{
    if (error != NULL) {
        va_list args;
        va_start(args, format);
        error->code = code;
        vsnprintf(error->text, sizeof error->text, format, args);
        va_end(args);
    }
    return code;
}

enum pls_code plsi_wrap(struct pls_error *error, enum pls_code code, const char *format, ...)
{
    if (error == NULL) {
        return code;
    }
    char outer[sizeof error->text];
    va_list args;
    va_start(args, format);
    vsnprintf(outer, sizeof outer, format, args);
    va_end(args);
    strncat(outer, ": ", sizeof outer - strlen(outer) - 1);
    strncat(outer, error->text, sizeof outer - strlen(outer) - 1);
    memcpy(error->text, outer, sizeof outer);
    error->code = code;
    return code;
}

enum pls_code plsi_ok(struct pls_error *error)
{
    return plsi_fail(error, PLS_OK, "%s", "");
}
