/* Threads that run the parallel loops of compiled kernels, and share the machine with others.
 *
 * A loop is cut into pieces, and each thread has a range of them. A thread that has finished its
 * own range takes pieces of the others' ranges (work stealing). So the calling thread computes
 * whatever no worker has begun, and waits at most for pieces in progress. Workers are not pinned to
 * cores.
 *
 * If a worker has its core for less than three quarters of the time (its processor time falls
 * behind the clock), other programs need the machine. Then kernels run on the calling thread alone
 * for a while, and workers sleep; that time doubles whenever the same is seen again. What is lost to
 * interrupts, or by a virtual machine to its neighbours, is less, and costs less than a worker would.
 * How long the caller waits says nothing: the worker may be in the middle of a long piece. An idle
 * worker spins for some milliseconds before it sleeps, so that it is woken once for all the kernels
 * of a run, and for runs that follow each other closely.
 *
 * All libraries of a process share the pool of the first that was loaded. Kernels call `launch` in
 * the place of TVM's TVMBackendParallelLaunch (tvm/runtime/c_backend_api.h): `task(id, env, data)`
 * computes part `id` of the `env->num_task` parts of a loop.
 */

#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

enum {
  MOST_THREADS = 1024, /* of one loop, its caller included */
  MOST_LOOPS = 16,     /* in progress at once; others run on their callers alone */
  PIECES = 16,         /* for each thread */
  BLOCK = 8,           /* of them are neighbours */
};

/* Nanoseconds. */
static const int64_t AWAKE = 3000000;        /* how long an idle worker spins */
static const int64_t LOST = 2000000;         /* off the core for so long means a busy machine */
static const int64_t TOLERATED = 4;          /* a part in so many of the time may be lost */
static const int64_t CHECKED = 500000;       /* how often a worker compares the clocks */
static const int64_t SHORT_WAIT = 50000;     /* how long the caller spins for workers */
static const int64_t FIRST_HOLD = 10000000;  /* serial after the first sign of contention */
static const int64_t LAST_HOLD = 640000000;
static const int64_t CALM = 200000000; /* without a sign for so long, the next one is a first */

typedef struct {
  void* sync_handle;
  int32_t num_task;
} Environment;

typedef int (*Task)(int id, Environment* environment, void* data);

/* The pieces of a thread's range that are not begun: from the low half up to the high half. */
typedef struct {
  _Alignas(64) atomic_ullong left;
} Range;

typedef struct {
  _Alignas(64) atomic_int open;
  _Alignas(64) atomic_int helpers; /* workers that may look at what follows */
  atomic_int status;
  atomic_int is_awaited;
  pthread_mutex_t lock;
  pthread_cond_t left;
  Task task;
  void* data;
  Environment environment;
  atomic_int threads;
  Range ranges[MOST_THREADS];
} Loop;

typedef struct {
  _Alignas(64) atomic_int is_asleep;
  pthread_mutex_t lock;
  pthread_cond_t work;
} Worker;

static Loop loops[MOST_LOOPS];
static Worker workers[MOST_THREADS];
static _Alignas(64) atomic_uint taken;     /* bit i: somebody has loop i */
static _Alignas(64) atomic_uint published; /* bit i: loop i may have pieces left */
static _Alignas(64) atomic_int started;    /* workers there are, numbered from 1 */
static pthread_mutex_t starting = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t prepared = PTHREAD_ONCE_INIT;

static _Alignas(64) atomic_llong serial_until;
static atomic_llong hold;

/* TVM's loader fills these in: what kernels call for a loop, and what sets an error's text. */
__attribute__((weak)) void* __TVMBackendParallelLaunch;
__attribute__((weak)) void (*__TVMFFIErrorSetRaisedFromCStr)(const char* kind, const char* message);

static _Thread_local int thread_limit = 1; /* threads that the calling thread's loops may have */
static _Thread_local int in_parallel_loop; /* a part of a loop: loops in it are not cut */

