// Products of quantized matrices with rows of numbers that are rounded to eight bits.
//
// A matrix (num_outputs, num_inputs) is in groups of 32 neighbours of a row, each with a scale and, in four bits, a
// minimum: weight = scale * q + minimum with q in 0..15, or weight = scale * q with q in -128..127. A row of inputs is
// in the same groups: input = its scale * a with a in -127..127. So a group's sum is one of small integers, which is
// exact, and what it means is added up in float32, group after group: the result of a row has the same bits whatever
// rows are computed with it, on whatever number of threads, and on every processor that can run this.
//
// Layout: tiles of 16 outputs, each with its groups in order. A group is 16 float16 scales; in four bits 16 float16
// minima; then vectors of 16 outputs times 4 neighbouring inputs, a byte each: in eight bits q + 128, and in four bits
// the q of inputs 4i to 4i+3 in the low halves and that of inputs 16+4i to 16+4i+3 in the high ones. Written by
// mezzo.model.kernels.packing.
//
// A matrix may have an update of low rank beside it, (W + up down) x: two narrow matrices in eight bits. What down x is
// gets rounded like any row of inputs. It costs less than it would to hold the sum in eight bits, where W is in four.

#include "kernels.h"
#include "threads.h"

#if defined(__x86_64__)

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "simd.h"

enum { GROUP = 32, TILE = 16, ROWS_AT_ONCE = 4, ROWS_IN_CACHE = 96 };
enum { PREFETCH_BYTES = 1024, TASKS_OF_THREAD = 3, PRODUCTS_OF_TASK = 1 << 22 };

// Rows in eight bits, four rows together, so that what a tile reads of them lies in one piece: of each four rows in turn
// their first four numbers, then their next four; and of each group their four scales, sums of the numbers, and sums times
// scales. The last four rows may be fewer.
typedef struct {
    int8_t *numbers;   // (rows / 4, inputs / 4, 4 rows, 4 inputs)
    float *scales;     // (rows / 4, groups, 4 rows)
    float *sums;       // the same
    int32_t *int_sums; // the same
} rounded_rows;

typedef struct {
    const matrix *weights;
    const float *inputs, *norm_weight;
    float norm_eps;
    int64_t num_rows;
    float *outputs;
    int mode;
    rounded_rows rounded, low;  // the inputs, and what the update's `down` makes of them
    int64_t tiles_at_once, chunks_of_tiles;
} product;

INLINE int64_t group_bytes(int64_t num_bits) { return num_bits == 4 ? 32 + 32 + 4 * 64 : 32 + 8 * 64; }

// ---- rounding

AVX2 static void round_row(const float *x, int64_t num_inputs, const rounded_rows *rows, int64_t row) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    const int64_t num_groups = num_inputs / GROUP;
    int8_t *numbers = rows->numbers + row / 4 * 4 * num_inputs + row % 4 * 4;
    for (int64_t g = 0; g < num_groups; g++, x += GROUP, numbers += 4 * GROUP) {
        __m256 v[4], most = _mm256_setzero_ps(), none = _mm256_setzero_ps();
        for (int i = 0; i < 4; i++) {
            v[i] = _mm256_loadu_ps(x + 8 * i);
            most = _mm256_max_ps(_mm256_andnot_ps(sign, v[i]), most);
            none = _mm256_add_ps(none, _mm256_sub_ps(v[i], v[i]));
        }
        float largest = max8(most);
        // What is infinite or no number must come out as no number: `none` is zero otherwise.
        float scale = largest / 127.0f + sum8(none);
        // Numbers so small that the quotient overflows are zero: their products do not count in float32.
        float inverse = largest > 1e-30f ? 127.0f / largest : 0.0f;
        __m256i n[4];
        for (int i = 0; i < 4; i++) n[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], _mm256_set1_ps(inverse)));
        __m256i total = _mm256_add_epi32(_mm256_add_epi32(n[0], n[1]), _mm256_add_epi32(n[2], n[3]));
        __m128i four = _mm_add_epi32(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1));
        four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4E));
        four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0xB1));
        __m256i words = _mm256_packs_epi16(_mm256_packs_epi32(n[0], n[1]), _mm256_packs_epi32(n[2], n[3]));
        words = _mm256_permutevar8x32_epi32(words, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        int32_t fours[GROUP / 4];
        _mm256_storeu_si256((__m256i *)fours, words);
        for (int i = 0; i < GROUP / 4; i++) memcpy(numbers + 16 * i, fours + i, 4);
        int64_t at = (row / 4 * num_groups + g) * 4 + row % 4;
        rows->int_sums[at] = _mm_cvtsi128_si32(four);
        rows->scales[at] = scale;
        rows->sums[at] = scale * (float)rows->int_sums[at];
    }
}

