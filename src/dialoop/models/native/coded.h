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

// WIDTH rows, or `count` where there are fewer, as `tile` reads them, and of each 128 times its sum.
void panel_of_rows(const Coded& m, long first, long count, int8_t* panel, int32_t* excess) {
    const long whole = m.columns / 4, depth = (m.columns + 3) / 4;
    std::memset(panel, 0, depth * 4 * WIDTH);
    for (long r = 0; r < count; r++) {
        const int8_t* row = m.codes + (first + r) * m.columns;
        int8_t* to = panel + 4 * r;
        for (long k = 0; k < whole; k++) std::memcpy(to + k * 4 * WIDTH, row + 4 * k, 4);
        std::memcpy(to + whole * 4 * WIDTH, row + 4 * whole, m.columns % 4);
        int32_t total = 0;
        for (long i = 0; i < m.columns; i++) total += row[i];
        excess[r] = 128 * total;
    }
}

// WIDTH columns, or `count`, of the same.
void panel_of_columns(const Coded& m, long first, long count, int8_t* panel, int32_t* excess) {
    const long depth = (m.rows + 3) / 4;
    std::memset(excess, 0, WIDTH * sizeof(int32_t));
    std::memset(panel, 0, depth * 4 * WIDTH);
    for (long r = 0; r < m.rows; r++) {
        const int8_t* row = m.codes + r * m.columns + first;
        int8_t* to = panel + r / 4 * 4 * WIDTH;
        const long shift = r % 4 * 8;
        long i = 0;
        for (; i + LANES <= count; i += LANES) {
            Bytes bytes;
            Signed codes;
            Bits held;
            Whole sums;
            std::memcpy(&bytes, row + i, sizeof bytes);
            std::memcpy(&codes, row + i, sizeof codes);
            std::memcpy(&held, to + 4 * i, sizeof held);
            std::memcpy(&sums, excess + i, sizeof sums);
            held |= __builtin_convertvector(bytes, Bits) << shift;
            sums += __builtin_convertvector(codes, Whole) * 128;
            std::memcpy(to + 4 * i, &held, sizeof held);
            std::memcpy(excess + i, &sums, sizeof sums);
        }
        for (; i < count; i++) {
            to[4 * i + r % 4] = row[i];
            excess[i] += 128 * row[i];
        }
    }
}

// y = x m', or with `back` y = x m. x: (count, .) and y: (count, .), their rows so far apart.
void multiply(const Coded& m, const float* x, long x_pitch, long count, bool back, float* y, long y_pitch, int threads) {
    const long in = back ? m.rows : m.columns, out = back ? m.columns : m.rows, depth = (in + 3) / 4;
    int32_t* inputs = (int32_t*)scratch(0, count * depth);
    float* steps = scratch(1, count);
    each_row(count, threads, [=](long r) {
        const float* row = x + r * x_pitch;
        if (back) {
            float* scaled = scratch(2, in);
            for (long i = 0; i < in; i++) scaled[i] = row[i] * m.scales[i];
            row = scaled;
        }
        steps[r] = levels(row, in, depth, (uint8_t*)(inputs + r * depth));
    });
    share((out + WIDTH - 1) / WIDTH, threads, [=](long p) {
        const long first = p * WIDTH, some = std::min(WIDTH, out - first);
        int8_t* panel_ = (int8_t*)scratch(2, depth * WIDTH);
        float bias[WIDTH] = {}, scales[WIDTH];
        int32_t excess[WIDTH] = {};
        (back ? panel_of_columns : panel_of_rows)(m, first, some, panel_, excess);
        for (long c = 0; c < WIDTH; c++) scales[c] = back ? 1 : c < some ? m.scales[first + c] : 0;
        for (long r = 0; r < count; r += BLOCK) {
            const long rows = std::min(BLOCK, count - r);
            const bool whole = some == WIDTH;
            float* there = y + r * y_pitch + first;
            float* to = whole ? there : scratch(3, BLOCK * WIDTH);
            panel(panel_, bias, scales, excess, inputs + r * depth, steps + r, rows, depth, to, whole ? y_pitch : WIDTH);
            if (!whole)
                for (long i = 0; i < rows; i++) std::memcpy(there + i * y_pitch, to + i * WIDTH, some * sizeof(float));
        }
    });
}

}  // namespace

#endif
