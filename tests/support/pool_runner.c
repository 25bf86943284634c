/* Many loops of many sizes from several threads at once, each part of each exactly once.
 *
 *   pool_runner CALLERS ROUNDS
 *
 * The exit code is not 0 where a part was left out, came twice, or a failure was lost.
 */

#include "pool.c"

#include <stdio.h>
#include <stdlib.h>

enum { LONGEST = 500, MOST_CALLERS = 64 };

typedef struct {
  int extent;
  atomic_int* done;
  unsigned seed;
  int has_inner;
  int fails;
} Case;

static int rounds;
static atomic_int wrong;

static int inner(int id, Environment* environment, void* data) {
  (void)data;
  return id == 0 && environment->num_task == 1 ? 0 : 9; /* loops in loops are not cut */
}

/* What compiled code does with its part of a loop. */
static int body(int id, Environment* environment, void* data) {
  Case* c = data;
  int step = (c->extent + environment->num_task - 1) / environment->num_task;
  for (int i = id * step; i < (id + 1) * step && i < c->extent; ++i) {
    atomic_fetch_add_explicit(&c->done[i], 1, memory_order_relaxed);
    volatile unsigned x = c->seed + i;
    for (unsigned k = 0; k < (c->seed + i) % 300; ++k) x = x * 1103515245u + 12345u;
    if (c->has_inner && launch(inner, c, 0) != 0) atomic_store(&wrong, 1);
    if (c->fails && i == c->extent / 2) return 5;
  }
  return 0;
}

static void once(Case* c) {
  for (int i = 0; i < c->extent; ++i) atomic_store(&c->done[i], 0);
  int status = launch(body, c, 0);
  if ((status != 0) != (c->fails && c->extent > 0)) atomic_store(&wrong, 1);
  for (int i = 0; i < c->extent && !c->fails; ++i) {
    if (atomic_load(&c->done[i]) != 1) atomic_store(&wrong, 1);
  }
}

static void* call(void* argument) {
  static _Thread_local atomic_int done[LONGEST];
  unsigned seed = (unsigned)(intptr_t)argument;
  for (int r = 0; r < rounds; ++r) {
    seed = seed * 1664525u + 1013904223u;
    Case c = {(int)((seed >> 8) % LONGEST), done, seed >> 4, r % 5 == 0, r % 11 == 0};
    use(1 + (int)((seed >> 20) % 5));
    if (r % 3) atomic_store(&serial_until, 0); /* whatever else computes on this machine */
    once(&c);
    if (r % 64 == 0) {
      struct timespec longer_than_awake = {0, 4000000};
      nanosleep(&longer_than_awake, 0);
    }
  }
  return 0;
}

static int parts(int id, Environment* environment, void* data) {
  if (id == 0) *(int*)data = environment->num_task;
  return 0;
}

static int parts_now(void) {
  int found = 0;
  launch(parts, &found, 0);
  return found;
}

static void expect(int holds) {
  if (!holds) atomic_store(&wrong, 1);
}

/* On a busy machine loops are not cut, for twice as long each time that it still is. Nobody works
 * yet who could see that it is, and times lie ahead, so that it does not matter how long this takes. */
static void look_at_others(void) {
  use(2);
  int64_t time = now(CLOCK_MONOTONIC) + 3600 * (int64_t)1000000000;
  note_contention(time);
  expect(atomic_load(&serial_until) == time + FIRST_HOLD && is_contended(time) && parts_now() == 1);
  note_contention(time); /* it is known already */
  expect(atomic_load(&serial_until) == time + FIRST_HOLD);
  time += FIRST_HOLD;
  note_contention(time);
  expect(atomic_load(&serial_until) == time + 2 * FIRST_HOLD);
  for (int i = 0; i < 10; ++i) {
    time = atomic_load(&serial_until);
    note_contention(time);
  }
  expect(atomic_load(&serial_until) == time + LAST_HOLD);
  time += LAST_HOLD + CALM + 1;
  note_contention(time);
  expect(atomic_load(&serial_until) == time + FIRST_HOLD);
  int found = 0;
  for (int i = 0; i < 1000 && found != 2 * PIECES; ++i) {
    atomic_store(&serial_until, 0);
    found = parts_now();
  }
  expect(found == 2 * PIECES);
}

/* The milliseconds after which a thread that has its core for `on` and loses it for `off`
 * microseconds in turn is found to lose too much; 10,000 or more where it never is. */
static int losing_after(int64_t on, int64_t off) {
  Clocks last = {0, 0, 0};
  int64_t wall = 0, cpu = 0;
  while (wall < 10000 * (int64_t)1000000) {
    wall += (on + off) * 1000;
    cpu += on * 1000;
    if (wall - last.wall >= CHECKED && is_losing(&last, (Clocks){wall, cpu, 0})) break;
  }
  return (int)(wall / 1000000);
}

static void lose_the_core(void) {
  expect(losing_after(1000, 0) >= 10000);
  expect(losing_after(9000, 1000) >= 10000); /* a neighbour of the virtual machine */
  expect(losing_after(40, 10) >= 10000);     /* interrupts */
  expect(losing_after(100000, 2000) >= 10000);
  expect(losing_after(3000, 4000) <= 7); /* a process that computes, at once */
  expect(losing_after(3000, 3000) <= 12);
  expect(losing_after(30, 30) <= 12); /* threads that wake each other */
}

int main(int count, char** arguments) {
  if (count != 3) return 2;
  int callers = atoi(arguments[1]);
  rounds = atoi(arguments[2]);
  if (callers == 1) {
    look_at_others();
    lose_the_core();
  }
  pthread_t threads[MOST_CALLERS];
  for (int i = 0; i < callers; ++i) {
    pthread_create(&threads[i], 0, call, (void*)(intptr_t)(i * 7919 + 1));
  }
  for (int i = 0; i < callers; ++i) pthread_join(threads[i], 0);
  expect(!atomic_load(&taken) && !atomic_load(&published));
  return atomic_load(&wrong);
}
