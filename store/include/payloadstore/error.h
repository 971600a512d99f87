/* What can go wrong in the store: one enum, and a buffer for the story behind it. */
#ifndef PAYLOADSTORE_ERROR_H
#define PAYLOADSTORE_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define PLS_API __attribute__((visibility("default")))
#else
#define PLS_API
#endif

/*
 * Three kinds of trouble with a ref are never mixed up: INVALID_REF could never have been a ref of
 * any store, NO_RECORD means that no record of that length starts there, and DAMAGED that the
 * record is there and its bytes differ from a checksum, or that the disk cannot read them.
 */
#define PLS_ERROR_MAP(X)                                                                   \
    X(OK, "success")                                                                       \
    X(INVALID_NAME,                                                                        \
      "not a store name: 1 to 128 of A-Z a-z 0-9 . _ -, beginning with a letter or digit") \
    X(INVALID_ARGUMENT, "an argument is out of range")                                     \
    X(INVALID_REF, "this could never have been a ref")                                     \
    X(NO_STORE, "there is no such store")                                                  \
    X(NO_RECORD, "no record of that length starts there")                                  \
    X(DAMAGED, "the record is damaged")                                                    \
    X(PAYLOAD_TOO_LARGE, "the payload is larger than this store takes")                    \
    X(NO_SPACE, "the disk is full")                                                        \
    X(DISK_RESERVE, "the disk is down to its reserve: compact, or free some disk")         \
    X(IO, "the disk reported an error")                                                    \
    X(LOCKED, "another process holds the data directory")                                  \
    X(DENIED, "the operating system denies access")                                        \
    X(BAD_FORMAT, "a file of the store is damaged or from a newer version")                \
    X(IDS_USED_UP, "no segment id is left")                                                \
    X(NO_MEMORY, "out of memory")                                                          \
    X(CLOSED, "the store is being closed")                                                 \
    X(EPOCH_STALE, "another writer has claimed the store")                                 \
    X(EPOCH_DIFFERS, "the store's epoch is not the one the claim expects")                 \
    X(INCARNATION_DIFFERS, "the store was deleted and made again")                         \
    X(HANDLE_UNKNOWN, "this store never gave out that seal handle")                        \
    X(HANDLE_SUPERSEDED, "the seal handle has been used up; seal again")                   \
    X(REF_NOT_KEPT, "the committed compaction was not given this ref as live")             \
    X(NOT_COMMITTED, "no compaction of this seal handle has committed")                    \
    X(COMPACTION_RUNNING, "a compaction of this store is running")                         \
    X(LIVE_NO_RECORD, "no record of that length starts where a live ref points")           \
    X(LIVE_DAMAGED, "a live ref's record is damaged")                                      \
    X(EXPECTED_LIVE_DIFFERS, "the number of live refs is not the expected one")            \
    X(CANCELLED, "cancelled")

enum pls_code {
#define PLS_CODE(name, text) PLS_##name,
    PLS_ERROR_MAP(PLS_CODE)
#undef PLS_CODE
        PLS_N_CODES
};

/* Filled by operations that open, recover, seal, compact or delete. Plain memory: nothing to free.
 */
struct pls_error {
    enum pls_code code;
    char text[512]; /* what failed, on which file, and errno's words; "" after success */
};

/* One line for people, without a full stop. Never NULL, also for a number that is no code. */
PLS_API const char *pls_strerror(int code);

#ifdef __cplusplus
}
#endif

#endif
