/* One event to the owner of the data directory. */
#ifndef PLSI_LOG_H
#define PLSI_LOG_H

#include "payloadstore/payloadstore.h"

/* `store` may be NULL. Call without a lock that a callback could want. */
void plsi_log(const pls_dir *dir, enum pls_log_level level, const char *store, const char *event,
              const char *format, ...) __attribute__((format(printf, 5, 6)));

#endif
