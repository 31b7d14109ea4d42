// See threads.h.
//
// A step is some hundred calls of a few microseconds. OpenMP's threads either spin while they wait, which starves the
// server on the same cores, or sleep at once, which costs more than a call computes. These spin for some
// microseconds, longer than the interpreter needs to the next call and no longer, and then sleep. So does the caller: a
// thread that has lost its core in the middle of a task gets it back where the caller gave up its own.

#include "threads.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#if defined(__x86_64__)
#include <immintrin.h>
#define relax() _mm_pause()
#else
#define relax() ((void)0)
#endif

enum { SPINS_FOR_WORK = 2000, SPINS_FOR_THE_LAST = 1000, MAX_TASKS = 1 << 20 };

// A job in one word, so that a thread that comes late cannot take a task of another job: its number, how many tasks
// it has, and which is next. 24, 20 and 20 bits.
static _Alignas(128) _Atomic uint64_t job;
static _Alignas(128) task_function job_task;
static void *job_context;
static _Alignas(128) _Atomic int64_t num_done;

static _Atomic int num_asleep, is_caller_asleep;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t job_begun = PTHREAD_COND_INITIALIZER, job_done = PTHREAD_COND_INITIALIZER;

static pthread_t *workers;
static int num_workers;
static _Atomic int is_ending;

static inline uint64_t number_of(uint64_t word) { return word >> 40; }
static inline int64_t tasks_of(uint64_t word) { return (int64_t)(word >> 20 & 0xFFFFF); }
static inline int64_t next_of(uint64_t word) { return (int64_t)(word & 0xFFFFF); }

static void wake(pthread_cond_t *condition) {
    pthread_mutex_lock(&mutex);
    pthread_cond_broadcast(condition);
    pthread_mutex_unlock(&mutex);
}

// What is read of a job between looking at the word and swapping it belongs to that job: the caller writes another
// job's only after all tasks of this one were taken, and then the swap fails.
static void take_tasks(void) {
    uint64_t word = atomic_load(&job);
    int64_t num_taken = 0, num_tasks = 0;
    while (next_of(word) < tasks_of(word)) {
        task_function task = job_task;
        void *context = job_context;
        if (!atomic_compare_exchange_weak(&job, &word, word + 1)) continue;
        task(context, next_of(word));
        num_taken++;
        num_tasks = tasks_of(word);
        word = atomic_load(&job);
    }
    // Once for all that were taken: the line that holds it travels between the cores, which takes longer than many a task.
    // No other job can have begun in between, since this one is not done.
    if (num_taken && atomic_fetch_add(&num_done, num_taken) + num_taken == num_tasks && atomic_load(&is_caller_asleep))
        wake(&job_done);
}

static void *work(void *unused) {
    (void)unused;
    uint64_t seen = 0;
    while (!atomic_load(&is_ending)) {
        for (int spin = 0; spin < SPINS_FOR_WORK && number_of(atomic_load(&job)) == seen; spin++) relax();
        if (number_of(atomic_load(&job)) == seen) {
            pthread_mutex_lock(&mutex);
            atomic_fetch_add(&num_asleep, 1);
            while (number_of(atomic_load(&job)) == seen && !atomic_load(&is_ending))
                pthread_cond_wait(&job_begun, &mutex);
            atomic_fetch_sub(&num_asleep, 1);
            pthread_mutex_unlock(&mutex);
        }
        seen = number_of(atomic_load(&job));
        take_tasks();
    }
    return NULL;
}

int pool_size(void) { return num_workers + 1; }

int pool_resize(int num_threads) {
    atomic_store(&is_ending, 1);
    wake(&job_begun);
    for (int i = 0; i < num_workers; i++) pthread_join(workers[i], NULL);
    atomic_store(&is_ending, 0);
    free(workers);
    num_workers = 0;
    workers = calloc((size_t)num_threads, sizeof *workers);
    if (workers == NULL) return ENOMEM;
    for (int i = 0; i < num_threads - 1; i++) {
        int error = pthread_create(&workers[i], NULL, work, NULL);
        if (error) return error;
        num_workers++;
    }
    return 0;
}

static void run_some(task_function task, void *context, int64_t num_tasks) {
    uint64_t number = (number_of(atomic_load(&job)) + 1) & 0xFFFFFF;
    atomic_store(&num_done, 0);
    job_task = task;
    job_context = context;
    atomic_store(&job, number << 40 | (uint64_t)num_tasks << 20);
    if (atomic_load(&num_asleep)) wake(&job_begun);
    take_tasks();
    for (int spin = 0; spin < SPINS_FOR_THE_LAST && atomic_load(&num_done) < num_tasks; spin++) relax();
    if (atomic_load(&num_done) == num_tasks) return;
    pthread_mutex_lock(&mutex);
    atomic_store(&is_caller_asleep, 1);
    while (atomic_load(&num_done) < num_tasks) pthread_cond_wait(&job_done, &mutex);
    atomic_store(&is_caller_asleep, 0);
    pthread_mutex_unlock(&mutex);
}

typedef struct {
    task_function task;
    void *context;
    int64_t first;
} later_tasks;

static void run_later(void *context, int64_t task) {
    later_tasks *later = context;
    later->task(later->context, later->first + task);
}

void pool_run(task_function task, void *context, int64_t num_tasks) {
    if (num_workers == 0 || num_tasks == 1) {
        for (int64_t i = 0; i < num_tasks; i++) task(context, i);
        return;
    }
    for (int64_t first = 0; first < num_tasks; first += MAX_TASKS - 1) {
        int64_t left = num_tasks - first;
        later_tasks later = {task, context, first};
        run_some(run_later, &later, left < MAX_TASKS - 1 ? left : MAX_TASKS - 1);
    }
}

static _Thread_local void *scratch;
static _Thread_local int64_t scratch_bytes;

void *thread_scratch(int64_t num_bytes) {
    if (num_bytes > scratch_bytes) {
        free(scratch);
        if (posix_memalign(&scratch, 64, (size_t)num_bytes)) abort();
        scratch_bytes = num_bytes;
    }
    return scratch;
}
