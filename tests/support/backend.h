// What compiled code calls of TVM's runtime, without TVM: workspace, and tasks one after the other.

#ifndef GRAPHKILN_TESTS_BACKEND_H
#define GRAPHKILN_TESTS_BACKEND_H

#include <stdint.h>
#include <stdlib.h>

enum { kTasks = 3 };

typedef struct {
  void* sync_handle;
  int32_t num_task;
} Group;

static void* allocate(int device, int id, uint64_t size, int code, int bits) {
  (void)device, (void)id, (void)code, (void)bits;
  return aligned_alloc(64, (size + 127) / 64 * 64);
}

static int release(int device, int id, void* memory) {
  (void)device, (void)id;
  free(memory);
  return 0;
}

static int launch(int (*task)(int, Group*, void*), void* data, int count) {
  Group group = {NULL, count > 0 ? count : kTasks};
  for (int i = 0; i < group.num_task; ++i) {
    if (task(i, &group, data) != 0) return -1;
  }
  return 0;
}

#endif