AVX2 static void norm_row(const float *x, const float *weight, float eps, int64_t size, float *out) {
    __m256 squares = _mm256_setzero_ps();
    for (int64_t i = 0; i < size; i += 8) {
        __m256 v = _mm256_loadu_ps(x + i);
        squares = _mm256_fmadd_ps(v, v, squares);
    }
    __m256 factor = _mm256_set1_ps(1.0f / sqrtf(sum8(squares) / (float)size + eps));
    for (int64_t i = 0; i < size; i += 8) {
        __m256 v = _mm256_mul_ps(_mm256_loadu_ps(x + i), factor);
        _mm256_storeu_ps(out + i, _mm256_mul_ps(v, _mm256_loadu_ps(weight + i)));
    }
}

AVX2 static void round_task(void *context, int64_t row) {
    product *p = context;
    int64_t size = p->weights->num_inputs;
    const float *x = p->inputs + row * size;
    if (p->norm_weight != NULL) {
        float *normed = thread_scratch(size * (int64_t)sizeof(float));
        norm_row(x, p->norm_weight, p->norm_eps, size, normed);
        x = normed;
    }
    round_row(x, size, &p->rounded, row);
}

// ---- a tile of outputs for a few rows

AVX2 INLINE __m256i four_inputs(const int8_t *numbers) {
    int32_t word;
    memcpy(&word, numbers, 4);
    return _mm256_set1_epi32(word);
}

