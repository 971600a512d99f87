/* Logging: core's lines and ours, to the program's logger or to standard error. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <grpc/support/log.h>

#include "core.h"

typedef void (*logger)(enum grpc_c_log_level level, const char *line);

static _Atomic(logger) program_logger;
static _Thread_local char *capture_text;
static _Thread_local size_t capture_size;

/* Core leaves out what is below GRPC_VERBOSITY, whose default is errors only; we log no less. */
static void emit(enum grpc_c_log_level level, const char *line)
{
    logger log = atomic_load_explicit(&program_logger, memory_order_acquire);

    if (log != NULL) {
        log(level, line);
    } else {
        (void)fprintf(stderr, "grpc-c: %s\n", line);
    }
}

static enum grpc_c_log_level level_of(gpr_log_severity severity)
{
    switch (severity) {
    case GPR_LOG_SEVERITY_ERROR:
        return GRPC_C_LOG_ERROR;
    case GPR_LOG_SEVERITY_INFO:
        return GRPC_C_LOG_INFO;
    case GPR_LOG_SEVERITY_DEBUG:
        break;
    }
    return GRPC_C_LOG_DEBUG;
}

static void core_log(gpr_log_func_args *args)
{
    char line[2048];

    if (capture_text != NULL && args->severity == GPR_LOG_SEVERITY_ERROR) {
        (void)snprintf(capture_text, capture_size, "%s", args->message);
        return;
    }
    (void)snprintf(line, sizeof(line), "%s", args->message);
    line[strcspn(line, "\n")] = '\0';
    emit(level_of(args->severity), line);
}

static void take_over_once(void)
{
    gpr_set_log_function(core_log);
}

void gci_log_take_over(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, take_over_once);
}

void gci_log_capture(char *text, size_t size)
{
    capture_text = text;
    capture_size = size;
    if (text != NULL) {
        text[0] = '\0';
    }
}

void gci_log(enum grpc_c_log_level level, const char *format, ...)
{
    char line[1024];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    emit(level, line);
}

void grpc_c_set_logger(void (*log)(enum grpc_c_log_level level, const char *line))
{
    gci_log_take_over();
    atomic_store_explicit(&program_logger, log, memory_order_release);
}

void gci_check_failed(const char *file, int line, const char *condition)
{
    gci_log(GRPC_C_LOG_ERROR, "%s:%d: check failed: %s", file, line, condition);
    abort();
}
