// Products of float32 rows and packed weights.
//
// Each number is summed in one order whatever the rows beside it: a row comes out bit for bit as it would alone.

#pragma once

#include <cmath>
#include <type_traits>

#include "threads.h"
#include "vectors.h"

namespace {

constexpr long WIDTH = LANES * COLUMNS;  // numbers out that a panel of weights gives
constexpr long ROWS = 6;                 // of a tile, whose sums stay in registers
constexpr long FEW = 4 * ROWS;           // rows up to which weights are widened at each use
constexpr long DEPTH = 128;              // inputs whose widened weights fit the first cache
constexpr long BLOCK = 192;              // rows that are taken together, in the second cache
constexpr long AHEAD = 16;               // inputs: how far ahead weights are fetched

// The rows of one matrix, out by in, in panels of WIDTH rows out, the last one filled up with zeros; in a panel
// the numbers of one input lie together. Of int8 four inputs lie together for each row out.
struct Weights {
    const void* panels;
    const float* bias;      // (panels * WIDTH), zeros where there is none
    const float* scales;    // of int8: (panels * WIDTH), else null
    const int32_t* excess;  // of int8: 128 times each row's sum
    int64_t in, out;
};

template <long R>
using Count = std::integral_constant<long, R>;

// Gives all rows to `each`, as few tiles of as equal sizes as can be: each(Count<size>, first row).
template <class Each>
void in_tiles(long rows, Each each) {
    const long tiles = (rows + ROWS - 1) / ROWS;
    for (long t = 0, first = 0; t < tiles; t++) {
        const long size = (rows - first + tiles - t - 1) / (tiles - t);
        switch (size) {
            case 1: each(Count<1>(), first); break;
            case 2: each(Count<2>(), first); break;
            case 3: each(Count<3>(), first); break;
            case 4: each(Count<4>(), first); break;
            case 5: each(Count<5>(), first); break;
            default: each(Count<ROWS>(), first);
        }
        first += size;
    }
}

// ---- fp16 weights

// With TURNED x is (depth, rows), `pitch` being between inputs; with FRESH y is not read.
template <long R, long C, bool TURNED = false, bool FRESH = false, class W>
inline void tile(const float* x, long pitch, const W* w, long stride, long depth, float* y, long out) {
    Vector sums[R][C] = {};
    if (!FRESH)
        UNROLLED for (long r = 0; r < R; r++) UNROLLED for (long c = 0; c < C; c++) sums[r][c] = load(y + r * out + c * LANES);
    for (long k = 0; k < depth; k++, w += stride) {
        Vector b[C];
        UNROLLED for (long c = 0; c < C; c++) b[c] = load(w + c * LANES);
        if (sizeof(W) < sizeof(float))  // wider ones lie in the first cache
            UNROLLED for (long c = 0; c < C; c += 2) __builtin_prefetch(w + AHEAD * stride + c * LANES);
        UNROLLED for (long r = 0; r < R; r++) {
            const float a = TURNED ? x[k * pitch + r] : x[r * pitch + k];
            UNROLLED for (long c = 0; c < C; c++) sums[r][c] += b[c] * a;
        }
    }
    UNROLLED for (long r = 0; r < R; r++) UNROLLED for (long c = 0; c < C; c++) store(y + r * out + c * LANES, sums[r][c]);
}

// y += x w. x: (rows, depth), pitch apart; w: (depth, C * LANES), stride apart; y: (rows, C * LANES), out apart.
template <long C, class W>
void add_product(const float* x, long rows, long pitch, const W* w, long stride, long depth, float* y, long out) {
    in_tiles(rows, [=](auto size, long r) { tile<size, C>(x + r * pitch, pitch, w, stride, depth, y + r * out, out); });
}

void panel(const Half* w, const float* bias, const float* x, long rows, long in, float* y, long out) {
    for (long r = 0; r < rows; r++) std::memcpy(y + r * out, bias, WIDTH * sizeof(float));
    if (rows <= ROWS) return add_product<COLUMNS>(x, rows, in, w, WIDTH, in, y, out);
    alignas(64) float wide[DEPTH * WIDTH];
    for (long k = 0; k < in; k += DEPTH, x += DEPTH, w += DEPTH * WIDTH) {
        const long depth = std::min(DEPTH, in - k);
        if (rows <= FEW) {
            add_product<COLUMNS>(x, rows, in, w, WIDTH, depth, y, out);
            continue;
        }
        for (long i = 0; i < depth * WIDTH; i += LANES) store(wide + i, load(w + i));
        add_product<COLUMNS>(x, rows, in, wide, WIDTH, depth, y, out);
    }
}

// ---- int8 weights, inputs in as many levels

#if HAS_BYTES
inline Whole dot(Whole sums, Whole inputs, Whole weights) {
#if defined(__AVX512F__)
    return (Whole)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)inputs, (__m512i)weights);
#else
    return (Whole)_mm256_dpbusd_avx_epi32((__m256i)sums, (__m256i)inputs, (__m256i)weights);
