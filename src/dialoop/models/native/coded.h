// Products with a frozen matrix that is held in int8, of inputs in as many levels, forward and back (Wortsman et al. 2023,
// arXiv:2304.13013: SwitchBack).

#pragma once

#include "products.h"

#if HAS_BYTES

namespace {

typedef int8_t Signed __attribute__((vector_size(LANES)));

// (rows, columns) as they lie; scales: (rows), what one is worth.
struct Coded {
    const int8_t* codes;
    const float* scales;
    int64_t rows, columns;
};

constexpr long GROUP = 64;  // inputs that have a step of their own, since a few are far larger than the others
constexpr long QUADS = GROUP / 4;

// WIDTH rows, or `count` where there are fewer, as `tile` reads them, and for each group less 128 times what its weights sum to.
void panel_of_rows(const Coded& m, long first, long count, int8_t* panel, int32_t* less) {
    const long whole = m.columns / 4, depth = (m.columns + 3) / 4;
    std::memset(panel, 0, depth * 4 * WIDTH);
    for (long r = 0; r < count; r++) {
        const int8_t* row = m.codes + (first + r) * m.columns;
        int8_t* to = panel + 4 * r;
        for (long k = 0; k < whole; k++) std::memcpy(to + k * 4 * WIDTH, row + 4 * k, 4);
        std::memcpy(to + whole * 4 * WIDTH, row + 4 * whole, m.columns % 4);
        for (long i = 0; i < m.columns; i += GROUP) {
            int32_t total = 0;
            for (long k = i; k < std::min(m.columns, i + GROUP); k++) total += row[k];
            less[i / GROUP * WIDTH + r] = -128 * total;
        }
    }
}

// WIDTH columns, or `count`, of the same.
void panel_of_columns(const Coded& m, long first, long count, int8_t* panel, int32_t* less) {
    std::memset(panel, 0, (m.rows + 3) / 4 * 4 * WIDTH);
    for (long r = 0; r < m.rows; r++) {
        const int8_t* row = m.codes + r * m.columns + first;
        int8_t* to = panel + r / 4 * 4 * WIDTH;
        int32_t* totals = less + r / GROUP * WIDTH;
        long i = 0;
        for (; i + LANES <= count; i += LANES) {
            Bytes bytes;
            Signed codes;
            Bits held;
            Whole sums;
            std::memcpy(&bytes, row + i, sizeof bytes);
            std::memcpy(&codes, row + i, sizeof codes);
            std::memcpy(&held, to + 4 * i, sizeof held);
            std::memcpy(&sums, totals + i, sizeof sums);
            held |= __builtin_convertvector(bytes, Bits) << (r % 4 * 8);
            sums -= __builtin_convertvector(codes, Whole) * 128;
            std::memcpy(to + 4 * i, &held, sizeof held);
            std::memcpy(totals + i, &sums, sizeof sums);
        }
        for (; i < count; i++) {
            to[4 * i + r % 4] = row[i];
            totals[i] -= 128 * row[i];
        }
    }
}

// steps: (R, groups), of the inputs.
template <long R>
inline void tile(const int32_t* x, const float* steps, long groups, const int8_t* w, const float* scales, const int32_t* less, long depth,
                 float* y, long out) {
    float totals[R * WIDTH] = {};
    for (long g = 0; g < groups; g++, less += WIDTH) {
        Whole sums[R][COLUMNS];
        UNROLLED for (long r = 0; r < R; r++) UNROLLED for (long c = 0; c < COLUMNS; c++)
            std::memcpy(&sums[r][c], less + c * LANES, sizeof sums[r][c]);
        for (long k = g * QUADS; k < std::min(depth, (g + 1) * QUADS); k++, w += 4 * WIDTH) {
            Whole b[COLUMNS];
            UNROLLED for (long c = 0; c < COLUMNS; c++) std::memcpy(&b[c], w + c * 4 * LANES, sizeof b[c]);
            UNROLLED for (long r = 0; r < R; r++) {
                const Whole a = Whole{} + x[r * depth + k];
                UNROLLED for (long c = 0; c < COLUMNS; c++) sums[r][c] = dot(sums[r][c], a, b[c]);
            }
        }
        UNROLLED for (long r = 0; r < R; r++) UNROLLED for (long c = 0; c < COLUMNS; c++) {
            float* to = totals + r * WIDTH + c * LANES;
            store(to, load(to) + __builtin_convertvector(sums[r][c], Vector) * steps[r * groups + g]);
        }
    }
    UNROLLED for (long r = 0; r < R; r++) UNROLLED for (long c = 0; c < COLUMNS; c++)
        store(y + r * out + c * LANES, load(totals + r * WIDTH + c * LANES) * load(scales + c * LANES));
}

// y = x m', or with `back` y = x m. x: (count, .) and y: (count, .), their rows so far apart.
void multiply(const Coded& m, const float* x, long x_pitch, long count, bool back, float* y, long y_pitch, int threads) {
    const long in = back ? m.rows : m.columns, out = back ? m.columns : m.rows, depth = (in + 3) / 4, groups = (in + GROUP - 1) / GROUP;
    int32_t* inputs = (int32_t*)scratch(0, count * depth);
    float* steps = scratch(1, count * groups);
    each_row(count, threads, [=](long r) {
        const float* row = x + r * x_pitch;
        if (back) {
            float* scaled = scratch(2, in);
            for (long i = 0; i < in; i++) scaled[i] = row[i] * m.scales[i];
            row = scaled;
        }
        for (long g = 0; g < groups; g++) {
            const long some = std::min(GROUP, in - g * GROUP);
            steps[r * groups + g] = levels(row + g * GROUP, some, (some + 3) / 4, (uint8_t*)(inputs + r * depth + g * QUADS));
        }
    });
    share((out + WIDTH - 1) / WIDTH, threads, [=](long p) {
        const long first = p * WIDTH, some = std::min(WIDTH, out - first);
        int8_t* panel = (int8_t*)scratch(2, (depth + groups) * WIDTH);
        int32_t* less = (int32_t*)panel + depth * WIDTH;
        float scales[WIDTH];
        std::memset(less, 0, groups * WIDTH * sizeof(int32_t));
        (back ? panel_of_columns : panel_of_rows)(m, first, some, panel, less);
        for (long c = 0; c < WIDTH; c++) scales[c] = back ? 1 : c < some ? m.scales[first + c] : 0;
        in_tiles(count, [=](auto size, long r) {
            float aside[size * WIDTH];
            const bool whole = some == WIDTH;
            float* there = y + r * y_pitch + first;
            tile<size>(inputs + r * depth, steps + r * groups, groups, panel, scales, less, depth, whole ? there : aside, whole ? y_pitch : WIDTH);
            if (!whole)
                for (long i = 0; i < size; i++) std::memcpy(there + i * y_pitch, aside + i * WIDTH, some * sizeof(float));
        });
    });
}

}  // namespace

#endif
