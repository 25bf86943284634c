// Runs the native code of an artifact once, without TVM and Python: loads the library that its
// first argument names, with the weights from the second and the rest from the third, and writes
// the outputs to standard output. It does what graphkiln.runtime.direct does, see there.
//
// The third file holds int64 words: how many words, fixups, inputs and outputs there are, and the
// number of the word for signals; the frame's template; the fixups; each input's rank, dims, bytes
// and data; and each output's rank and bytes of an element.

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <tvm/ffi/c_api.h>

#include "backend.h"

enum { kStatus, kFrame, kScratch, kWeights, kScratchBytes, kFirst };

typedef int (*Function)(void*, const TVMFFIAny*, int32_t, TVMFFIAny*);

static void fail(const char* reason) {
  fprintf(stderr, "%s\n", reason);
  exit(1);
}

// What the library calls of TVM.

int TVMFFIEnvCheckSignals(void) { return 0; }

void TVMFFIErrorSetRaisedFromCStrParts(const char* kind, const char** parts, int32_t count) {
  fprintf(stderr, "%s: ", kind);
  for (int32_t i = 0; i < count; ++i) fputs(parts[i], stderr);
}

static void provide(void* library, const char* name, void* function) {
  void** place = dlsym(library, name);
  if (place != NULL) *place = function;
}

static void* load(const char* path) {
  void* library = dlopen(path, RTLD_NOW);
  if (library == NULL) fail(dlerror());
  provide(library, "__TVMBackendAllocWorkspace", allocate);
  provide(library, "__TVMBackendFreeWorkspace", release);
  provide(library, "__TVMBackendParallelLaunch", launch);
  return library;
}

static void call(void* library, const char* name, int64_t* frame, int64_t words) {
  DLTensor tensor = {frame, {kDLCPU, 0}, 1, {kDLInt, 64, 1}, &words, NULL, 0};
  TVMFFIAny argument = {0}, result = {0};
  argument.type_index = kTVMFFIDLTensorPtr;
  argument.v_ptr = &tensor;
  Function function = (Function)dlsym(library, name);
  if (function == NULL || function(NULL, &argument, 1, &result) != 0) fail(name);
  if (frame[kStatus] != 0) fail("the code left a status that is not zero");
}

static void take(FILE* file, void* to, size_t size) {
  if (size > 0 && fread(to, 1, size, file) != size) fail("the file ends early");
}

static int64_t word(FILE* file) {
  int64_t value;
  take(file, &value, sizeof value);
  return value;
}

static int64_t memory(int64_t size) { return (int64_t)(intptr_t)allocate(0, 0, size, 0, 0); }

static int64_t whole_file(const char* path) {
  FILE* file = fopen(path, "rb");
  if (file == NULL || fseek(file, 0, SEEK_END) != 0) fail(path);
  long size = ftell(file);
  rewind(file);
  int64_t content = memory(size);
  take(file, (void*)(intptr_t)content, (size_t)size);
  fclose(file);
  return content;
}

// Adds what is at fixups' second words to their first; addresses come before what adds to them.
static void fix(int64_t* frame, const int64_t* fixups, int64_t count) {
  for (int addresses = 1; addresses >= 0; --addresses) {
    for (int64_t i = 0; i < count; ++i) {
      int64_t added = fixups[2 * i + 1];
      if ((added >= kFrame && added <= kWeights) == addresses) frame[fixups[2 * i]] += frame[added];
    }
  }
}

int main(int count, char** arguments) {
  FILE* file = count == 4 ? fopen(arguments[3], "rb") : NULL;
  if (file == NULL) fail("usage: artifact_runner LIBRARY WEIGHTS RUN");
  void* library = load(arguments[1]);
  int64_t words = word(file), fixup_count = word(file), inputs = word(file), outputs = word(file);
  int64_t stop = word(file), quiet = 0;
  int64_t* frame = (int64_t*)(intptr_t)memory(8 * words);
  int64_t* fixups = (int64_t*)(intptr_t)memory(16 * fixup_count);
  int64_t* held = (int64_t*)(intptr_t)memory(8 * inputs);
  take(file, frame, 8 * words);
  take(file, fixups, 16 * fixup_count);
  frame[kFrame] = (intptr_t)frame;
  frame[kWeights] = whole_file(arguments[2]);
  frame[stop] = (intptr_t)&quiet;
  int64_t at = kFirst + inputs + outputs;
  for (int64_t i = 0; i < inputs; ++i) {
    for (int64_t rank = word(file); rank > 0; --rank) frame[at++] = word(file);
    int64_t size = word(file);
    held[i] = memory(size);
    take(file, (void*)(intptr_t)held[i], (size_t)size);
  }
  call(library, "__tvm_ffi_graphkiln_plan", frame, words);
  frame[kScratch] = memory(frame[kScratchBytes]);
  fix(frame, fixups, fixup_count);
  for (int64_t i = 0; i < inputs; ++i) frame[kFirst + i] = held[i];
  int64_t* sizes = (int64_t*)(intptr_t)memory(8 * outputs);
  for (int64_t i = 0; i < outputs; ++i) {
    int64_t rank = word(file);
    for (sizes[i] = word(file); rank > 0; --rank) sizes[i] *= frame[at++];
    frame[kFirst + inputs + i] = memory(sizes[i]);
  }
  call(library, "__tvm_ffi_graphkiln_run", frame, words);
  for (int64_t i = 0; i < outputs; ++i) {
    fwrite((void*)(intptr_t)frame[kFirst + inputs + i], 1, (size_t)sizes[i], stdout);
  }
  return fflush(stdout) == 0 ? 0 : 1;
}