static int64_t now(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

/* ---- others on the machine -------------------------------------------------------------------- */

static void note_contention(int64_t time) {
  int64_t until = atomic_load_explicit(&serial_until, memory_order_relaxed);
  if (time < until) return;
  int64_t length = atomic_load_explicit(&hold, memory_order_relaxed);
  length = time - until > CALM || length == 0 ? FIRST_HOLD : length * 2;
  if (length > LAST_HOLD) length = LAST_HOLD;
  atomic_store_explicit(&hold, length, memory_order_relaxed);
  atomic_store_explicit(&serial_until, time + length, memory_order_relaxed);
}

static int is_contended(int64_t time) {
  return time < atomic_load_explicit(&serial_until, memory_order_relaxed);
}

/* The clock and a thread's processor time, when they were last compared, and the time lost that is
 * not made up for yet. */
typedef struct {
  int64_t wall, cpu, lost;
} Clocks;

static Clocks look(int64_t wall) {
  return (Clocks){wall, now(CLOCK_THREAD_CPUTIME_ID), 0};
}

/* Has the thread lost its core for too much of the time? A leaky bucket: what is lost flows in, and
 * what may be lost flows out. */
static int is_losing(Clocks* last, Clocks here) {
  int64_t passed = here.wall - last->wall;
  int64_t lost = last->lost + passed - (here.cpu - last->cpu) - passed / TOLERATED;
  *last = here;
  if (lost > LOST) return 1;
  if (lost > 0) last->lost = lost;
  return 0;
}

static void compare(Clocks* last, int64_t wall) {
  if (wall - last->wall < CHECKED) return;
  if (is_losing(last, look(wall))) note_contention(wall);
}

/* ---- pieces ------------------------------------------------------------------------------------ */

static unsigned long long range_of(unsigned first, unsigned end) {
  return (unsigned long long)end << 32 | first;
}

/* The next piece of a range, or -1. Its owner takes the first one, others the last one: so the owner
 * goes on with the data behind those that it has read, which the processor fetches beforehand. */
static int take(Range* range, int is_own) {
  unsigned long long left = atomic_load_explicit(&range->left, memory_order_relaxed), rest;
  unsigned first, end;
  do {
    first = (unsigned)left;
    end = (unsigned)(left >> 32);
    if (first >= end) return -1;
    rest = is_own ? range_of(first + 1, end) : range_of(first, end - 1);
  } while (!atomic_compare_exchange_weak_explicit(
      &range->left, &left, rest, memory_order_relaxed, memory_order_relaxed));
  return (int)(is_own ? first : end - 1);
}

/* The part of the loop that a piece of a thread's range is. Loops with fewer iterations than there
 * are parts leave the last parts empty, so each range has some of the first parts and of the last. */
static int part_of(int piece, int owner, int threads) {
  return (piece / BLOCK * threads + owner) * BLOCK + piece % BLOCK;
}

/* Run what is left of a thread's range; returns the last status that was not 0. */
static int run_range(Loop* loop, int owner, int threads, int is_own) {
  int failed = 0;
  for (int piece; (piece = take(&loop->ranges[owner], is_own)) >= 0;) {
    int status = loop->task(part_of(piece, owner, threads), &loop->environment, loop->data);
    if (status != 0) failed = status;
  }
  return failed;
}

/* A thread starts with its own range: equal parts of successive loops work on equal parts of the
 * data, which are in its core's cache then. */
static int run_pieces(Loop* loop, int own) {
  int failed = 0;
  int threads = atomic_load_explicit(&loop->threads, memory_order_relaxed);
  for (int i = 0; i < threads; ++i) {
    int status = run_range(loop, (own + i) % threads, threads, i == 0);
    if (status != 0) failed = status;
  }
  return failed;
}

/* ---- workers ----------------------------------------------------------------------------------- */

/* Each worker wakes two more, as in a binary tree, so that the caller does not wake all of them. */
static void wake_next(int number, int threads) {
  for (int i = 2 * number + 1; i <= 2 * number + 2 && i < threads; ++i) {
    Worker* worker = &workers[i];
    if (!atomic_load(&worker->is_asleep) || !atomic_exchange(&worker->is_asleep, 0)) continue;
    pthread_mutex_lock(&worker->lock);
    pthread_cond_signal(&worker->work);
    pthread_mutex_unlock(&worker->lock);
  }
}

static void join_loop(Loop* loop, unsigned bit, int number) {
  atomic_fetch_add(&loop->helpers, 1);
  /* `close_loop` waits for helpers that came before it closed the loop: if it is open here, it
   * stays valid until this worker leaves. */
  int is_open = atomic_load(&loop->open);
  int threads = atomic_load_explicit(&loop->threads, memory_order_relaxed);
  if (is_open && number < threads) {
    wake_next(number, threads);
    int status = run_pieces(loop, number);
    if (status != 0) atomic_store_explicit(&loop->status, status, memory_order_relaxed);
    atomic_fetch_and(&published, ~bit);
  }
  if (atomic_fetch_sub(&loop->helpers, 1) == 1 && atomic_load(&loop->is_awaited)) {
    pthread_mutex_lock(&loop->lock);
    pthread_cond_signal(&loop->left);
    pthread_mutex_unlock(&loop->lock);
  }
}

/* The loops that may have pieces for this worker, as bits. */
static unsigned wanted(int number) {
  unsigned bits = atomic_load(&published);
  for (unsigned rest = bits; rest; rest &= rest - 1) {
    Loop* loop = &loops[__builtin_ctz(rest)];
    int threads = atomic_load_explicit(&loop->threads, memory_order_relaxed);
    if (number >= threads) bits &= ~(rest & -rest);
  }
  return bits;
}

static void sleep_until_woken(Worker* self, int number) {
  pthread_mutex_lock(&self->lock);
  atomic_store(&self->is_asleep, 1);
  while (atomic_load(&self->is_asleep) && !wanted(number)) {
    pthread_cond_wait(&self->work, &self->lock);
  }
  atomic_store(&self->is_asleep, 0);
  pthread_mutex_unlock(&self->lock);
}

static void* work(void* argument) {
  int number = (int)(intptr_t)argument;
  in_parallel_loop = 1;
  Clocks clocks = look(now(CLOCK_MONOTONIC));
  int64_t worked = clocks.wall;
  for (;;) {
    unsigned bits = wanted(number);
    if (bits) {
      join_loop(&loops[__builtin_ctz(bits)], bits & -bits, number);
      worked = now(CLOCK_MONOTONIC);
      compare(&clocks, worked);
      continue;
    }
    for (int i = 0; i < 64 && !atomic_load_explicit(&published, memory_order_relaxed); ++i) relax();
    int64_t time = now(CLOCK_MONOTONIC);
    compare(&clocks, time);
    if (time - worked > AWAKE || is_contended(time)) {
      sleep_until_woken(&workers[number], number);
      worked = now(CLOCK_MONOTONIC);
      clocks = look(worked);
    }
  }
  return 0;
}

static void set_up(void) {
  for (int i = 0; i < MOST_LOOPS; ++i) {
    pthread_mutex_init(&loops[i].lock, 0);
    pthread_cond_init(&loops[i].left, 0);
  }
}

/* In a child made by fork, no worker exists and no loop is in progress. */
static void start_anew(void) {
  for (int i = 0; i < MOST_LOOPS; ++i) {
    atomic_store(&loops[i].open, 0);
    atomic_store(&loops[i].helpers, 0);
    atomic_store(&loops[i].is_awaited, 0);
  }
  set_up();
  pthread_mutex_init(&starting, 0);
  atomic_store(&taken, 0);
  atomic_store(&published, 0);
  atomic_store(&started, 0);
  atomic_store(&serial_until, 0); /* contention is observed anew, by workers of the child */
}

static void prepare(void) {
  set_up();
  pthread_atfork(0, 0, start_anew);
}

static int create(int number) {
  pthread_attr_t attributes;
  pthread_t thread;
  pthread_mutex_init(&workers[number].lock, 0);
  pthread_cond_init(&workers[number].work, 0);
  atomic_store(&workers[number].is_asleep, 0);
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  int failed = pthread_create(&thread, &attributes, work, (void*)(intptr_t)number);
  pthread_attr_destroy(&attributes);
  return !failed;
}

/* Have workers 1 to `threads - 1`; returns how many threads there are with the caller. */
static int start(int threads) {
  if (atomic_load_explicit(&started, memory_order_acquire) + 1 >= threads) return threads;
  pthread_once(&prepared, prepare);
  sigset_t all, before;
  sigfillset(&all);
  pthread_mutex_lock(&starting);
  pthread_sigmask(SIG_SETMASK, &all, &before); /* workers inherit this: they take no signals */
  int count = atomic_load(&started);
  while (count + 1 < threads && create(count + 1)) {
    atomic_store_explicit(&started, ++count, memory_order_release);
  }
  pthread_sigmask(SIG_SETMASK, &before, 0);
  pthread_mutex_unlock(&starting);
  return count + 1 < threads ? count + 1 : threads;
}

/* ---- callers ----------------------------------------------------------------------------------- */

static int run_serial(Task task, void* data) {
  Environment environment = {0, 1};
  int was_in_loop = in_parallel_loop;
  in_parallel_loop = 1;
  int status = task(0, &environment, data);
  in_parallel_loop = was_in_loop;
  return status;
}

static Loop* acquire(unsigned* bit) {
  unsigned bits = atomic_load_explicit(&taken, memory_order_relaxed);
  while (~bits) {
    unsigned free = ~bits & -~bits;
    if (atomic_compare_exchange_weak(&taken, &bits, bits | free)) {
      *bit = free;
      return &loops[__builtin_ctz(free)];
    }
  }
  return 0;
}

static void publish(Loop* loop, unsigned bit, Task task, void* data, int threads) {
  loop->task = task;
  loop->data = data;
  loop->environment = (Environment){0, threads * PIECES};
  atomic_store_explicit(&loop->threads, threads, memory_order_relaxed);
  atomic_store_explicit(&loop->status, 0, memory_order_relaxed);
  for (int i = 0; i < threads; ++i) {
    atomic_store_explicit(&loop->ranges[i].left, range_of(0, PIECES), memory_order_relaxed);
  }
  atomic_store(&loop->open, 1);
  atomic_fetch_or(&published, bit);
  wake_next(0, threads);
}

static void close_loop(Loop* loop, unsigned bit) {
  atomic_fetch_and(&published, ~bit);
  atomic_store(&loop->open, 0);
  if (!atomic_load(&loop->helpers)) return;
  int64_t began = now(CLOCK_MONOTONIC);
  while (atomic_load(&loop->helpers)) {
    for (int i = 0; i < 32 && atomic_load(&loop->helpers); ++i) relax();
    if (now(CLOCK_MONOTONIC) - began < SHORT_WAIT) continue;
    /* Sleep, so that a worker that has no core can continue on this one. */
    pthread_mutex_lock(&loop->lock);
    atomic_store(&loop->is_awaited, 1);
    while (atomic_load(&loop->helpers)) pthread_cond_wait(&loop->left, &loop->lock);
    atomic_store(&loop->is_awaited, 0);
    pthread_mutex_unlock(&loop->lock);
  }
}

static int launch(Task task, void* data, int parts) {
  (void)parts; /* 0 in what is compiled: as many as the pool likes */
  int threads = thread_limit;
  if (threads <= 1 || in_parallel_loop || is_contended(now(CLOCK_MONOTONIC))) {
    return run_serial(task, data);
  }
  threads = start(threads);
  unsigned bit;
  Loop* loop = threads > 1 ? acquire(&bit) : 0;
  if (!loop) return run_serial(task, data);
  publish(loop, bit, task, data, threads);
  in_parallel_loop = 1;
  int status = run_pieces(loop, 0);
  in_parallel_loop = 0;
  close_loop(loop, bit);
  int others = atomic_load_explicit(&loop->status, memory_order_relaxed);
  atomic_fetch_and(&taken, ~bit);
  if (status == 0 && others != 0 && __TVMFFIErrorSetRaisedFromCStr) {
    /* The worker's task set the error's text in the worker's thread: set one in this thread. */
    __TVMFFIErrorSetRaisedFromCStr("RuntimeError", "a part of a parallel loop failed");
  }
  return status != 0 ? status : others;
}

/* ---- for the runtime, as functions of TVM's FFI (tvm/ffi/c_api.h) ------------------------------- */

typedef struct {
  int32_t type;
  uint32_t padding;
  int64_t value;
} Any;

enum { INTEGER = 1 };

static void use(int threads) { thread_limit = threads < MOST_THREADS ? threads : MOST_THREADS; }

/* (address) -> address: have this library's kernels call the `launch` there, or its own for 0. */
__attribute__((visibility("default"))) int __tvm_ffi_graphkiln_pool(
    void* self, const Any* arguments, int32_t count, Any* result) {
  (void)self;
  if (count != 1 || arguments[0].type != INTEGER) return -1;
  int64_t chosen = arguments[0].value ? arguments[0].value : (int64_t)(intptr_t)launch;
  __TVMBackendParallelLaunch = (void*)(intptr_t)chosen;
  *result = (Any){INTEGER, 0, chosen};
  return 0;
}

/* (threads) -> threads: so many for the loops of the calling thread. */
__attribute__((visibility("default"))) int __tvm_ffi_graphkiln_threads(
    void* self, const Any* arguments, int32_t count, Any* result) {
  (void)self;
  if (count != 1 || arguments[0].type != INTEGER) return -1;
  use((int)arguments[0].value);
  *result = arguments[0];
  return 0;
}