// Some halves of a tile, 8 outputs each, of num_rows rows. 16-bit sums cannot overflow: each of the eight products that
// meet in one is the sum of two, at most 2 * 15 * 127.
AVX2 INLINE void halves_avx2(
    const uint8_t *data, int first_half, int num_halves, int num_bits, const rounded_rows *rows, int64_t num_groups,
    int64_t row, int num_rows, float *result
) {
    const __m256i low_bits = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1), sixteens = _mm256_set1_epi16(16);
    const int num_vectors = num_bits == 4 ? 4 : 8;
    const int8_t *numbers = rows->numbers + row * num_groups * GROUP;
    int64_t at = row * num_groups;
    __m256 sum[4];  // [half * num_rows + row]
    for (int s = 0; s < num_halves * num_rows; s++) sum[s] = _mm256_setzero_ps();
    for (int64_t g = 0; g < num_groups; g++, data += group_bytes(num_bits), numbers += 4 * GROUP, at += 4) {
        const uint8_t *vectors = data + group_bytes(num_bits) - 64 * num_vectors + 32 * first_half;
        __m256i low[4], high[4];
        for (int s = 0; s < num_halves * num_rows; s++) low[s] = high[s] = _mm256_setzero_si256();
#pragma GCC unroll 1
        for (int i = 0; i < num_vectors; i++) {
            if (num_halves == 2) _mm_prefetch(vectors + 64 * i + PREFETCH_BYTES, _MM_HINT_T0);
            for (int h = 0; h < num_halves; h++) {
                __m256i both = _mm256_loadu_si256((const __m256i *)(vectors + 64 * i + 32 * h));
                __m256i first = _mm256_and_si256(both, low_bits);
                __m256i second = _mm256_and_si256(_mm256_srli_epi16(both, 4), low_bits);
                for (int r = 0; r < num_rows; r++) {
                    const int8_t *a = numbers + 16 * i + 4 * r;
                    int s = h * num_rows + r;
                    if (num_bits == 4) {
                        low[s] = _mm256_add_epi16(low[s], _mm256_maddubs_epi16(first, four_inputs(a)));
                        low[s] = _mm256_add_epi16(low[s], _mm256_maddubs_epi16(second, four_inputs(a + 64)));
                    } else {
                        low[s] = _mm256_add_epi16(low[s], _mm256_maddubs_epi16(first, four_inputs(a)));
                        high[s] = _mm256_add_epi16(high[s], _mm256_maddubs_epi16(second, four_inputs(a)));
                    }
                }
            }
        }
        for (int h = 0; h < num_halves; h++) {
            const uint16_t *scales = (const uint16_t *)data + 8 * (first_half + h);
            __m256 scale = half8(scales), minimum = num_bits == 4 ? half8(scales + TILE) : scale;
            for (int r = 0; r < num_rows; r++) {
                int s = h * num_rows + r;
                __m256i total = _mm256_madd_epi16(low[s], ones);
                if (num_bits == 8) {
                    total = _mm256_add_epi32(total, _mm256_madd_epi16(high[s], sixteens));
                    total = _mm256_sub_epi32(total, _mm256_set1_epi32(128 * rows->int_sums[at + r]));
                }
                __m256 scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(total), _mm256_broadcast_ss(rows->scales + at + r));
                sum[s] = _mm256_fmadd_ps(scale, scaled, sum[s]);
                if (num_bits == 4) sum[s] = _mm256_fmadd_ps(minimum, _mm256_broadcast_ss(rows->sums + at + r), sum[s]);
            }
        }
    }
    for (int h = 0; h < num_halves; h++)
        for (int r = 0; r < num_rows; r++)
            _mm256_storeu_ps(result + r * TILE + 8 * (first_half + h), sum[h * num_rows + r]);
}

// Few rows wait for memory, and read a tile once; more would not have the registers for it.
AVX2 INLINE void tile_avx2(
    const uint8_t *data, int num_bits, const rounded_rows *rows, int64_t num_groups, int64_t row, int num_rows, float *result
) {
    if (num_rows <= 2) {
        halves_avx2(data, 0, 2, num_bits, rows, num_groups, row, num_rows, result);
    } else {
        halves_avx2(data, 0, 1, num_bits, rows, num_groups, row, num_rows, result);
        halves_avx2(data, 1, 1, num_bits, rows, num_groups, row, num_rows, result);
    }
}

