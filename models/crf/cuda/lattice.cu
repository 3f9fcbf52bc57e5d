// The permutohedral lattice of several photos, built on the device. See models/crf/cpu/lattice.py for what it is.
//
// Every photo has its own hash table and its own vertices; which number a vertex gets differs from run to run, and no
// answer depends on it. One thread has one pixel, one place of the table, or one vertex; blockIdx.y is the image.

__device__ inline u64 step_along(int axis) {  // to the next vertex in a direction, as a difference of keys
    u64 step = 0;
#pragma unroll
    for (int i = 0; i < 5; ++i) step += 1ull << (12 * i);
    return axis < 5 ? step - (6ull << (12 * axis)) : step;
}

__device__ inline i64 first_place(u64 key, i64 mask) {
    return (i64)((key * 0x9E3779B97F4A7C15ull) >> 32) & mask;
}

// The corners and barycentric weights of every pixel. `vertex` receives places in the hash table, not yet vertices.
extern "C" __global__ void embed(
    const Image* __restrict__ images, u64* table, int* ids, int* vertex, float* weight, Status* status, float sxy,
    float srgb)
{
    __shared__ int found, base;
    const Image image = images[blockIdx.y];
    const i64 pixels = image.height * image.width;
    if ((i64)blockIdx.x * blockDim.x >= pixels) return;
    if (threadIdx.x == 0) found = 0;
    __syncthreads();

    const i64 p = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    int place[CORNERS];
    u32 won = 0;
    if (p < pixels) {
        const i64 y = p / image.width, x = p % image.width;
        const u8* rgb = image.picture + 3 * p;
        const float features[5] = {
            (float)x / sxy, (float)y / sxy, (float)rgb[2] / srgb, (float)rgb[1] / srgb, (float)rgb[0] / srgb};

        float at[CORNERS], above = 0.0f;  // on the plane of coordinates that sum to zero
#pragma unroll
        for (int i = 5; i > 0; --i) {
            const float scale = (float)(sqrt(2.0 / 3.0) * 6.0 / sqrt(i * (i + 1.0)));
            const float f = features[i - 1] * scale;
            at[i] = above - (float)i * f;
            above += f;
        }
        at[0] = above;

        int near[CORNERS], rank[CORNERS], excess = 0;
        bool fits = true;
#pragma unroll
        for (int i = 0; i < CORNERS; ++i) {
            const float whole = rintf(at[i] * (float)(1.0 / 6.0));
            fits = fits && fabsf(whole) * 6.0f <= 2036.0f;  // twelve bits, less two steps at each end
            near[i] = fits ? (int)whole * 6 : 0;
            excess += near[i] / 6;
            rank[i] = 0;
        }
#pragma unroll
        for (int i = 0; i < 5; ++i)
#pragma unroll
            for (int j = i + 1; j < CORNERS; ++j) {
                const bool less = at[i] - (float)near[i] < at[j] - (float)near[j];
                rank[i] += less;
                rank[j] += !less;
            }
        float bary[CORNERS + 1] = {};
        u64 key = 0;
#pragma unroll
        for (int i = 0; i < CORNERS; ++i) {
            rank[i] += excess;  // rounding may leave the plane: the largest or smallest differences step back
            if (rank[i] < 0) {
                rank[i] += 6;
                near[i] += 6;
            } else if (rank[i] > 5) {
                rank[i] -= 6;
                near[i] -= 6;
            }
            if (i < 5) key += (u64)(near[i] + 2048) << (12 * i);
            const float difference = (at[i] - (float)near[i]) * (float)(1.0 / 6.0);
#pragma unroll
            for (int r = 0; r < CORNERS + 1; ++r) {  // indices known when compiling: registers, not memory
                if (r == 5 - rank[i]) bary[r] += difference;
                if (r == 6 - rank[i]) bary[r] -= difference;
            }
        }
        bary[0] += 1.0f + bary[6];

        if (!fits) status[blockIdx.y].out_of_range = 1;
#pragma unroll
        for (int r = 0; r < CORNERS; ++r) {
            i64 slot = first_place(key, image.mask);
            if (fits) {
                int tries = 0;
                for (; tries < PROBES; ++tries, slot = (slot + 1) & image.mask) {
                    u64* const here = table + image.slot + slot;
                    u64 held = *(volatile u64*)here;
                    if (held == 0) held = atomicCAS(here, 0ull, key);
                    if (held == 0) won |= 1u << r;
                    if (held == 0 || held == key) break;
                }
                if (tries == PROBES) status[blockIdx.y].full = 1;
            }
            place[r] = (int)slot;
            vertex[CORNERS * (image.pixel + p) + r] = (int)slot;
            weight[CORNERS * (image.pixel + p) + r] = bary[r];
            key += step_along(5);
#pragma unroll
            for (int i = 0; i < 5; ++i)
                if (rank[i] == 5 - r) key -= 6ull << (12 * i);
        }
    }

    const int mine = __popc(won);
    int number = mine ? atomicAdd(&found, mine) : 0;
    __syncthreads();
    if (threadIdx.x == 0) base = found ? atomicAdd(&status[blockIdx.y].vertices, found) : 0;
    __syncthreads();
#pragma unroll
    for (int r = 0; r < CORNERS; ++r)
        if (won >> r & 1) ids[image.slot + place[r]] = base + number++;
}

// Places become vertices; how many points a vertex has, and the sum of their weights.
extern "C" __global__ void connect(
    const Image* __restrict__ images, const int* ids, int* vertex, const float* weight, int* degree, u64* mass)
{
    const Image image = images[blockIdx.y];
    const i64 p = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (p >= image.height * image.width) return;
#pragma unroll
    for (int r = 0; r < CORNERS; ++r) {
        const i64 e = CORNERS * (image.pixel + p) + r;
        const int v = (int)(image.vertex + ids[image.slot + vertex[e]]);
        vertex[e] = v;
        atomicAdd(&degree[v], 1);
        atomicAdd(&mass[v], units(weight[e]));
    }
}

