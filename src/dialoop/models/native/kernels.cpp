// What answering on a CPU computes, as kernels.py calls it.

#include "attention.h"
#include "layers.h"
#include "products.h"

extern "C" {

int64_t dialoop_width() { return WIDTH; }

int64_t dialoop_lanes() { return LANES; }

int64_t dialoop_has_bytes() { return HAS_BYTES; }

void dialoop_multiply(const Weights* w, const float* x, int64_t rows, float* y, int threads) { multiply(*w, x, rows, y, threads); }

void dialoop_open(const Layer* layer, const Shape* shape, const float* x, const float* turns, int64_t rows, float* y, int threads) {
    open(layer, *shape, x, turns, rows, y, threads);
}

void dialoop_close(const Layer* layer, const Shape* shape, float* x, const float* seen, int64_t rows, int threads) {
    close(layer, *shape, x, seen, rows, threads);
}

void dialoop_attend(const Lanes* lanes, const float* q, int64_t q_pitch, const float* pairs, int64_t pairs_pitch, int64_t rows, float* out,
                    int threads) {
    attend(*lanes, q, q_pitch, pairs, pairs_pitch, rows, out, threads);
}

// All layers for new tokens that have lanes, one Lanes for each layer. x: (rows, width), overwritten; turns: (rows, turning). Of each layer
// also the blocks, (slots, 2 * key_heads, size), where the new pairs go to these slots.
void dialoop_decode(const Layer* const* layers, const Shape* shape, const Lanes* lanes, float* const* blocks, int64_t count, const int64_t* slots,
                    float* x, const float* turns, int64_t rows, int threads) {
    const long size = shape->size, pairs = 2 * shape->key_heads * size, own = shape->heads * size, all = own + pairs;
    float* heads = scratch(2, rows * all);
    float* seen = scratch(3, rows * own);
    for (long i = 0; i < count; i++) {
        open(layers[i], *shape, x, turns, rows, heads, threads);
        for (long r = 0; r < rows; r++) std::memcpy(blocks[i] + slots[r] * pairs, heads + r * all + own, pairs * sizeof(float));
        attend(lanes[i], heads, all, heads + own, all, rows, seen, threads);
        close(layers[i], *shape, x, seen, rows, threads);
    }
}
}