// The same with instructions that multiply and add four bytes at a time into 32 bits: no halves are needed. Two sums of
// each row take turns, so that none waits for itself.
AVX512 INLINE void tile_avx512(
    const uint8_t *data, int num_bits, const rounded_rows *rows, int64_t num_groups, int64_t row, int num_rows, float *result
) {
    const __m512i low_bits = _mm512_set1_epi8(15);
    const int num_vectors = num_bits == 4 ? 4 : 8;
    const int8_t *numbers = rows->numbers + row * num_groups * GROUP;
    int64_t at = row * num_groups;
    __m512 sum[4];
    for (int r = 0; r < num_rows; r++) sum[r] = _mm512_setzero_ps();
    for (int64_t g = 0; g < num_groups; g++, data += group_bytes(num_bits), numbers += 4 * GROUP, at += 4) {
        const uint8_t *vectors = data + group_bytes(num_bits) - 64 * num_vectors;
        __m512i total[4], other[4];
        for (int r = 0; r < num_rows; r++) {
            total[r] = _mm512_set1_epi32(num_bits == 8 ? -128 * rows->int_sums[at + r] : 0);
            other[r] = _mm512_setzero_si512();
        }
        for (int i = 0; i < 4; i++) {
            const uint8_t *vector = vectors + 64 * i;
            __m512i both = _mm512_loadu_si512(vector);
            __m512i first = num_bits == 4 ? _mm512_and_si512(both, low_bits) : both;
            __m512i second = num_bits == 4 ? _mm512_and_si512(_mm512_srli_epi16(both, 4), low_bits) : _mm512_loadu_si512(vector + 256);
            for (int r = 0; r < num_rows; r++) {
                int32_t four, later_four;
                memcpy(&four, numbers + 16 * i + 4 * r, 4);
                memcpy(&later_four, numbers + 64 + 16 * i + 4 * r, 4);
                total[r] = _mm512_dpbusd_epi32(total[r], first, _mm512_set1_epi32(four));
                other[r] = _mm512_dpbusd_epi32(other[r], second, _mm512_set1_epi32(later_four));
            }
        }
        __m512 scale = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)data));
        __m512 minimum = num_bits == 4 ? _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)data + 1)) : scale;
        for (int r = 0; r < num_rows; r++) {
            __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(total[r], other[r])), _mm512_set1_ps(rows->scales[at + r]));
            sum[r] = _mm512_fmadd_ps(scale, scaled, sum[r]);
            if (num_bits == 4) sum[r] = _mm512_fmadd_ps(minimum, _mm512_set1_ps(rows->sums[at + r]), sum[r]);
        }
    }
    for (int r = 0; r < num_rows; r++) _mm512_storeu_ps(result + r * TILE, sum[r]);
}

// One loop for each number of rows, so that all sums are in registers: the compiler copies the body into each case.
typedef void (*tile_function)(
    const uint8_t *data, const rounded_rows *rows, int64_t num_groups, int64_t row, int64_t num_rows, float *result
);

#define TILE_FUNCTION(target, body, bits)                                                                              \
    target static void body##_##bits(                                                                                  \
        const uint8_t *data, const rounded_rows *rows, int64_t num_groups, int64_t row, int64_t num_rows, float *result \
    ) {                                                                                                                \
        switch (num_rows) {                                                                                            \
            case 1: body(data, bits, rows, num_groups, row, 1, result); break;                                         \
            case 2: body(data, bits, rows, num_groups, row, 2, result); break;                                         \
            case 3: body(data, bits, rows, num_groups, row, 3, result); break;                                         \
            default: body(data, bits, rows, num_groups, row, 4, result);                                               \
        }                                                                                                              \
    }

TILE_FUNCTION(AVX2, tile_avx2, 4)
TILE_FUNCTION(AVX2, tile_avx2, 8)
TILE_FUNCTION(AVX512, tile_avx512, 4)
TILE_FUNCTION(AVX512, tile_avx512, 8)

static int uses_avx512;

static tile_function tile_function_for(int64_t num_bits) {
    if (uses_avx512) return num_bits == 4 ? tile_avx512_4 : tile_avx512_8;
    return num_bits == 4 ? tile_avx2_4 : tile_avx2_8;
}

// ---- a product

// Put num_rows rows of a tile where they belong. `gates` are results of the tile before, where tiles come in pairs.
AVX2 static void finish_tile(const product *p, int64_t tile, int64_t row, int64_t num_rows, const float *result, const float *gates) {
    int64_t width = p->mode == GATE ? p->weights->num_outputs / 2 : p->weights->num_outputs;
    int64_t column = (p->mode == GATE ? tile / 2 : tile) * TILE;
    for (int64_t r = 0; r < num_rows; r++) {
        float *out = p->outputs + (row + r) * width + column;
        for (int i = 0; i < TILE; i += 8) {
            __m256 value = _mm256_loadu_ps(result + r * TILE + i);
            if (p->mode == ADD) value = _mm256_add_ps(_mm256_loadu_ps(out + i), value);
            if (p->mode == GATE) value = _mm256_mul_ps(silu8(_mm256_loadu_ps(gates + r * TILE + i)), value);
            _mm256_storeu_ps(out + i, value);
        }
    }
}

