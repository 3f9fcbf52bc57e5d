// Mean field on the lattice of lattice.cu: splat, blur, update. See models/crf/cpu/mean_field.py for the method.
//
// A lattice row holds the mean of the marginals of its points, weighted by their shares, not their sum: every cell is a
// fraction of one.

// Eight labels of a pixel or vertex are one lane's; four neighboring lanes have a block of 32, and take the blocks in
// turn.

// The unary of one pixel, in a thread of its own: values are minus the log-probabilities. What all labels have in common
// makes no difference, so a cell is the part above the least, in steps of the pixel's own size.
__device__ inline void begin(float* values, int labels, Cell* unary, float* step, Cell* rows) {
    Cell cells[8];
    float least = values[0], most = values[0], sum = 0.0f;
#pragma unroll
    for (int c = 1; c < ROW; ++c)
        if (c < labels) {
            least = fminf(least, values[c]);
            most = fmaxf(most, values[c]);
        }
    const float range = fmaxf(most - least, 1e-20f);
    *step = range / FULL;
#pragma unroll
    for (int c = 0; c < ROW; ++c) {
        const Cell energy = c < labels ? cell((values[c] - least) / range) : 0;
        cells[c % 8] = energy;
        if (c % 8 == 7) store8(unary + c - 7, cells);
        values[c] = c < labels ? exponential((float)energy * -*step) : 0.0f;
        sum += values[c];
    }
    const float scale = 1.0f / sum;
#pragma unroll
    for (int c = 0; c < ROW; ++c) {
        cells[c % 8] = cell(values[c] * scale);
        if (c % 8 == 7) store8(rows + c - 7, cells);
    }
}

// What one block of 32 labels of a vertex gathers from the edges start, start + step, ...: a warp works on it together,
// each four lanes on an edge of their own. Comes back: the sum of one label, cell_of_lane's.
__device__ inline u32 gather(
    const Edge* __restrict__ edges, const Cell* __restrict__ rows, i64 start, i64 stop, i64 step, int block)
{
    const int lane = threadIdx.x & 31;
    u32 sums[8] = {};
#pragma unroll 4
    for (i64 e = start + (lane >> 2); e < stop; e += step) {
        const Edge edge = edges[e];
        u32 cells[8];
        load8(rows + (i64)edge.point * ROW + 32 * block + 8 * (lane & 3), cells);
#pragma unroll
        for (int i = 0; i < 8; ++i) sums[i] += __umulhi(cells[i], edge.share);
    }
#pragma unroll
    for (int half = 4; half > 0; half >>= 1) {  // lanes exchange halves: eight sums of a part become one of the whole
        const bool upper = lane & (4 * half);
#pragma unroll
        for (int i = 0; i < half; ++i) {
            const u32 given = upper ? sums[i] : sums[i + half], kept = upper ? sums[i + half] : sums[i];
            sums[i] = kept + __shfl_xor_sync(FULL_WARP, given, 4 * half);
        }
    }
    return sums[0];
}

__device__ inline int cell_of_lane() {
    const int lane = threadIdx.x & 31;
    return 8 * (lane & 3) + (lane & 16 ? 4 : 0) + (lane & 8 ? 2 : 0) + (lane & 4 ? 1 : 0);
}

// Vertices gather their points. Eight warps in a block: the first `helpers` blocks of an image take its long lists, all
// eight warps one list; in the others each warp takes a vertex.
extern "C" __global__ void splat(
    const Image* __restrict__ images, const Edge* __restrict__ edges, const int* __restrict__ first,
    const int* __restrict__ degree, const int* __restrict__ longs, const int* __restrict__ long_counts,
    const Cell* __restrict__ rows, Cell* values, int helpers)
{
    __shared__ u32 parts[8][32];
    const Image image = images[blockIdx.y];
    const int warp = threadIdx.x >> 5, own = cell_of_lane();
    if ((int)blockIdx.x < helpers) {
        const i64 tasks = (i64)long_counts[blockIdx.y] * BLOCKS;
        for (i64 task = blockIdx.x; task < tasks; task += helpers) {
            const int v = longs[long_list(image, blockIdx.y) + task / BLOCKS], block = (int)(task % BLOCKS);
            const i64 start = first[v];
            parts[warp][own] = gather(edges, rows, start + 8 * warp, start + degree[v], 64, block);
            __syncthreads();
            if (warp == 0) {
                u32 sum = 0;
#pragma unroll
                for (int w = 0; w < 8; ++w) sum += parts[w][own];
                values[(i64)v * ROW + 32 * block + own] = sum;
            }
            __syncthreads();
        }
        return;
    }
    const i64 task = (i64)(blockIdx.x - helpers) * 8 + warp;
    if (task >= image.vertices * BLOCKS) return;
    const i64 v = image.vertex + task / BLOCKS;
    const int block = (int)(task % BLOCKS), count = degree[v];
    if (count > LONG) return;
    const u32 sum = gather(edges, rows, first[v], (i64)first[v] + count, 8, block);
    values[v * ROW + 32 * block + own] = sum;
}

