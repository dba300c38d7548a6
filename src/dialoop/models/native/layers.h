// A decoder's layer before and after its attention.

#pragma once

#include "products.h"

namespace {

struct Shape {
    int64_t width, heads, key_heads, size, turning, inner;
    int64_t tanh;  // whether the gate is GELU's approximation by tanh, else SiLU
};

// Root mean square norm, its weight times the root of its size; a null weight is no norm.
struct Norm {
    const float* weight;
    double floor;
};

struct Layer {
    Norm before, heads, after_attention, before_mlp, after_mlp;
    const Weights *qkv, *out, *gate_up, *down;
};

void norm(const Norm& by, const float* x, long size, float* y) {
    Vector sums = {};
    long k = 0;
    for (; k + LANES <= size; k += LANES) sums += load(x + k) * load(x + k);
    double squares = by.floor * by.floor + sum(sums);
    for (; k < size; k++) squares += (double)x[k] * x[k];
    const float over = (float)(1 / std::sqrt(squares));
    for (long i = 0; i < size; i++) y[i] = x[i] * by.weight[i] * over;
}

// x += y, normed first where there is a norm; y may change.
void add(const Norm& by, float* y, long size, float* x) {
    if (by.weight) norm(by, y, size, y);
    for (long i = 0; i < size; i++) x[i] += y[i];
}

// Pairs of numbers as complex ones, times as many of `turns`.
void turn(float* x, const float* turns, long turning) {
    for (long i = 0; i < turning; i += 2) {
        const float a = x[i], b = x[i + 1], cos = turns[i], sin = turns[i + 1];
        x[i] = a * cos - b * sin;
        x[i + 1] = a * sin + b * cos;
    }
}

// y = activation(x) * up, each `inner` numbers.
void gate(const float* x, const float* up, long inner, bool tanh, float* y) {
    const auto act = [tanh](Vector v) {
        const Vector slope = tanh ? v * (v * v * 0.0713548162726f + 1.59576912161f) : v;
        return v / (exponential(-slope) + 1.0f);
    };
    long i = 0;
    for (; i + LANES <= inner; i += LANES) store(y + i, act(load(x + i)) * load(up + i));
    for (; i < inner; i++) y[i] = act(Vector{} + x[i])[0] * up[i];
}

// A layer before its attention. x: (rows, width); turns: (rows, turning); y: (rows, heads + 2 * key_heads, size).
void open(const Layer* layer, const Shape& s, const float* x, const float* turns, long rows, float* y, int threads) {
    float* normed = scratch(0, rows * s.width);
    each_row(rows, threads, [=](long r) { norm(layer->before, x + r * s.width, s.width, normed + r * s.width); });
    multiply(*layer->qkv, normed, rows, y, threads);
    each_row(rows, threads, [=](long r) {
        float* head = y + r * layer->qkv->out;
        for (long h = 0; h < s.heads + s.key_heads; h++, head += s.size) {
            const Norm& by = layer->heads;
            if (by.weight) norm({by.weight + h * s.size, by.floor}, head, s.size, head);
            turn(head, turns + r * s.turning, s.turning);
        }
    });
}

// A layer after its attention: x, (rows, width), becomes its output. seen: (rows, heads * size).
void close(const Layer* layer, const Shape& s, float* x, const float* seen, long rows, int threads) {
    float* y = scratch(0, rows * std::max(s.width, s.inner));
    float* both = scratch(1, rows * std::max(s.width, 2 * s.inner));
    multiply(*layer->out, seen, rows, y, threads);
    each_row(rows, threads, [=](long r) {
        add(layer->after_attention, y + r * s.width, s.width, x + r * s.width);
        norm(layer->before_mlp, x + r * s.width, s.width, y + r * s.width);
    });
    multiply(*layer->gate_up, y, rows, both, threads);
    each_row(rows, threads, [=](long r) {
        const float* first = both + r * 2 * s.inner;
        gate(first, first + s.inner, s.inner, s.tanh, y + r * s.inner);
    });
    multiply(*layer->down, y, rows, both, threads);
    each_row(rows, threads, [=](long r) { add(layer->after_mlp, both + r * s.width, s.width, x + r * s.width); });
}

}  // namespace
