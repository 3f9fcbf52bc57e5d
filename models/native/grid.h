/* What is asked of score maps on the patch grid by more than one kernel. */
#ifndef TESSERA_GRID_H
#define TESSERA_GRID_H

#include "kernels.h"

#include <float.h>

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef uint8_t bytes __attribute__((vector_size(LANES)));

static inline __attribute__((always_inline)) floats choose(ints where, floats this, floats that) {
    return (floats)((where & (ints)this) | (~where & (ints)that));
}

static inline float smaller(float a, float b) { return a < b ? a : b; }
static inline float larger(float a, float b) { return a > b ? a : b; }

/* Largest magnitude as its bits: above those of 1e37 lie infinities and NaN too. */
WIDEST static int32_t magnitude_bits(const float *values, int64_t count) {
    int32_t most = 0;
    for (int64_t i = 0; i < count; i++) {
        int32_t bits;
        memcpy(&bits, values + i, 4);
        bits &= 0x7fffffff;
        most = bits > most ? bits : most;
    }
    return most;
}

/* to [n, stride] = from [k, n] turned, the last stride - k of each -FLT_MAX; stride is a multiple of LANES. */
WIDEST static void turn(const float *from, int64_t k, int64_t n, int64_t stride, float *to) {
    for (int64_t i0 = 0; i0 < n; i0 += LANES) {
        const int64_t count = n - i0 < LANES ? n - i0 : LANES;
        for (int64_t c0 = 0; c0 < stride; c0 += LANES) {
            float block[LANES][LANES];
            const float *corner = from + c0 * n + i0;
            if (count == LANES && c0 + LANES <= k)
                for (int64_t c = 0; c < LANES; c++)
                    for (int64_t i = 0; i < LANES; i++)
                        block[i][c] = corner[c * n + i];
            else
                for (int64_t c = 0; c < LANES; c++)
                    for (int64_t i = 0; i < count; i++)
                        block[i][c] = c0 + c < k ? corner[c * n + i] : -FLT_MAX;
            for (int64_t i = 0; i < count; i++)
                memcpy(to + (i0 + i) * stride + c0, block[i], sizeof block[i]);
        }
    }
}

#endif
