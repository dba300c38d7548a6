// What a layer in training does between its products, and the gradients of that.

#pragma once

#include <cmath>

#include "threads.h"
#include "vectors.h"

namespace {

constexpr long TOGETHER = 64;  // rows whose gradients of a norm's weight are summed by one thread

// Root mean square norm. squares: (rows), the mean of each row's squares.
template <class T>
void norm(const T* x, const T* weight, double eps, long rows, long size, T* y, float* squares, int threads) {
    share(rows, threads, [=](long r) {
        const T* from = x + r * size;
        Vector sums = {};
        for (long i = 0; i < size; i += LANES) sums += load(from + i) * load(from + i);
        squares[r] = sum(sums) / size;
        const float over = (float)(1 / std::sqrt(squares[r] + eps));
        for (long i = 0; i < size; i += LANES) store(y + r * size + i, load(from + i) * over * load(weight + i));
    });
}

// past: what goes to the input past the norm, or null. dweight: (size), or null.
template <class T>
void norm_back(const T* grad, const T* x, const T* weight, const float* squares, double eps, const T* past, long rows, long size, T* dx,
               float* dweight, int threads) {
    const long blocks = (rows + TOGETHER - 1) / TOGETHER;
    float* parts = dweight ? scratch(0, blocks * size) : nullptr;
    if (parts) std::fill(parts, parts + blocks * size, 0.0f);
    share(blocks, threads, [=](long block) {
        for (long r = block * TOGETHER; r < std::min(rows, (block + 1) * TOGETHER); r++) {
            const T *g = grad + r * size, *from = x + r * size;
            const float over = (float)(1 / std::sqrt(squares[r] + eps));
            Vector sums = {};
            for (long i = 0; i < size; i += LANES) sums += load(g + i) * load(weight + i) * load(from + i);
            const float along = sum(sums) / size * over * over * over;
            for (long i = 0; i < size; i += LANES) {
                const Vector v = load(from + i), plain = load(g + i) * over;
                if (parts) store(parts + block * size + i, load(parts + block * size + i) + plain * v);
                Vector d = plain * load(weight + i) - v * along;
                if (past) d += load(past + r * size + i);
                store(dx + r * size + i, d);
            }
        }
    });
    if (!parts) return;
    std::fill(dweight, dweight + size, 0.0f);
    for (long b = 0; b < blocks; b++)
        for (long i = 0; i < size; i++) dweight[i] += parts[b * size + i];
}

// Rotary positions in place, the two halves of a head turning together. x: (tokens, heads, size), tokens `pitch` apart;
// cos, sin: (tokens, size), what the first half is multiplied by before the second, sines of opposite sign; sign: -1 turns back.
template <class T>
void turn(T* x, long pitch, const T* cos, const T* sin, long tokens, long heads, long size, double sign, int threads) {
    const long half = size / 2;
    share(tokens, threads, [=](long t) {
        const T *c = cos + t * size, *s = sin + t * size;
        for (long h = 0; h < heads; h++) {
            T *first = x + t * pitch + h * size, *second = first + half;
            for (long i = 0; i < half; i += LANES) {
                const Vector a = load(first + i), b = load(second + i);
                store(first + i, a * load(c + i) + b * load(s + i) * (float)sign);
                store(second + i, b * load(c + half + i) + a * load(s + half + i) * (float)sign);
            }
        }
    });
}

inline Vector sigmoid(Vector x) { return 1.0f / (exponential(-x) + 1.0f); }

// y = silu(gate) * up. both: (rows, 2 * inner), gate before up.
template <class T>
void gated(const T* both, long rows, long inner, T* y, int threads) {
    share(rows, threads, [=](long r) {
        const T *gate = both + r * 2 * inner, *up = gate + inner;
        for (long i = 0; i < inner; i += LANES) {
            const Vector g = load(gate + i);
            store(y + r * inner + i, g * sigmoid(g) * load(up + i));
        }
    });
}

template <class T>
void gated_back(const T* grad, const T* both, long rows, long inner, T* dboth, int threads) {
    share(rows, threads, [=](long r) {
        const T *gate = both + r * 2 * inner, *up = gate + inner;
        T *dgate = dboth + r * 2 * inner, *dup = dgate + inner;
        for (long i = 0; i < inner; i += LANES) {
            const Vector g = load(gate + i), d = load(grad + r * inner + i), open = sigmoid(g);
            store(dup + i, d * g * open);
            store(dgate + i, d * load(up + i) * open * (g * (1.0f - open) + 1.0f));
        }
    });
}

}  // namespace
