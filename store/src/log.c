#include "log.h"

#include <stdarg.h>
#include <stdio.h>

#include "dir.h"

void plsi_log(const pls_dir *dir, enum pls_log_level level, const char *store, const char *event,
              const char *format, ...)
{
    if (dir->options.log == NULL) {
        return;
    }
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    dir->options.log(dir->options.log_arg, level, store, event, text);
}
