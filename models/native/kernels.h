/* What the kernels share: how functions are exported and compiled for the processor at hand.
 *
 * Plain C functions for ctypes (models/native/bindings.py): no Python.h, so one build fits every Python, and the
 * interpreter's lock is free while they run. Arrays are contiguous and of the sizes named; the caller has checked them.
 */
#ifndef TESSERA_KERNELS_H
#define TESSERA_KERNELS_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(_WIN32)
#define PUBLIC __declspec(dllexport)
#else
#define PUBLIC __attribute__((visibility("default")))
#endif

/* One build for every x86-64 processor: the loader picks the widest vectors. It needs glibc's ifunc. */
#if defined(__x86_64__) && defined(__GLIBC__) && (!defined(__clang__) || __clang_major__ >= 14)
#define WIDEST __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define WIDEST
#endif

#define LANES 16 /* values done at once: what the widest vectors hold of floats */

#endif
