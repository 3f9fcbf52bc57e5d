// What all kernels share: the table of images, rows of fixed-point fractions, exp and log.
//
// BLOCKS is set by the host when it compiles. A row holds 32 · BLOCKS labels; a cell of it is a fraction of 2^32 - 1 in
// 32 bits. Sums of integers do not depend on the order of their terms, so the answer depends neither on the run nor on
// the other images. Floating-point code is written so that it can only be rounded in one way: the host forbids
// contraction.

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;
typedef u32 Cell;  // of a row: a fraction of 2^32 - 1

#define ROW (32 * BLOCKS)
#define FULL 4294967040.0f   // the largest float below 2^32
#define CORNERS 6            // of a simplex in five dimensions, and as many directions
#define WHOLE 0xFFFFFFFFu    // one, as a fraction of 2^32 - 1
#define UNIT 1073741824.0f   // 2^30: one, where weights are added
#define LOG_RANGE 11.5129255f  // -log of the smallest probability, 1e-5
#define LONG 256             // a vertex with more points is summed by a whole block
#define PROBES 256           // places of the hash table that are tried for one key: more only if it is too small
#define FULL_WARP 0xFFFFFFFFu

struct Image {  // one of the batch; structs.py has the same fields in the same order
    const u8* picture;           // [height, width, 3], RGB
    const float* stencil;        // [rows, width, taps]
    const int* stencil_row;      // [height]
    const int* offsets;          // [taps], in pixels
    i64 taps, height, width;
    i64 pixel;     // its first pixel among those of the batch
    i64 slot;      // its first place in the hash table
    i64 mask;      // its places, less one
    i64 vertex;    // its first vertex among those of the launch
    i64 vertices;
};

struct Status {  // of an image: what the host must know before it goes on
    int vertices;
    int full;          // the hash table was too small
    int out_of_range;  // a coordinate did not fit into its twelve bits
};

struct alignas(16) Quad {
    u32 word[4];
};

struct alignas(16) Weights {
    float of[4];
};

struct alignas(16) Steps {
    int of[4];
};

struct alignas(8) Pair {
    int before, after;
};

struct alignas(8) Blend {
    u32 before, after;
};

struct alignas(8) Edge {
    int point;
    u32 share;
};

// Eight cells from an address that is a multiple of eight cells.
__device__ inline void load8(const Cell* from, u32* cells) {
    const Quad low = *(const Quad*)from, high = *(const Quad*)(from + 4);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        cells[i] = low.word[i];
        cells[i + 4] = high.word[i];
    }
}

// The same cells as floats from 0 to FULL.
__device__ inline void load8(const Cell* from, float* cells) {
    u32 whole[8];
    load8(from, whole);
#pragma unroll
    for (int i = 0; i < 8; ++i) cells[i] = (float)whole[i];
}

__device__ inline void store8(Cell* to, const Cell* cells) {
    Quad low, high;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        low.word[i] = cells[i];
        high.word[i] = cells[i + 4];
    }
    *(Quad*)to = low;
    *(Quad*)(to + 4) = high;
}

// A number from 0 to 1 as a cell.
__device__ inline Cell cell(float fraction) {
    return (Cell)rintf(fminf(fmaxf(fraction, 0.0f), 1.0f) * FULL);
}

// A weight of a point in a vertex, as an integer: from 0 to less than 4.
__device__ inline u64 units(float weight) {
    return (u64)rintf(fmaxf(weight, 0.0f) * UNIT);
}

// e^x for x up to 88: 2^n goes into the exponent, the rest is a Taylor series. Below -87 it is 0.
__device__ inline float exponential(float x) {
    if (!(x > -87.0f)) return 0.0f;
    const float n = rintf(x * 1.44269504f);
    float r = fmaf(n, -0.693359375f, x);  // ln 2 in two parts; n times the first is exact
    r = fmaf(n, 2.12194440e-4f, r);
    float series = 1.0f / 720.0f;
    series = fmaf(series, r, 1.0f / 120.0f);
    series = fmaf(series, r, 1.0f / 24.0f);
    series = fmaf(series, r, 1.0f / 6.0f);
    series = fmaf(series, r, 0.5f);
    series = fmaf(series, r, 1.0f);
    series = fmaf(series, r, 1.0f);
    return series * __int_as_float(((int)n + 127) << 23);
}

// log x for normal x > 0: the exponent, and twice the inverse hyperbolic tangent of what the mantissa leaves.
__device__ inline float logarithm(float x) {
    const int bits = __float_as_int(x);
    const int n = (bits - 0x3F3504F3) >> 23;  // the mantissa lies between the root of one half and the root of two
    const float m = __int_as_float(bits - n * (1 << 23));
    const float s = (m - 1.0f) / (m + 1.0f), q = s * s;
    float series = 2.0f / 9.0f;
    series = fmaf(series, q, 2.0f / 7.0f);
    series = fmaf(series, q, 2.0f / 5.0f);
    series = fmaf(series, q, 2.0f / 3.0f);
    series = fmaf(series, q, 2.0f);
    return fmaf((float)n, 0.693147181f, series * s);
}
