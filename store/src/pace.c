#include "pace.h"

#include "clock.h"

#define A_SECOND  UINT64_C(1000000000)
#define OF_LATE   INT64_C(100000000)
#define PIECES    15 /* a rest is as long as so many: a sixteenth of a processor is taken */
#define REST_MOST INT64_C(2000000)

void plsi_pace_init(struct plsi_pace *pace)
{
    pace->turn_ns = 0;
    pace->called_ns = 0;
    atomic_init(&pace->called, false);
    atomic_init(&pace->behind, 0);
    pthread_mutex_init(&pace->lock, NULL);
}

void plsi_pace_fini(struct plsi_pace *pace)
{
    pthread_mutex_destroy(&pace->lock);
}

int64_t plsi_pace_turn(struct plsi_pace *pace, uint64_t bytes_per_second, size_t bytes)
{
    int64_t now = plsi_now_ns();
    pthread_mutex_lock(&pace->lock);
    int64_t turn = pace->turn_ns > now ? pace->turn_ns : now;
    pace->turn_ns = turn + (int64_t)((uint64_t)bytes * A_SECOND / bytes_per_second);
    pthread_mutex_unlock(&pace->lock);
    return turn;
}

/* True where more than these bytes was owed. What is copied ahead of appends is not saved up. */
static bool note_copied(struct plsi_pace *pace, size_t bytes)
{
    int64_t behind = atomic_load_explicit(&pace->behind, memory_order_relaxed);
    int64_t copied = behind < (int64_t)bytes ? behind : (int64_t)bytes;
    return atomic_fetch_sub_explicit(&pace->behind, copied, memory_order_relaxed) > (int64_t)bytes;
}

int64_t plsi_pace_rest(struct plsi_pace *pace, int64_t piece_ns, size_t bytes)
{
    bool behind = note_copied(pace, bytes);
    int64_t now = plsi_now_ns();
    bool called = atomic_exchange(&pace->called, false);
    pthread_mutex_lock(&pace->lock);
    if (called) {
        pace->called_ns = now;
    }
    bool of_late = pace->called_ns > 0 && now - pace->called_ns < OF_LATE;
    pthread_mutex_unlock(&pace->lock);
    if (!of_late) {
        return 0;
    }
    int64_t rest = behind ? piece_ns : PIECES * piece_ns;
    return rest < REST_MOST ? rest : REST_MOST;
}