// Add the update of a tile to its results.
AVX2 static void add_update(const product *p, int64_t tile, int64_t row, int64_t num_rows, float *result) {
    const matrix *up = p->weights->up;
    int64_t num_groups = up->num_inputs / GROUP;
    float update[ROWS_AT_ONCE * TILE];
    tile_function compute = tile_function_for(up->num_bits);
    compute(up->data + tile * num_groups * group_bytes(up->num_bits), &p->low, num_groups, row, num_rows, update);
    for (int64_t i = 0; i < num_rows * TILE; i += 8)
        _mm256_storeu_ps(result + i, _mm256_add_ps(_mm256_loadu_ps(result + i), _mm256_loadu_ps(update + i)));
}

// Some tiles for as many rows as stay in the cache.
static void tiles_task(void *context, int64_t task) {
    const product *p = context;
    const matrix *w = p->weights;
    tile_function compute = tile_function_for(w->num_bits);
    int64_t num_groups = w->num_inputs / GROUP, tile_bytes = num_groups * group_bytes(w->num_bits);
    int64_t first_row = task / p->chunks_of_tiles * ROWS_IN_CACHE, first_tile = task % p->chunks_of_tiles * p->tiles_at_once;
    int64_t last_row = first_row + ROWS_IN_CACHE, last_tile = first_tile + p->tiles_at_once;
    if (last_row > p->num_rows) last_row = p->num_rows;
    if (last_tile > w->num_outputs / TILE) last_tile = w->num_outputs / TILE;
    int64_t tiles_together = p->mode == GATE ? 2 : 1;
    float results[2][ROWS_AT_ONCE * TILE];
    for (int64_t tile = first_tile; tile < last_tile; tile += tiles_together)
        for (int64_t row = first_row; row < last_row; row += ROWS_AT_ONCE) {
            int64_t num_rows = last_row - row < ROWS_AT_ONCE ? last_row - row : ROWS_AT_ONCE;
            for (int64_t i = 0; i < tiles_together; i++) {
                compute(w->data + (tile + i) * tile_bytes, &p->rounded, num_groups, row, num_rows, results[i]);
                if (w->up != NULL) add_update(p, tile + i, row, num_rows, results[i]);
            }
            finish_tile(p, tile, row, num_rows, results[tiles_together - 1], results[0]);
        }
}

// ---- memory of rounded rows, and what is done with it

static int64_t rounded_bytes(int64_t num_rows, int64_t num_inputs) {
    int64_t bytes_of_group = GROUP + 2 * (int64_t)sizeof(float) + (int64_t)sizeof(int32_t);
    return (num_rows + 3) / 4 * 4 * num_inputs / GROUP * bytes_of_group;
}

static rounded_rows rounded_at(void *memory, int64_t num_rows, int64_t num_inputs) {
    int64_t num_groups = (num_rows + 3) / 4 * 4 * num_inputs / GROUP;
    rounded_rows rows = {.scales = memory};
    rows.sums = rows.scales + num_groups;
    rows.int_sums = (int32_t *)(rows.sums + num_groups);
    rows.numbers = (int8_t *)(rows.int_sums + num_groups);
    return rows;
}

static void round_rows(product *p) {
    if (p->num_rows < 4)
        for (int64_t row = 0; row < p->num_rows; row++) round_task(p, row);
    else
        pool_run(round_task, p, p->num_rows);
}

