// A pool of threads that share the tasks of one call after another, with little time between the calls.
#pragma once

#include <stdint.h>

typedef void (*task_function)(void *context, int64_t task);

// Use this many threads, the caller's included. Not while tasks run. Returns 0, or an errno value.
int pool_resize(int num_threads);
int pool_size(void);

// Run task(context, 0) to task(context, num_tasks - 1), each once, in any order, on all threads. Returns when all are
// done. Only one caller at a time.
void pool_run(task_function task, void *context, int64_t num_tasks);

// Memory of the calling thread, aligned for any vector, that lasts until its next call. Ends the process if there is
// none: the sizes are those of a few rows, and a thread of the pool has nobody to tell.
void *thread_scratch(int64_t num_bytes);
