/* Waiting for an append, for those who have nothing better to do. */
#include <pthread.h>

#include "backend.h"

struct wait {
    pthread_mutex_t lock; /* a leaf; guards the two below */
    pthread_cond_t done;
    bool is_done;
    enum pls_code code;
};

static void on_written(void *arg, enum pls_code code)
{
    struct wait *wait = arg;
    pthread_mutex_lock(&wait->lock);
    wait->is_done = true;
    wait->code = code;
    pthread_cond_signal(&wait->done);
    pthread_mutex_unlock(&wait->lock);
}

enum pls_code plsi_append_and_wait(struct plsi_blob *blob, uint64_t offset, void *data,
                                   size_t length)
{
    struct wait wait = {.lock = PTHREAD_MUTEX_INITIALIZER, .done = PTHREAD_COND_INITIALIZER};
    struct iovec iov = {.iov_base = data, .iov_len = length};
    blob->ops->append(blob, offset, &iov, 1, on_written, &wait);
    pthread_mutex_lock(&wait.lock);
    while (!wait.is_done) {
        pthread_cond_wait(&wait.done, &wait.lock);
    }
    pthread_mutex_unlock(&wait.lock);
    return wait.code;
}