// Handing out a task takes about a microsecond, so there are few; but enough that the threads end together, also when one
// of them has lost its core for a while.
static void multiply_rounded(product *p) {
    const matrix *w = p->weights;
    int64_t num_tiles = w->num_outputs / TILE, most_tiles = num_tiles / (TASKS_OF_THREAD * pool_size());
    int64_t rows_of_task = p->num_rows < ROWS_IN_CACHE ? p->num_rows : ROWS_IN_CACHE;
    int64_t enough_tiles = PRODUCTS_OF_TASK / (rows_of_task * TILE * w->num_inputs);
    p->tiles_at_once = (most_tiles < enough_tiles ? most_tiles : enough_tiles) / 2 * 2;
    if (p->tiles_at_once < 2) p->tiles_at_once = 2;
    p->chunks_of_tiles = (num_tiles + p->tiles_at_once - 1) / p->tiles_at_once;
    int64_t blocks_of_rows = (p->num_rows + ROWS_IN_CACHE - 1) / ROWS_IN_CACHE;
    pool_run(tiles_task, p, p->chunks_of_tiles * blocks_of_rows);
}

// rank: of the update, 0 where there is none
int64_t linear_scratch_bytes(int64_t num_rows, int64_t num_inputs, int64_t rank) {
    return rounded_bytes(num_rows, num_inputs) + rounded_bytes(num_rows, rank) + num_rows * rank * (int64_t)sizeof(float);
}

void linear(
    const matrix *weights, const float *inputs, int64_t num_rows, const float *norm_weight, float norm_eps, int mode,
    float *outputs, void *scratch
) {
    if (num_rows == 0) return;
    uint8_t *memory = scratch;
    product p = {
        .weights = weights, .inputs = inputs, .norm_weight = norm_weight, .norm_eps = norm_eps, .num_rows = num_rows,
        .outputs = outputs, .mode = mode, .rounded = rounded_at(memory, num_rows, weights->num_inputs),
    };
    round_rows(&p);
    if (weights->up != NULL) {
        int64_t rank = weights->up->num_inputs;
        memory += rounded_bytes(num_rows, weights->num_inputs);
        p.low = rounded_at(memory, num_rows, rank);
        float *low = (float *)(memory + rounded_bytes(num_rows, rank));
        product down = {.weights = weights->down, .num_rows = num_rows, .outputs = low, .mode = STORE, .rounded = p.rounded};
        multiply_rounded(&down);
        product up = {.weights = weights->up, .inputs = low, .num_rows = num_rows, .rounded = p.low};
        round_rows(&up);
    }
    multiply_rounded(&p);
}

// ---- rows of a matrix as numbers

AVX2 void embed(const matrix *weights, const int64_t *token_ids, int64_t num_rows, float *outputs) {
    int64_t num_groups = weights->num_inputs / GROUP, bytes = group_bytes(weights->num_bits);
    for (int64_t row = 0; row < num_rows; row++) {
        int64_t lane = token_ids[row] % TILE;
        const uint8_t *data = weights->data + token_ids[row] / TILE * num_groups * bytes;
        for (int64_t g = 0; g < num_groups; g++, data += bytes) {
            float *out = outputs + row * weights->num_inputs + g * GROUP;
            float scale = _cvtsh_ss(((const uint16_t *)data)[lane]);
            for (int i = 0; i < GROUP; i++) {
                if (weights->num_bits == 8) {
                    out[i] = scale * (float)(data[32 + i / 4 * 64 + lane * 4 + i % 4] - 128);
                } else {
                    uint8_t both = data[64 + i % 16 / 4 * 64 + lane * 4 + i % 4];
                    float minimum = _cvtsh_ss(((const uint16_t *)data)[TILE + lane]);
                    out[i] = scale * (float)(i < 16 ? both & 15 : both >> 4) + minimum;
                }
            }
        }
    }
}

// ---- which instructions

int kernels_supported(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

// Use AVX-512 with VNNI where the processor has it and `wanted` is not 0. Returns whether it is used.
int use_avx512(int wanted) {
    __builtin_cpu_init();
    uses_avx512 = wanted && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
    return uses_avx512;
}

#else

int kernels_supported(void) { return 0; }

#endif
