// Rotary embedding, the KV cache in eight bits, and attention of a ragged batch over its blocks.
//
// The cache of a layer is (key heads, blocks) records. A record holds the keys of block_size positions as int8, channel
// by channel, and a float32 scale for each position; then the values, position by position, and their scales. So the
// products of a query with a block's keys stand in neighbouring lanes, and so do the channels of a weighted sum of values.
//
// Attention goes through the blocks in order and keeps a running maximum and sum (arXiv 1805.02867, 2112.05682), for a tile
// of queries at a time: some tokens of one sequence, with all query heads that share a key head. What is computed of a query
// does not depend on the tile it is in: its result has the same bits alone and in any batch or chunk.

#include "kernels.h"
#include "threads.h"

#if defined(__x86_64__)

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "simd.h"

enum { COLUMNS_AT_ONCE = 16, ROWS_AT_ONCE = 6, MOST_TILE_ROWS = 96 };

typedef struct {
    const heads_shape *shape;
    const step_rows *rows;
    float *heads, *outputs;
    uint8_t *cache;
    int64_t num_blocks;
} layer;

typedef struct {
    const layer *layer;
    const span *span;
    int32_t kv_head, first_token, num_tokens;
} query_tile;

static int64_t record_bytes(const heads_shape *s) { return 2 * s->block_size * (s->head_dim + (int64_t)sizeof(float)); }

static uint8_t *record_of(const layer *l, int64_t kv_head, int64_t block) {
    return l->cache + (kv_head * l->num_blocks + block) * record_bytes(l->shape);
}

// ---- what the tokens add to the cache

AVX2 static void rotate(float *x, const float *cos, const float *sin, int64_t head_dim, float factor) {
    int64_t half = head_dim / 2;
    __m256 f = _mm256_set1_ps(factor);
    for (int64_t i = 0; i < half; i += 8) {
        __m256 first = _mm256_loadu_ps(x + i), second = _mm256_loadu_ps(x + half + i);
        __m256 a = _mm256_fmadd_ps(second, _mm256_loadu_ps(sin + i), _mm256_mul_ps(first, _mm256_loadu_ps(cos + i)));
        __m256 b = _mm256_fmadd_ps(first, _mm256_loadu_ps(sin + half + i), _mm256_mul_ps(second, _mm256_loadu_ps(cos + half + i)));
        _mm256_storeu_ps(x + i, _mm256_mul_ps(a, f));
        _mm256_storeu_ps(x + half + i, _mm256_mul_ps(b, f));
    }
}

// Write head_dim numbers as int8, `stride` bytes apart, and return their scale.
AVX2 static float store_rounded(const float *x, int64_t head_dim, int8_t *out, int64_t stride) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 most = _mm256_setzero_ps();
    for (int64_t i = 0; i < head_dim; i += 8) most = _mm256_max_ps(_mm256_andnot_ps(sign, _mm256_loadu_ps(x + i)), most);
    float largest = max8(most);
    __m256 inverse = _mm256_set1_ps(largest > 1e-30f ? 127.0f / largest : 0.0f);
    for (int64_t i = 0; i < head_dim; i += 8) {
        __m256i n = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i), inverse));
        __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(n), _mm256_extracti128_si256(n, 1));
        int64_t bytes = _mm_cvtsi128_si64(_mm_packs_epi16(words, words));
        if (stride == 1) memcpy(out + i, &bytes, 8);
        else
            for (int j = 0; j < 8; j++, bytes >>= 8) out[(i + j) * stride] = (int8_t)bytes;
    }
    return largest / 127.0f;
}

static void store_task(void *context, int64_t row) {
    const layer *l = context;
    const heads_shape *s = l->shape;
    int64_t dim = s->head_dim, size = s->block_size, block = l->rows->slots[row] / size, position = l->rows->slots[row] % size;
    const float *cos = l->rows->cos + row * dim, *sin = l->rows->sin + row * dim;
    float *queries = l->heads + row * (s->n_heads + 2 * s->n_kv_heads) * dim;
    float *keys = queries + s->n_heads * dim, *values = keys + s->n_kv_heads * dim;
    float factor = 1.0f / sqrtf((float)dim);
    if (l->rows->query_scale != NULL) factor *= l->rows->query_scale[row];
    for (int64_t h = 0; h < s->n_heads; h++) rotate(queries + h * dim, cos, sin, dim, factor);
    for (int64_t h = 0; h < s->n_kv_heads; h++) {
        int8_t *record = (int8_t *)record_of(l, h, block);
        float *key_scales = (float *)(record + size * dim);
        int8_t *value_numbers = (int8_t *)(key_scales + size);
        float *value_scales = (float *)(value_numbers + size * dim);
        rotate(keys + h * dim, cos, sin, dim, 1.0f);
        key_scales[position] = store_rounded(keys + h * dim, dim, record + position, size);
        value_scales[position] = store_rounded(values + h * dim, dim, value_numbers + position * dim, 1);
    }
}

// ---- small products

