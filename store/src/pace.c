#include "pace.h"

#include "clock.h"

#define A_SECOND UINT64_C(1000000000)

void plsi_pace_init(struct plsi_pace *pace)
{
    pace->turn_ns = 0;
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