// The neighbors of every vertex: pairs [6, total], -1 where there is none (set by the host before).
extern "C" __global__ void join(
    const Image* __restrict__ images, const u64* __restrict__ table, const int* __restrict__ ids, Pair* pairs,
    i64 total)
{
    const Image image = images[blockIdx.y];
    const i64 own = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (own > image.mask) return;
    const u64 key = table[image.slot + own];
    if (key == 0) return;
    const int v = (int)(image.vertex + ids[image.slot + own]);
#pragma unroll
    for (int axis = 0; axis < CORNERS; ++axis) {
        const u64 wanted = key + step_along(axis);
        i64 slot = first_place(wanted, image.mask);
        u64 held = table[image.slot + slot];
        while (held != wanted && held != 0) {
            slot = (slot + 1) & image.mask;
            held = table[image.slot + slot];
        }
        if (held == 0) continue;
        const int u = (int)(image.vertex + ids[image.slot + slot]);
        pairs[axis * total + v].after = u;
        pairs[axis * total + u].before = v;
    }
}

__device__ inline float mass_of(const u64* mass, const float* from, int v) {
    return v < 0 ? 0.0f : mass ? (float)mass[v] / UNIT : from[v];
}

// Blurs the masses of the vertices along one direction: of `mass` in the first, of `from` in the others.
// Where `blends` are wanted: which share of a vertex's new mass came from each neighbor. Rows are blurred by them.
extern "C" __global__ void smooth(
    const Pair* __restrict__ pairs, const u64* __restrict__ mass, const float* __restrict__ from, float* to,
    Blend* blends, i64 total)
{
    const i64 v = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (v >= total) return;
    const Pair pair = pairs[v];
    const float before = 0.5f * mass_of(mass, from, pair.before), after = 0.5f * mass_of(mass, from, pair.after);
    const float sum = mass_of(mass, from, (int)v) + (before + after);
    to[v] = sum;
    if (blends) {
        Blend blend = {0, 0};
        if (sum > 0.0f) {
            blend.before = (u32)(before / sum * FULL);
            blend.after = (u32)(after / sum * FULL);
            if (blend.after > WHOLE - blend.before) blend.after = WHOLE - blend.before;
        }
        blends[v] = blend;
    }
}

// Symmetric normalization: D^-1/2 K D^-1/2, D the row sums of K. Half goes into the weights here; the new masses follow.
extern "C" __global__ void normalize(
    const Image* __restrict__ images, const int* __restrict__ vertex, float* weight, const float* __restrict__ blurred,
    u64* mass)
{
    const Image image = images[blockIdx.y];
    const i64 p = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (p >= image.height * image.width) return;
    const i64 e = CORNERS * (image.pixel + p);
    float sum = 0.0f;
#pragma unroll
    for (int r = 0; r < CORNERS; ++r) sum += weight[e + r] * blurred[vertex[e + r]];
    const float scale = sqrtf(1.0f / (sum + 1e-20f));
#pragma unroll
    for (int r = 0; r < CORNERS; ++r) {
        weight[e + r] *= scale;
        atomicAdd(&mass[vertex[e + r]], units(weight[e + r]));
    }
}

// Room for the edges of every vertex: first [vertices]; `degree` is counted anew by fill. Vertices with more than LONG
// edges are listed: longs, from long_list() on, long_counts [images] of them.
__device__ inline i64 long_list(const Image& image, int number) {
    return CORNERS * image.pixel / LONG + number;
}

extern "C" __global__ void reserve(
    const Image* __restrict__ images, int* degree, int* first, int* reserved, int* longs, int* long_counts)
{
    __shared__ int needed, base;
    const Image image = images[blockIdx.y];
    if ((i64)blockIdx.x * blockDim.x >= image.vertices) return;
    if (threadIdx.x == 0) needed = 0;
    __syncthreads();
    const i64 number = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    const i64 v = image.vertex + number;
    const int edges = number < image.vertices ? degree[v] : 0;
    const int offset = edges ? atomicAdd(&needed, edges) : 0;
    __syncthreads();
    if (threadIdx.x == 0) base = atomicAdd(&reserved[blockIdx.y], needed);
    __syncthreads();
    if (number >= image.vertices) return;
    first[v] = (int)(CORNERS * image.pixel) + base + offset;
    degree[v] = 0;
    if (edges > LONG) longs[long_list(image, blockIdx.y) + atomicAdd(&long_counts[blockIdx.y], 1)] = (int)v;
}

// The edges as the vertices see them, each with its share of the vertex; and the weights with which pixels read back.
extern "C" __global__ void fill(
    const Image* __restrict__ images, const int* __restrict__ vertex, float* weight, const u64* __restrict__ mass,
    const float* __restrict__ blurred, const int* __restrict__ first, int* degree, Edge* edges, float compat)
{
    const Image image = images[blockIdx.y];
    const i64 p = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (p >= image.height * image.width) return;
#pragma unroll
    for (int r = 0; r < CORNERS; ++r) {
        const i64 e = CORNERS * (image.pixel + p) + r;
        const int v = vertex[e];
        const u64 own = units(weight[e]), all = mass[v];
        const u64 share = all ? (own << 32) / all : 0;  // rounded down: the shares of a vertex never exceed one
        Edge edge;
        edge.point = (int)(image.pixel + p);
        edge.share = share > WHOLE ? WHOLE : (u32)share;
        edges[first[v] + atomicAdd(&degree[v], 1)] = edge;
        weight[e] = compat * (weight[e] * blurred[v]) / FULL;
    }
}