AVX2 static void widen(const int8_t *numbers, int64_t count, float *out) {
    for (int64_t i = 0; i < count; i += 8)
        _mm256_storeu_ps(out + i, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(numbers + i)))));
}

// c (rows, 16 of num_columns) = or += a (rows, depth) b (depth, 16 of num_columns)
AVX2 INLINE void multiply_rows(
    const float *a, int64_t depth, const float *b, int64_t num_columns, float *c, int num_rows, int adds
) {
    __m256 low[ROWS_AT_ONCE], high[ROWS_AT_ONCE];
    for (int r = 0; r < num_rows; r++) {
        low[r] = adds ? _mm256_loadu_ps(c + r * num_columns) : _mm256_setzero_ps();
        high[r] = adds ? _mm256_loadu_ps(c + r * num_columns + 8) : _mm256_setzero_ps();
    }
#pragma GCC unroll 1
    for (int64_t k = 0; k < depth; k++, b += num_columns) {
        __m256 b_low = _mm256_loadu_ps(b), b_high = _mm256_loadu_ps(b + 8);
        for (int r = 0; r < num_rows; r++) {
            __m256 factor = _mm256_broadcast_ss(a + r * depth + k);
            low[r] = _mm256_fmadd_ps(factor, b_low, low[r]);
            high[r] = _mm256_fmadd_ps(factor, b_high, high[r]);
        }
    }
    for (int r = 0; r < num_rows; r++) {
        _mm256_storeu_ps(c + r * num_columns, low[r]);
        _mm256_storeu_ps(c + r * num_columns + 8, high[r]);
    }
}

AVX2 static void multiply(const float *a, int64_t num_rows, int64_t depth, const float *b, int64_t num_columns, float *c, int adds) {
    for (int64_t column = 0; column < num_columns; column += COLUMNS_AT_ONCE)
        for (int64_t row = 0; row < num_rows; row += ROWS_AT_ONCE) {
            const float *rows = a + row * depth, *columns = b + column;
            float *out = c + row * num_columns + column;
            switch (num_rows - row) {
                case 1: multiply_rows(rows, depth, columns, num_columns, out, 1, adds); break;
                case 2: multiply_rows(rows, depth, columns, num_columns, out, 2, adds); break;
                case 3: multiply_rows(rows, depth, columns, num_columns, out, 3, adds); break;
                case 4: multiply_rows(rows, depth, columns, num_columns, out, 4, adds); break;
                case 5: multiply_rows(rows, depth, columns, num_columns, out, 5, adds); break;
                default: multiply_rows(rows, depth, columns, num_columns, out, 6, adds);
            }
        }
}

// ---- attention of a tile of queries

typedef struct {
    float *queries, *weighted, *scores;  // (rows, head_dim), the same, (rows, block_size)
    float *keys, *values;                // (head_dim, block_size), (block_size, head_dim)
    float *maxima, *sums;                // (rows)
} workspace;

static workspace workspace_of(const heads_shape *s, int64_t num_rows) {
    int64_t of_tile = num_rows * s->head_dim, of_block = s->block_size * s->head_dim;
    workspace w;
    w.queries = thread_scratch((2 * of_tile + num_rows * (s->block_size + 2) + 2 * of_block) * (int64_t)sizeof(float));
    w.weighted = w.queries + of_tile;
    w.keys = w.weighted + of_tile;
    w.values = w.keys + of_block;
    w.scores = w.values + of_block;
    w.maxima = w.scores + num_rows * s->block_size;
    w.sums = w.maxima + num_rows;
    return w;
}

AVX2 INLINE float exp1(float x) { return _mm256_cvtss_f32(exp8(_mm256_set1_ps(x))); }

// Turn a row's products with a block's keys into weights of its values, and scale down what was summed before. The row sees
// the positions first_seen to last_seen of the block.
AVX2 static void weigh(
    const heads_shape *s, workspace *w, int64_t row, int64_t first_seen, int64_t last_seen, const float *key_scales, const float *value_scales
) {
    float *scores = w->scores + row * s->block_size, *weighted = w->weighted + row * s->head_dim;
    __m256 lanes = _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7), most = _mm256_set1_ps(-INFINITY);
    __m256 first = _mm256_set1_ps((float)first_seen), last = _mm256_set1_ps((float)last_seen);
    for (int64_t i = 0; i < s->block_size; i += 8) {
        __m256 position = _mm256_add_ps(_mm256_set1_ps((float)i), lanes);
        __m256 is_seen = _mm256_and_ps(_mm256_cmp_ps(position, first, _CMP_GE_OQ), _mm256_cmp_ps(position, last, _CMP_LE_OQ));
        __m256 score = _mm256_mul_ps(_mm256_loadu_ps(scores + i), _mm256_loadu_ps(key_scales + i));
        score = _mm256_blendv_ps(_mm256_set1_ps(-INFINITY), score, is_seen);
        _mm256_storeu_ps(scores + i, score);
        most = _mm256_max_ps(most, score);
    }
    float before = w->maxima[row], maximum = fmaxf(before, max8(most));
    if (maximum == -INFINITY) {  // nothing seen so far: a window that begins later
        memset(scores, 0, (size_t)s->block_size * sizeof(float));
        return;
    }
    __m256 sum = _mm256_setzero_ps();
    for (int64_t i = 0; i < s->block_size; i += 8) {
        __m256 weight = exp8(_mm256_sub_ps(_mm256_loadu_ps(scores + i), _mm256_set1_ps(maximum)));
        sum = _mm256_add_ps(sum, weight);
        _mm256_storeu_ps(scores + i, _mm256_mul_ps(weight, _mm256_loadu_ps(value_scales + i)));
    }
    float factor = exp1(before - maximum);
    w->sums[row] = fmaf(w->sums[row], factor, sum8(sum));
    w->maxima[row] = maximum;
    if (factor != 1.0f)
        for (int64_t i = 0; i < s->head_dim; i += 8)
            _mm256_storeu_ps(weighted + i, _mm256_mul_ps(_mm256_loadu_ps(weighted + i), _mm256_set1_ps(factor)));
}

