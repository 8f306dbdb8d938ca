/* What a compiled network offers to whoever loads it: a table, for the best level that this CPU has or for a named one. */
#ifndef FC_LIBRARY_H
#define FC_LIBRARY_H

#include <stddef.h>
#include <stdint.h>

#define FC_LIBRARY_VERSION 2

/* What is run, in one argument: a call from another language takes longer for each. */
struct fcdeploy_run {
    const void *const *inputs; /* `count` samples, one behind the other in each input and output */
    void *const *outputs;
    void *arena;
    size_t count;
};

struct fcdeploy_native {
    uint32_t version, steps; /* FC_LIBRARY_VERSION, and how many steps one run has */
    const char *level;       /* the instructions that are used */
    const char *description; /* JSON: inputs, outputs, steps */
    size_t arena_bytes;      /* aligned to 64 bytes; nothing in it is kept */
    void (*run)(const struct fcdeploy_run *run);
    /* Steps from `first` to before `last` of one sample. */
    void (*some)(int32_t first, int32_t last, const void *const *inputs, void *const *outputs, void *arena);
};

/* NULL where this CPU has no such level; of the best one with level == NULL. */
const struct fcdeploy_native *fcdeploy_native(const char *level);

#endif