// Rows are mixed with those of their neighbors along one direction. One thread has eight labels of one vertex.
extern "C" __global__ void blur(
    const Pair* __restrict__ pairs, const Blend* __restrict__ blends, const Cell* __restrict__ from, Cell* to,
    i64 total)
{
    const i64 task = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    const i64 v = task / (ROW / 8);
    if (v >= total) return;
    const int part = 8 * (int)(task % (ROW / 8));
    const Pair pair = pairs[v];
    const Blend blend = blends[v];
    u32 here[8], before[8] = {}, after[8] = {};
    load8(from + v * ROW + part, here);
    if (blend.before | blend.after) {
        if (blend.before) load8(from + (i64)pair.before * ROW + part, before);
        if (blend.after) load8(from + (i64)pair.after * ROW + part, after);
        const u32 rest = WHOLE - blend.before - blend.after;
#pragma unroll
        for (int i = 0; i < 8; ++i)
            here[i] = __umulhi(rest, here[i]) + __umulhi(blend.before, before[i]) + __umulhi(blend.after, after[i]);
    }
    store8(to + v * ROW + part, here);
}

// New marginals of every pixel: unary, Gaussian message, bilateral message, softmax. Four lanes have one pixel.
// gaussian   weight of the Gaussian message, over FULL;  messages 0: the unary alone
extern "C" __global__ void update(
    const Image* __restrict__ images, const int* __restrict__ vertex, const float* __restrict__ weight,
    const Cell* __restrict__ values, const Cell* __restrict__ unary, const float* __restrict__ steps,
    const Cell* __restrict__ from, Cell* to, float gaussian, int labels, int messages)
{
    const Image image = images[blockIdx.y];
    const int width = (int)image.width, pixels = (int)image.height * width, taps = (int)image.taps;
    const int wanted = blockIdx.x * (blockDim.x / 4) + threadIdx.x / 4;
    if (wanted - threadIdx.x / 4 >= pixels) return;
    const bool real = wanted < pixels;
    const int p = real ? wanted : pixels - 1;  // lanes beyond the end help with the last pixel, and write nothing
    const int lane = threadIdx.x & 3;
    const Cell* rows = from + image.pixel * ROW;
    const float* stencil = image.stencil + ((i64)image.stencil_row[p / width] * width + p % width) * taps;

    const float step = steps[image.pixel + p];
    float a[8 * BLOCKS], top = -1e30f;
#pragma unroll
    for (int b = 0; b < BLOCKS; ++b) {
        const int part = 32 * b + 8 * lane;
        float near[8] = {}, far[8] = {}, cells[8];
        if (messages) {
            for (int t = 0; t < taps; t += 4) {  // a whole number of fours; the last may weigh nothing
                const Weights weights = *(const Weights*)(stencil + t);
                const Steps offsets = *(const Steps*)(image.offsets + t);
#pragma unroll
                for (int f = 0; f < 4; ++f) {
                    int q = p + offsets.of[f];
                    q = q < 0 ? 0 : q < pixels ? q : pixels - 1;  // its weight is zero there
                    load8(rows + (i64)q * ROW + part, cells);
#pragma unroll
                    for (int i = 0; i < 8; ++i) near[i] = fmaf(weights.of[f], cells[i], near[i]);
                }
            }
#pragma unroll
            for (int r = 0; r < CORNERS; ++r) {
                const i64 e = CORNERS * (image.pixel + p) + r;
                load8(values + (i64)vertex[e] * ROW + part, cells);
#pragma unroll
                for (int i = 0; i < 8; ++i) far[i] = fmaf(weight[e], cells[i], far[i]);
            }
        }
        load8(unary + (image.pixel + p) * ROW + part, cells);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const float logit = fmaf(gaussian, near[i], fmaf(-step, cells[i], far[i]));
            a[8 * b + i] = part + i < labels ? logit : -1e30f;
            top = fmaxf(top, a[8 * b + i]);
        }
    }

    top = fmaxf(top, __shfl_xor_sync(FULL_WARP, top, 1));
    top = fmaxf(top, __shfl_xor_sync(FULL_WARP, top, 2));
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 8 * BLOCKS; ++i) {
        a[i] = exponential(a[i] - top);
        sum += a[i];
    }
    sum += __shfl_xor_sync(FULL_WARP, sum, 1);
    sum += __shfl_xor_sync(FULL_WARP, sum, 2);
    const float scale = 1.0f / sum;
    if (!real) return;
#pragma unroll
    for (int b = 0; b < BLOCKS; ++b) {
        const int part = 32 * b + 8 * lane;
        Cell cells[8];
#pragma unroll
        for (int i = 0; i < 8; ++i) cells[i] = cell(a[8 * b + i] * scale);
        store8(to + (image.pixel + p) * ROW + part, cells);
    }
}
