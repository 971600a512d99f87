#include "idle.h"

#include <time.h>

int64_t psd_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void unlink_timer(struct psd_idle *idle)
{
    idle->previous->next = idle->next;
    idle->next->previous = idle->previous;
    idle->armed = false;
}

/* Waits for the first timer to run out, or for a change. Under the lock. */
static void wait_for_first(struct psd_idle_watch *watch)
{
    if (watch->head.next == &watch->head) {
        pthread_cond_wait(&watch->changed, &watch->lock);
        return;
    }
    int64_t at = watch->head.next->deadline_ms;
    struct timespec until = {.tv_sec = at / 1000, .tv_nsec = at % 1000 * 1000000};
    pthread_cond_timedwait(&watch->changed, &watch->lock, &until);
}

static void *watch_timers(void *arg)
{
    struct psd_idle_watch *watch = arg;
    pthread_mutex_lock(&watch->lock);
    while (!watch->stopping) {
        struct psd_idle *first = watch->head.next;
        if (first != &watch->head && first->deadline_ms <= psd_now_ms()) {
            unlink_timer(first);
            pthread_mutex_unlock(&watch->lock);
            first->expired(first);
            pthread_mutex_lock(&watch->lock);
        } else {
            wait_for_first(watch);
        }
    }
    pthread_mutex_unlock(&watch->lock);
    return NULL;
}

int psd_idle_watch_init(struct psd_idle_watch *watch, unsigned timeout_ms)
{
    pthread_condattr_t monotonic;
    *watch = (struct psd_idle_watch){.timeout_ms = timeout_ms};
    watch->head.next = watch->head.previous = &watch->head;
    pthread_mutex_init(&watch->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&watch->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (pthread_create(&watch->thread, NULL, watch_timers, watch) != 0) {
        pthread_cond_destroy(&watch->changed);
        pthread_mutex_destroy(&watch->lock);
        return -1;
    }
    return 0;
}

void psd_idle_watch_fini(struct psd_idle_watch *watch)
{
    pthread_mutex_lock(&watch->lock);
    watch->stopping = true;
    pthread_cond_signal(&watch->changed);
    pthread_mutex_unlock(&watch->lock);
    pthread_join(watch->thread, NULL);
    pthread_cond_destroy(&watch->changed);
    pthread_mutex_destroy(&watch->lock);
}

void psd_idle_arm(struct psd_idle_watch *watch, struct psd_idle *idle)
{
    pthread_mutex_lock(&watch->lock);
    idle->deadline_ms = psd_now_ms() + watch->timeout_ms;
    idle->armed = true;
    idle->next = &watch->head;
    idle->previous = watch->head.previous;
    idle->previous->next = idle;
    watch->head.previous = idle;
    pthread_cond_signal(&watch->changed);
    pthread_mutex_unlock(&watch->lock);
}

bool psd_idle_disarm(struct psd_idle_watch *watch, struct psd_idle *idle)
{
    pthread_mutex_lock(&watch->lock);
    bool armed = idle->armed;
    if (armed) {
        unlink_timer(idle);
    }
    pthread_mutex_unlock(&watch->lock);
    return armed;
}
