// Scores on the patch grid to probabilities for the CRF, and the CRF's rows to labels at any size.
// The twins of models/assign.py, in its arithmetic. One thread has one pixel of the answer; blockIdx.y is the image.

struct Grid {  // one of the batch; structs.py has the same fields in the same order
    const float* scores;    // [K, height, width]
    const float* products;  // [5, height, width], see products(); null where lengths do not matter
    u8* labels;             // [rows, columns]
    i64 height, width;      // of the grid
    i64 rows, columns;      // of the answer
    double top, left, down, across;  // the part of the grid that the answer shows, as fractions
    i64 nearest;                     // 1: a pixel has the values of its cell, nothing between two
};

struct Corner {  // where an answer's pixel lies on an axis of the grid
    i64 low, high;
    float weight;  // of the high one
};

__device__ inline Corner corner(i64 index, i64 size, i64 cells, double start, double extent, i64 nearest) {
    double at = (((double)index + 0.5) / (double)size * extent + start) * (double)cells - (nearest ? 0.0 : 0.5);
    at = fmin(fmax(at, 0.0), (double)(cells - 1));
    const double whole = rint(at);
    if (!nearest && fabs(at - whole) < 1e-9) at = whole;  // a place of the grid is one, rounding or not
    Corner corner;
    corner.low = (i64)at;
    corner.high = nearest || corner.low + 1 >= cells ? corner.low : corner.low + 1;
    corner.weight = nearest ? 0.0f : (float)(at - (double)corner.low);
    return corner;
}

__device__ inline Corner row_of(const Grid& grid, i64 index, i64 size) {
    return corner(index, size, grid.height, grid.top, grid.down, grid.nearest);
}

__device__ inline Corner column_of(const Grid& grid, i64 index, i64 size) {
    return corner(index, size, grid.width, grid.left, grid.across, grid.nearest);
}

__device__ inline float mix(float falling, float lower, float right, float lowest, float down, float across) {
    const float left = falling + (lower - falling) * down;
    const float other = right + (lowest - right) * down;
    return left + (other - left) * across;
}

// The best label of every pixel of the answer, from rows of marginals at the CRF's size; the lower id wins a tie.
extern "C" __global__ void label_rows(
    const Image* __restrict__ images, const Grid* __restrict__ grids, const Cell* __restrict__ rows, int labels)
{
    const Grid grid = grids[blockIdx.y];
    const i64 p = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (p >= grid.rows * grid.columns) return;
    const Corner y = row_of(grid, p / grid.columns, grid.rows);
    const Corner x = column_of(grid, p % grid.columns, grid.columns);
    const Cell* upper = rows + (images[blockIdx.y].pixel + y.low * grid.width) * ROW;
    const Cell* lower = rows + (images[blockIdx.y].pixel + y.high * grid.width) * ROW;
    float best = -1.0f;
    int winner = 0;
#pragma unroll
    for (int part = 0; part < ROW; part += 8) {
        float a[8], b[8], c[8], d[8];
        load8(upper + x.low * ROW + part, a);
        load8(lower + x.low * ROW + part, b);
        load8(upper + x.high * ROW + part, c);
        load8(lower + x.high * ROW + part, d);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const float marginal = mix(a[i], b[i], c[i], d[i], y.weight, x.weight);
            if (part + i < labels && marginal > best) {
                best = marginal;
                winner = part + i;
            }
        }
    }
    grid.labels[p] = (u8)winner;
}

// Dot products of neighboring codes [dim, height, width]: with itself, the right, the lower, the lower right one, and of
// the lower with the right one. The length of any interpolated code follows from them. One thread has one grid cell.
extern "C" __global__ void products(const float* __restrict__ code, float* maps, i64 dim, i64 height, i64 width) {
    const i64 cells = height * width, p = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (p >= cells) return;
    const i64 beside = p % width + 1 < width ? 1 : 0, below = p / width + 1 < height ? width : 0;
    float own = 0.0f, right = 0.0f, under = 0.0f, falling = 0.0f, rising = 0.0f;
    for (i64 d = 0; d < dim; ++d) {
        const float* map = code + d * cells + p;
        const float a = map[0], b = map[beside], c = map[below], e = map[below + beside];
        own = fmaf(a, a, own);
        right = fmaf(a, b, right);
        under = fmaf(a, c, under);
        falling = fmaf(a, e, falling);
        rising = fmaf(c, b, rising);
    }
    maps[p] = own;
    maps[cells + p] = right;
    maps[2 * cells + p] = under;
    maps[3 * cells + p] = falling;
    maps[4 * cells + p] = rising;
}

__device__ inline float length(const Grid& grid, const Corner& y, const Corner& x) {
    const i64 cells = grid.height * grid.width;
    const i64 nw = y.low * grid.width + x.low, ne = y.low * grid.width + x.high;
    const i64 sw = y.high * grid.width + x.low, se = y.high * grid.width + x.high;
    const float *own = grid.products, *right = own + cells, *under = own + 2 * cells;
    const float *falling = own + 3 * cells, *rising = own + 4 * cells;
    const float u = y.weight, v = x.weight, u1 = 1.0f - u, v1 = 1.0f - v;
    float squared = u1 * u1 * (v1 * v1 * own[nw] + v * v * own[ne]);
    squared += u * u * (v1 * v1 * own[sw] + v * v * own[se]);
    squared += 2.0f * v * v1 * (u1 * u1 * right[nw] + u * u * right[sw]);
    squared += 2.0f * u * u1 * (v1 * v1 * under[nw] + v * v * under[ne]);
    squared += 2.0f * u * v * u1 * v1 * (falling[nw] + rising[nw]);
    return sqrtf(fmaxf(squared, 0.0f));
}

// Unary and first marginals from scores: softmax over the clusters of temperature · similarity.
extern "C" __global__ void enter_scores(
    const Image* __restrict__ images, const Grid* __restrict__ grids, Cell* unary, float* steps, Cell* rows,
    int labels, float temperature)
{
    const Image image = images[blockIdx.y];
    const Grid grid = grids[blockIdx.y];
    const i64 p = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (p >= image.height * image.width) return;
    const Corner y = row_of(grid, p / image.width, image.height);
    const Corner x = column_of(grid, p % image.width, image.width);
    const float size = grid.products ? fmaxf(length(grid, y, x), 1e-10f) : 1.0f;
    const i64 cells = grid.height * grid.width;
    float values[ROW], top = -3e38f, sum = 0.0f;
#pragma unroll
    for (int c = 0; c < ROW; ++c) {
        values[c] = 0.0f;
        if (c < labels) {
            const float* upper = grid.scores + c * cells + y.low * grid.width;
            const float* lower = grid.scores + c * cells + y.high * grid.width;
            const float score = mix(upper[x.low], lower[x.low], upper[x.high], lower[x.high], y.weight, x.weight);
            values[c] = temperature * (score / size);
            top = fmaxf(top, values[c]);
        }
    }
#pragma unroll
    for (int c = 0; c < ROW; ++c)
        if (c < labels) sum += exponential(values[c] - top);
    top += logarithm(sum);
#pragma unroll
    for (int c = 0; c < ROW; ++c) values[c] = fminf(top - values[c], LOG_RANGE);
    begin(values, labels, unary + (image.pixel + p) * ROW, steps + image.pixel + p, rows + (image.pixel + p) * ROW);
}
