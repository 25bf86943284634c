// Runs kernels that are linked into it, without TVM: reads calls from the file that its argument
// names, and writes their results to standard output.
//
// A call is int64 words (kernel, tensors, results, scalars), then the tensors, each as words (type
// code, bits, rank, extents, bytes) and its data, then the scalars. The last tensors are results.
// Every tensor ends where unmapped memory begins, so that a kernel that reads on is stopped.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <tvm/ffi/c_api.h>

#include "backend.h"

enum { kMaxArguments = 32, kMaxRank = 16 };

typedef int (*Kernel)(void*, const TVMFFIAny*, int32_t, TVMFFIAny*);
extern Kernel kernel_table[];

void* (*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = allocate;
int (*__TVMBackendFreeWorkspace)(int, int, void*) = release;
int (*__TVMBackendParallelLaunch)(int (*)(int, Group*, void*), void*, int) = launch;

static void fail(const char* reason, int64_t kernel) {
  fprintf(stderr, "kernel %lld: %s\n", (long long)kernel, reason);
  exit(1);
}

static void take(FILE* file, void* to, size_t size) {
  if (size > 0 && fread(to, 1, size, file) != size) fail("the file of calls ends early", -1);
}

static int64_t word(FILE* file) {
  int64_t value;
  take(file, &value, sizeof value);
  return value;
}

static void* guarded(size_t size) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE), whole = (size + page - 1) / page * page;
  int flags = MAP_PRIVATE | MAP_ANONYMOUS;
  char* memory = mmap(NULL, whole + page, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory + whole, page, PROT_NONE) != 0) {
    fail("no memory", -1);
  }
  return memory + whole - size;
}

int main(int count, char** arguments) {
  FILE* file = count == 2 ? fopen(arguments[1], "rb") : NULL;
  if (file == NULL) fail("no file of calls", -1);
  for (int64_t calls = word(file); calls > 0; --calls) {
    int64_t kernel = word(file), tensors = word(file), results = word(file), scalars = word(file);
    if (tensors + scalars > kMaxArguments) fail("too many arguments", kernel);
    DLTensor headers[kMaxArguments] = {0};
    int64_t shapes[kMaxArguments][kMaxRank], sizes[kMaxArguments];
    TVMFFIAny values[kMaxArguments] = {0}, result = {0};
    for (int64_t i = 0; i < tensors; ++i) {
      DLTensor* t = &headers[i];
      t->dtype.code = (uint8_t)word(file);
      t->dtype.bits = (uint8_t)word(file);
      t->dtype.lanes = 1;
      t->device.device_type = kDLCPU;
      t->ndim = (int32_t)word(file);
      if (t->ndim > kMaxRank) fail("too many dims", kernel);
      for (int d = 0; d < t->ndim; ++d) shapes[i][d] = word(file);
      t->shape = shapes[i];
      sizes[i] = word(file);
      t->data = guarded((size_t)sizes[i]);
      take(file, t->data, (size_t)sizes[i]);
      values[i].type_index = kTVMFFIDLTensorPtr;
      values[i].v_ptr = t;
    }
    for (int64_t i = 0; i < scalars; ++i) {
      values[tensors + i].type_index = kTVMFFIInt;
      values[tensors + i].v_int64 = word(file);
    }
    if (kernel_table[kernel](NULL, values, (int32_t)(tensors + scalars), &result) != 0) {
      fail("it returned an error", kernel);
    }
    for (int64_t i = tensors - results; i < tensors; ++i) {
      fwrite(headers[i].data, 1, (size_t)sizes[i], stdout);
    }
  }
  return fflush(stdout) == 0 ? 0 : 1;
}