static void tile_task(void *context, int64_t task) {
    const query_tile *t = (const query_tile *)context + task;
    const layer *l = t->layer;
    const heads_shape *s = l->shape;
    int64_t dim = s->head_dim, size = s->block_size, group = s->n_heads / s->n_kv_heads, num_rows = t->num_tokens * group;
    int64_t first_position = t->span->num_context + t->first_token, last_position = first_position + t->num_tokens - 1;
    int64_t first_row = t->span->first_row + t->first_token;
    workspace w = workspace_of(s, num_rows);
    for (int64_t i = 0; i < t->num_tokens; i++)
        memcpy(w.queries + i * group * dim,
               l->heads + ((first_row + i) * (s->n_heads + 2 * s->n_kv_heads) + t->kv_head * group) * dim,
               (size_t)(group * dim) * sizeof(float));
    memset(w.weighted, 0, (size_t)(num_rows * dim) * sizeof(float));
    for (int64_t row = 0; row < num_rows; row++) {
        w.maxima[row] = -INFINITY;
        w.sums[row] = 0;
    }
    int64_t first_block = first_position >= s->window ? (first_position - s->window + 1) / size : 0;
    for (int64_t block = first_block; block <= last_position / size; block++) {
        const int8_t *keys = (const int8_t *)record_of(l, t->kv_head, l->rows->tables[t->span->first_block + block]);
        const float *key_scales = (const float *)(keys + size * dim);
        const int8_t *values = (const int8_t *)(key_scales + size);
        const float *value_scales = (const float *)(values + size * dim);
        widen(keys, size * dim, w.keys);
        widen(values, size * dim, w.values);
        multiply(w.queries, num_rows, dim, w.keys, size, w.scores, 0);
        for (int64_t row = 0; row < num_rows; row++) {
            int64_t position = first_position + row / group - block * size;
            weigh(s, &w, row, position - s->window + 1, position, key_scales, value_scales);
        }
        multiply(w.scores, num_rows, size, w.values, dim, w.weighted, 1);
    }
    for (int64_t row = 0; row < num_rows; row++) {
        float *out = l->outputs + ((first_row + row / group) * s->n_heads + t->kv_head * group + row % group) * dim;
        for (int64_t i = 0; i < dim; i++) out[i] = w.weighted[row * dim + i] / w.sums[row];
    }
}

int64_t cache_record_bytes(const heads_shape *shape) { return record_bytes(shape); }

int attend(
    const heads_shape *shape, const step_rows *rows, float *heads, uint8_t *cache, int64_t num_blocks, float *outputs
) {
    layer l = {.shape = shape, .rows = rows, .heads = heads, .outputs = outputs, .cache = cache, .num_blocks = num_blocks};
    if (rows->num_rows < 4)
        for (int64_t row = 0; row < rows->num_rows; row++) store_task(&l, row);
    else
        pool_run(store_task, &l, rows->num_rows);

    int64_t group = shape->n_heads / shape->n_kv_heads, num_tiles = 0;
    int32_t tokens_of_tile = (int32_t)(group < MOST_TILE_ROWS ? MOST_TILE_ROWS / group : 1);
    for (int64_t i = 0; i < rows->num_spans; i++)
        num_tiles += shape->n_kv_heads * ((rows->spans[i].num_new + tokens_of_tile - 1) / tokens_of_tile);
    query_tile *tiles = malloc((size_t)num_tiles * sizeof *tiles), *tile = tiles;
    if (tiles == NULL) return -1;
    for (int64_t i = 0; i < rows->num_spans; i++) {
        // From the end: the last tokens of a chunk see most, and long tasks are best begun first.
        for (int32_t end = rows->spans[i].num_new; end > 0; end -= tokens_of_tile) {
            int32_t first = end > tokens_of_tile ? end - tokens_of_tile : 0;
            for (int32_t kv_head = 0; kv_head < shape->n_kv_heads; kv_head++)
                *tile++ = (query_tile){&l, &rows->spans[i], kv_head, first, end - first};
        }
    }
    pool_run(tile_task, tiles, num_tiles);
    free(tiles);
    return 0;
}

#endif
