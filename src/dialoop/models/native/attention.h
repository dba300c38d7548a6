// Attention of new tokens to what their lanes hold.

#pragma once

#include "products.h"

namespace {

struct Lanes {
    void* lanes;                    // (count, 2 * key_heads, capacity, size), fp16 or float32
    const int64_t *places, *stops;  // of each row its lane, and how many tokens of that it sees, itself the last
    int64_t heads, key_heads, size, capacity, half;
    int64_t window;  // tokens that are seen, 0 = all
    double scale, cap;  // cap: Gemma 2's of the scores, 0 = none
};

constexpr long PIECE = 512;  // tokens that are attended to at once

// scores: (R, tokens), `pitch` apart. q: (R, size); keys: (tokens, size).
template <long R, class T>
void score(const float* q, const T* keys, long tokens, long size, float* scores, long pitch) {
    for (long t = 0; t < tokens; t++, keys += size) {
        Vector sums[R] = {};
        for (long i = 0; i < size; i += LANES) {
            const Vector k = load(keys + i);
            UNROLLED for (long r = 0; r < R; r++) sums[r] += k * load(q + r * size + i);
        }
        UNROLLED for (long r = 0; r < R; r++) scores[r * pitch + t] = sum(sums[r]);
    }
}

// Of one row and one head of keys, tokens [from, to): for each of `repeats` queries the sum of its weighted values,
// (repeats, size), the largest score and the sum of the weights.
template <class T>
void attend_piece(const Lanes& in, const float* q, const T* keys, const T* values, long repeats, long from, long to,
                  float* out, float* largest, float* total) {
    const long tokens = to - from, size = in.size;
    thread_local std::vector<float> held;
    held.resize(repeats * PIECE);
    float* scores = held.data();
    keys += from * size;
    values += from * size;
    in_tiles(repeats, [=](auto count, long r) { score<count>(q + r * size, keys, tokens, size, scores + r * PIECE, PIECE); });
    for (long r = 0; r < repeats; r++) {
        float* s = scores + r * PIECE;
        if (in.cap > 0)
            for (long t = 0; t < tokens; t++) s[t] = (float)(std::tanh(s[t] * in.scale / in.cap) * (in.cap / in.scale));
        for (long t = tokens; t % LANES; t++) s[t] = -INFINITY;
        Vector best = Vector{} - INFINITY, sums = {};
        for (long t = 0; t < tokens; t += LANES) best = load(s + t) > best ? load(s + t) : best;
        float most = best[0];
        for (long i = 1; i < LANES; i++) most = std::max(most, best[i]);
        for (long t = 0; t < tokens; t += LANES) {
            Vector e = exponential((load(s + t) - most) * (float)in.scale);
            if (t + LANES > tokens)
                for (long i = tokens - t; i < LANES; i++) e[i] = 0;
            store(s + t, e);
            sums += e;
        }
        largest[r] = most * (float)in.scale;
        total[r] = sum(sums);
    }
    std::fill(out, out + repeats * size, 0.0f);
    long c = 0;
    for (; c + WIDTH <= size; c += WIDTH) add_product<COLUMNS>(scores, repeats, PIECE, values + c, size, tokens, out + c, size);
    for (; c < size; c += LANES) add_product<1>(scores, repeats, PIECE, values + c, size, tokens, out + c, size);
}

// q: (rows, heads, size) and pairs: (rows, 2 * key_heads, size), their rows so far apart; out: (rows, heads, size). The
// new keys and values are written to the lanes first.
template <class T>
void attend_in(T* lanes, const Lanes& in, const float* q, long q_pitch, const float* pairs, long pairs_pitch, long rows, float* out, int threads) {
    const long repeats = in.heads / in.key_heads, both = 2 * in.key_heads, size = in.size, kept = repeats * (size + 2);
    long most = 1;
    for (long r = 0; r < rows; r++) {
        most = std::max(most, (long)(in.stops[r] + PIECE - 1) / PIECE);
        T* to = lanes + (in.places[r] * both * in.capacity + in.stops[r] - 1) * size;
        for (long h = 0; h < both; h++)
            for (long i = 0; i < size; i += LANES) store(to + h * in.capacity * size + i, load(pairs + r * pairs_pitch + h * size + i));
    }
    float* parts = scratch(0, rows * in.key_heads * most * kept);
    share(rows * in.key_heads * most, threads, [=](long i) {
        const long piece = i % most, head = i / most % in.key_heads, r = i / most / in.key_heads;
        const long stop = in.stops[r], seen = in.window ? std::max<long>(0, stop - in.window) : 0;
        const long from = std::max(seen, piece * PIECE), to = std::min(stop, (piece + 1) * PIECE);
        if (from >= to) return;
        const T* keys = lanes + (in.places[r] * both + head) * in.capacity * size;
        float* part = parts + i * kept;
        attend_piece(in, q + r * q_pitch + head * repeats * size, keys, keys + in.key_heads * in.capacity * size, repeats, from, to, part,
                     part + repeats * size, part + repeats * size + repeats);
    });
    share(rows * in.heads, rows < 4 ? 1 : threads, [=](long i) {
        const long head = i % in.heads, r = i / in.heads, within = head % repeats;
        const long stop = in.stops[r], seen = in.window ? std::max<long>(0, stop - in.window) : 0;
        const float* first = parts + (r * in.key_heads + head / repeats) * most * kept;
        float* to = out + i * size;
        float largest = -INFINITY, total = 0;
        for (long piece = seen / PIECE; piece * PIECE < stop; piece++)
            largest = std::max(largest, first[piece * kept + repeats * size + within]);
        std::fill(to, to + size, 0.0f);
        for (long piece = seen / PIECE; piece * PIECE < stop; piece++) {
            const float* part = first + piece * kept;
            const float worth = std::exp(part[repeats * size + within] - largest);
            total += worth * part[repeats * size + repeats + within];
            for (long d = 0; d < size; d++) to[d] += worth * part[within * size + d];
        }
        for (long d = 0; d < size; d++) to[d] /= total;
    });
}

void attend(const Lanes& in, const float* q, long q_pitch, const float* pairs, long pairs_pitch, long rows, float* out, int threads) {
    if (in.half)
        attend_in((Half*)in.lanes, in, q, q_pitch, pairs, pairs_pitch, rows, out, threads);
    else
        attend_in((float*)in.lanes, in, q, q_pitch, pairs, pairs_pitch, rows, out, threads);
}

}  // namespace
