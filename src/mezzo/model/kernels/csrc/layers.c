// All layers of a decoder in one call. Alone, the calls are there too; but between two of them the interpreter needs a good
// part of the time that a small product takes, and has other things to do on the cores that the threads are on.

#include <stddef.h>

#include "kernels.h"

#if defined(__x86_64__)

// A layer as mezzo.model.decoder has it. w13 has gates and ups interleaved.
typedef struct {
    const float *attention_norm, *ffn_norm;
    const matrix *wqkv, *wo, *w13, *w2;
} decoder_layer;

typedef struct {
    const decoder_layer *layers;
    int64_t num_layers;
    float norm_eps;
} decoder_layers;

static int64_t aligned(int64_t num_bytes) { return (num_bytes + 63) / 64 * 64; }

static int64_t rows_bytes(int64_t num_rows, int64_t width) { return aligned(num_rows * width * (int64_t)sizeof(float)); }

static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

static int64_t scratch_of_product(int64_t num_rows, const matrix *weights) {
    return aligned(linear_scratch_bytes(num_rows, weights->num_inputs, weights->up == NULL ? 0 : weights->up->num_inputs));
}

// What stands in memory at a time: the heads and what they attend to, or the gated unit; and rounded inputs.
int64_t layers_scratch_bytes(const decoder_layers *all, int64_t num_rows) {
    int64_t products = 0, between = 0;
    for (int64_t i = 0; i < all->num_layers; i++) {
        const decoder_layer *l = &all->layers[i];
        products = most(products, most(scratch_of_product(num_rows, l->wqkv), scratch_of_product(num_rows, l->wo)));
        products = most(products, most(scratch_of_product(num_rows, l->w13), scratch_of_product(num_rows, l->w2)));
        int64_t attention = rows_bytes(num_rows, l->wqkv->num_outputs) + rows_bytes(num_rows, l->wo->num_inputs);
        between = most(between, most(attention, rows_bytes(num_rows, l->w2->num_inputs)));
    }
    return products + between;
}

// Turn hidden (rows, dim) into what the last layer leaves. The cache is that of all layers, one after the other. Returns 0,
// or -1 if there is no memory.
int run_layers(
    const decoder_layers *all, const heads_shape *shape, const step_rows *rows, float *hidden, uint8_t *cache, int64_t num_blocks,
    void *scratch
) {
    int64_t n = rows->num_rows, layer_bytes = shape->n_kv_heads * num_blocks * cache_record_bytes(shape);
    for (int64_t i = 0; i < all->num_layers; i++, cache += layer_bytes) {
        const decoder_layer *l = &all->layers[i];
        float *heads = scratch, *gated = scratch;
        float *attended = (float *)((uint8_t *)scratch + rows_bytes(n, l->wqkv->num_outputs));
        void *products = (uint8_t *)attended + rows_bytes(n, l->wo->num_inputs);
        linear(l->wqkv, hidden, n, l->attention_norm, all->norm_eps, STORE, heads, products);
        if (attend(shape, rows, heads, cache, num_blocks, attended)) return -1;
        linear(l->wo, attended, n, NULL, 0, ADD, hidden, products);
        products = (uint8_t *)gated + rows_bytes(n, l->w2->num_inputs);
        linear(l->w13, hidden, n, l->ffn_norm, all->norm_eps, GATE, gated, products);
        linear(l->w2, gated, n, NULL, 0, ADD, hidden, products);
    }
    return 0;
}

#endif