#endif
}

template <long R>
inline void tile(const int32_t* x, long pitch, const float* steps, const int8_t* w, const float* bias, const float* scales,
                 const int32_t* excess, long depth, float* y, long out) {
    Whole sums[R][COLUMNS] = {};
    for (long k = 0; k < depth; k++, w += 4 * WIDTH) {
        Whole b[COLUMNS];
        UNROLLED for (long c = 0; c < COLUMNS; c++) std::memcpy(&b[c], w + c * 4 * LANES, sizeof b[c]);
        UNROLLED for (long c = 0; c < 4 * WIDTH; c += 64) __builtin_prefetch(w + AHEAD * 2 * WIDTH + c);
        UNROLLED for (long r = 0; r < R; r++) {
            const Whole a = Whole{} + x[r * pitch + k];
            UNROLLED for (long c = 0; c < COLUMNS; c++) sums[r][c] = dot(sums[r][c], a, b[c]);
        }
    }
    UNROLLED for (long c = 0; c < COLUMNS; c++) {
        Whole over;
        std::memcpy(&over, excess + c * LANES, sizeof over);
        UNROLLED for (long r = 0; r < R; r++) {
            const Vector exact = __builtin_convertvector(sums[r][c] - over, Vector);
            store(y + r * out + c * LANES, exact * (load(scales + c * LANES) * steps[r]) + load(bias + c * LANES));
        }
    }
}

void panel(const int8_t* w, const float* bias, const float* scales, const int32_t* excess, const int32_t* x, const float* steps,
           long rows, long depth, float* y, long out) {
    in_tiles(rows, [=](auto size, long r) {
        tile<size>(x + r * depth, depth, steps + r, w, bias, scales, excess, depth, y + r * out, out);
    });
}

// 127 levels on each side of 0, of the row's largest number; 128 is 0, and stands after the end. Returns how much
// a level is: no number where the row holds one that is none.
float levels(const float* x, long in, long depth, uint8_t* to) {
    Vector largest = {}, wrong = {};
    long k = 0;
    for (; k + LANES <= in; k += LANES) {
        const Vector v = load(x + k), size = v < 0 ? -v : v;
        largest = size > largest ? size : largest;
        wrong += v * 0;
    }
    float most = 1e-30f, odd = sum(wrong);
    for (long i = 0; i < LANES; i++) most = std::max(most, largest[i]);
    for (; k < in; k++) {
        most = std::max(most, std::fabs(x[k]));
        odd += x[k] * 0;
    }
    std::memset(to, 128, 4 * depth);
    if (odd != 0) return NAN;
    const float each = 127 / most;
    for (k = 0; k + LANES <= in; k += LANES) {
        const Bytes level = __builtin_convertvector(__builtin_convertvector(load(x + k) * each + 128.5f, Whole), Bytes);
        std::memcpy(to + k, &level, sizeof level);
    }
    for (; k < in; k++) to[k] = (uint8_t)(int)(x[k] * each + 128.5f);
    return most / 127;
}
#endif

// y = x w' + bias. x: (rows, in); y: (rows, out).
void multiply(const Weights& w, const float* x, long rows, float* y, int threads) {
    const long panels = (w.out + WIDTH - 1) / WIDTH, rest = w.out % WIDTH;
#if HAS_BYTES
    thread_local std::vector<int32_t> held;
    thread_local std::vector<float> steps;
    const long depth = (w.in + 3) / 4;
    if (w.scales) {
        held.resize(rows * depth);
        steps.resize(rows);
        uint8_t* to = (uint8_t*)held.data();
        float* each = steps.data();
        share(rows, rows < 4 ? 1 : threads, [=](long r) { each[r] = levels(x + r * w.in, w.in, depth, to + r * 4 * depth); });
    }
    const int32_t* inputs = held.data();
    const float* each = steps.data();
#endif
    const long blocks = (rows + BLOCK - 1) / BLOCK;
    share(panels * blocks, threads, [=](long i) {
        const long p = i % panels, first = i / panels * BLOCK, n = std::min(BLOCK, rows - first);
        const bool whole = !rest || p < panels - 1;
        std::vector<float> aside(whole ? 0 : n * WIDTH);
        float* there = y + first * w.out + p * WIDTH;
        float* to = whole ? there : aside.data();
        const long out = whole ? w.out : WIDTH;
#if HAS_BYTES
        if (w.scales)
            panel((const int8_t*)w.panels + p * 4 * depth * WIDTH, w.bias + p * WIDTH, w.scales + p * WIDTH, w.excess + p * WIDTH,
                  inputs + first * depth, each + first, n, depth, to, out);
        else
#endif
            panel((const Half*)w.panels + p * w.in * WIDTH, w.bias + p * WIDTH, x + first * w.in, n, w.in, to, out);
        if (!whole)
            for (long r = 0; r < n; r++) std::memcpy(there + r * w.out, to + r * WIDTH, rest * sizeof(float));
    });
}

}  // namespace
