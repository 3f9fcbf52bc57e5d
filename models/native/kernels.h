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

/* How many of the `count` bytes from `at` on equal the first; count is at least 1. */
static inline int64_t run_length(const uint8_t *at, int64_t count) {
    int64_t length = 1;
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    const uint64_t same = at[0] * UINT64_C(0x0101010101010101);
    for (; length + 8 <= count; length += 8) {
        uint64_t eight;
        memcpy(&eight, at + length, 8);
        if (eight != same)
            return length + (__builtin_ctzll(eight ^ same) >> 3);
    }
#endif
    while (length < count && at[length] == at[0])
        length++;
    return length;
}

#endif
