// What the files of this folder offer each other and mezzo.model.kernels.library.
#pragma once

#include <stdint.h>

// linear.c

typedef struct matrix {
    const uint8_t *data;
    int64_t num_outputs;  // a multiple of 16
    int64_t num_inputs;   // a multiple of 32
    int64_t num_bits;     // 4 or 8
    const struct matrix *down, *up;  // (rank, num_inputs) and (num_outputs, rank), rank a multiple of 32; or both NULL
} matrix;

// What becomes of a product: it is the output, is added to the output, or its second half, whose rows are interleaved with
// those of the first by 16, is multiplied with silu of the first.
enum { STORE = 0, ADD = 1, GATE = 2 };

int64_t linear_scratch_bytes(int64_t num_rows, int64_t num_inputs, int64_t rank);

// outputs (rows, weights->num_outputs, or half of them) of inputs (rows, weights->num_inputs), normalised first if
// norm_weight is not NULL.
void linear(
    const matrix *weights, const float *inputs, int64_t num_rows, const float *norm_weight, float norm_eps, int mode,
    float *outputs, void *scratch
);

// attention.c

typedef struct {
    int64_t n_heads, n_kv_heads;
    int64_t head_dim;    // a multiple of 16
    int64_t block_size;  // a multiple of 16
    int64_t window;      // a query sees so many positions, its own included
} heads_shape;

// num_new tokens of one sequence after num_context in the cache: rows first_row and following, whose blocks are in the
// tables from first_block on.
typedef struct {
    int32_t first_row, num_new, num_context, first_block;
} span;

// The rows of a step, the same for all layers. cos and sin (rows, head_dim), the sine of the first half negative;
// query_scale (rows) or NULL; slots (rows), block * block_size + offset of each row's place in the cache.
typedef struct {
    int64_t num_rows;
    const float *cos, *sin, *query_scale;
    const int64_t *slots;
    const span *spans;
    int64_t num_spans;
    const int32_t *tables;
} step_rows;

int64_t cache_record_bytes(const heads_shape *shape);

// outputs (rows, n_heads, head_dim) of heads (rows, n_heads + 2 * n_kv_heads, head_dim), which are changed. Returns 0, or -1
// if there is no memory.
int attend(
    const heads_shape *shape, const step_rows *rows, float *heads, uint8_t *cache, int64_t num_blocks, float *outputs
);
