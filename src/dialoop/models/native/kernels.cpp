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
}
