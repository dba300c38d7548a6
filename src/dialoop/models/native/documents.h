// Causal attention inside documents, and its gradients (Dao et al. 2022, arXiv:2205.14135: weights are not kept but made
// again of what the rows sum to).

#pragma once

#include <cmath>

#include "products.h"

namespace {

// Of a row of documents one behind the other; head h of queries looks at head h / (heads / key_heads) of keys.
struct Documents {
    const int64_t* starts;  // (count + 1), of each its first token, and the end
    int64_t count, heads, key_heads, size;
    double scale;
};

// (tokens, heads, size), its tokens `pitch` numbers apart.
template <class T>
struct Heads {
    T* at;
    int64_t pitch;
};

constexpr long QUERIES = 72;     // of one head that are taken together
constexpr long KEYS = 2 * WIDTH;  // of these at a time

struct Part {
    long document, first;
};

// Each document in parts of at most `size` tokens.
std::vector<Part> parts_of(const Documents& in, long size) {
    std::vector<Part> found;
    for (long d = 0; d < in.count; d++)
        for (long first = in.starts[d]; first < in.starts[d + 1]; first += size) found.push_back({d, first});
    return found;
}

long rounded(long count) { return (count + WIDTH - 1) / WIDTH * WIDTH; }

// Where a document's keys stand among those of one head, each document rounded up to whole panels.
std::vector<long> places_of(const Documents& in) {
    std::vector<long> found{0};
    for (long d = 0; d < in.count; d++) found.push_back(found.back() + rounded(in.starts[d + 1] - in.starts[d]));
    return found;
}

template <class T>
void widened(const T* x, long size, float by, float* y) {
    for (long i = 0; i < size; i += LANES) store(y + i, load(x + i) * by);
}

// The rows of one head as floats, one behind the other.
template <class T>
void gathered(const Heads<T>& x, long head, long first, long count, long size, float by, float* y) {
    for (long t = 0; t < count; t++) widened(x.at + (first + t) * x.pitch + head * size, size, by, y + t * size);
}

// The same turned, in panels of WIDTH rows: (panels, size, WIDTH), the last one filled up with zeros.
template <class T>
void panelled(const Heads<T>& x, long head, long first, long count, long size, float* y) {
    alignas(64) float row[LANES];
    std::fill(y + count / WIDTH * WIDTH * size, y + rounded(count) * size, 0.0f);
    for (long t = 0; t < count; t++) {
        float* panel = y + t / WIDTH * WIDTH * size + t % WIDTH;
        const T* from = x.at + (first + t) * x.pitch + head * size;
        for (long i = 0; i < size; i += LANES) {
            store(row, load(from + i));
            UNROLLED for (long k = 0; k < LANES; k++) panel[(i + k) * WIDTH] = row[k];
        }
    }
}

// Which of the inputs count for some rows.
struct Range {
    long from, to;
};

// y += x w, w of `size` numbers a row. x: (rows, depth), `pitch` apart, or with TURNED (depth, rows); counting: of the rows
// from one up to another, the inputs that are not 0 for all of them.
template <bool TURNED, class Counting>
void add_rows(const float* x, long rows, long pitch, const float* w, long size, float* y, Counting counting) {
    in_tiles(rows, [=](auto count, long r) {
        const Range k = counting(r, r + count);
        if (k.from >= k.to) return;
        const float* of = x + (TURNED ? r + k.from * pitch : k.from + r * pitch);
        long c = 0;
        for (; c + WIDTH <= size; c += WIDTH)
            tile<count, COLUMNS, TURNED>(of, pitch, w + k.from * size + c, size, k.to - k.from, y + r * size + c, size);
        for (; c < size; c += LANES) tile<count, 1, TURNED>(of, pitch, w + k.from * size + c, size, k.to - k.from, y + r * size + c, size);
    });
}

// y = q times `count` keys in panels, where a row looks at any of a panel. q: (rows, size); y: (rows, .), `pitch` apart;
// before: keys that the first row sees besides its own.
void scored(const float* q, long rows, long size, const float* panels, long before, long count, float* y, long pitch) {
    for (long k = 0; k < count; k += WIDTH, panels += WIDTH * size) {
        const long first = std::max(0L, k - before);
        in_tiles(rows - first, [=](auto some, long r) {
            tile<some, COLUMNS, false, true>(q + (first + r) * size, size, panels, WIDTH, size, y + (first + r) * pitch + k, pitch);
        });
    }
}

// s becomes exp(s - less) up to `count`, and 0 behind it up to `end`. Returns the sum.
float exponentials(float* s, long count, long end, float less) {
    Vector sums = {};
    long t = 0;
    for (; t + LANES <= count; t += LANES) {
        const Vector e = exponential(load(s + t) - less);
        store(s + t, e);
        sums += e;
    }
    std::fill(s + count, s + end, 0.0f);
    if (t < count) {
        Vector e = exponential(load(s + t) - less);
        for (long i = count - t; i < LANES; i++) e[i] = 0;
        store(s + t, e);
        sums += e;
    }
    return sum(sums);
}

float largest(const float* s, long count) {
    Vector most = Vector{} - INFINITY;
    long t = 0;
    for (; t + LANES <= count; t += LANES) most = load(s + t) > most ? load(s + t) : most;
    float found = -INFINITY;
    for (long i = 0; i < LANES; i++) found = std::max(found, most[i]);
    for (; t < count; t++) found = std::max(found, s[t]);
    return found;
}

// out: what each query sees. logs: (heads, tokens), the logarithm of what its scores' exponentials sum to.
template <class T>
void attend(const Documents& in, Heads<T> q, Heads<T> k, Heads<T> v, Heads<T> out, float* logs, int threads) {
    const long size = in.size, group = in.heads / in.key_heads, tokens = in.starts[in.count];
    const std::vector<long> places = places_of(in);
    const long all = places.back() * size;
    float* keys = scratch(0, in.key_heads * all);
    float* values = scratch(1, in.key_heads * all);
    share(in.count * in.key_heads, threads, [&](long i) {
        const long d = i / in.key_heads, head = i % in.key_heads, first = in.starts[d], count = in.starts[d + 1] - first;
        panelled(k, head, first, count, size, keys + head * all + places[d] * size);
        gathered(v, head, first, count, size, 1, values + head * all + places[d] * size);
    });
    const std::vector<Part> parts = parts_of(in, QUERIES);
    share(parts.size() * in.heads, threads, [&](long i) {
        const Part& part = parts[i / in.heads];
        const long head = i % in.heads, before = part.first - in.starts[part.document];
        const long rows = std::min(QUERIES, in.starts[part.document + 1] - part.first), stop = before + rows, end = rounded(stop);
        const long from = head / group * all + places[part.document] * size;
        float* queries = scratch(2, QUERIES * size * 2);
        float *seen = queries + QUERIES * size, *scores = scratch(3, QUERIES * end);
        gathered(q, head, part.first, rows, size, (float)in.scale, queries);
        scored(queries, rows, size, keys + from, before, stop, scores, end);
        float totals[QUERIES];
        for (long r = 0; r < rows; r++) {
            const float most = largest(scores + r * end, before + r + 1);
            totals[r] = exponentials(scores + r * end, before + r + 1, end, most);
            logs[head * tokens + part.first + r] = most + std::log(totals[r]);
        }
        std::fill(seen, seen + rows * size, 0.0f);
        for (long t = 0; t < stop; t += KEYS)
            add_rows<false>(scores + t, rows, end, values + from + t * size, size, seen,
                            [=](long, long last) { return Range{0, std::min(KEYS, before + last - t)}; });
        for (long r = 0; r < rows; r++)
            for (long c = 0; c < size; c += LANES)
                store(out.at + (part.first + r) * out.pitch + head * size + c, load(seen + r * size + c) * (1 / totals[r]));
    });
}

// The gradients of q, k and v. grad: of `out`; out, logs: what `attend` gave.
template <class T>
void attend_back(const Documents& in, Heads<T> grad, Heads<T> q, Heads<T> k, Heads<T> v, Heads<T> out, const float* logs, Heads<T> dq,
                 Heads<T> dk, Heads<T> dv, int threads) {
    const long size = in.size, group = in.heads / in.key_heads, tokens = in.starts[in.count];
    const std::vector<long> places = places_of(in);
    const long all = places.back() * size;
    float* packed = scratch(0, 3 * in.key_heads * all);   // keys, keys in panels, values in panels
    float* gained = scratch(1, 2 * in.heads * all);  // what each head of queries gives to its keys and values
    share(in.count * in.key_heads, threads, [&](long i) {
        const long d = i / in.key_heads, head = i % in.key_heads, first = in.starts[d], count = in.starts[d + 1] - first;
        float* to = packed + 3 * head * all + places[d] * size;
        gathered(k, head, first, count, size, 1, to);
        panelled(k, head, first, count, size, to + all);
        panelled(v, head, first, count, size, to + 2 * all);
    });
    share(in.count * in.heads, threads, [&](long i) {
        const long d = i / in.heads, head = i % in.heads, first = in.starts[d], count = in.starts[d + 1] - first;
        const float* keys = packed + 3 * (head / group) * all + places[d] * size;
        float* dkeys = gained + 2 * head * all + places[d] * size;
        float* dvalues = dkeys + all;
        std::fill(dkeys, dkeys + count * size, 0.0f);
        std::fill(dvalues, dvalues + count * size, 0.0f);
        float* queries = scratch(2, 3 * QUERIES * size);
        float *grads = queries + QUERIES * size, *dqueries = grads + QUERIES * size;
        float* weights = scratch(3, 2 * QUERIES * KEYS);
        float* dscores = weights + QUERIES * KEYS;
        float along[QUERIES];
        for (long before = 0; before < count; before += QUERIES) {
            const long rows = std::min(QUERIES, count - before), stop = before + rows, at = first + before;
            const float* sums = logs + head * tokens + at;
            gathered(q, head, at, rows, size, (float)in.scale, queries);
            gathered(grad, head, at, rows, size, 1, grads);
            for (long r = 0; r < rows; r++) {
                Vector both = {};
                for (long c = 0; c < size; c += LANES)
                    both += load(grads + r * size + c) * load(out.at + (at + r) * out.pitch + head * size + c);
                along[r] = sum(both);
            }
            std::fill(dqueries, dqueries + rows * size, 0.0f);
            for (long t = 0; t < stop; t += KEYS) {
                const long some = std::min(KEYS, stop - t), end = rounded(some), ahead = before - t;
                scored(queries, rows, size, keys + all + t * size, ahead, some, weights, KEYS);
                scored(grads, rows, size, keys + 2 * all + t * size, ahead, some, dscores, KEYS);
                for (long r = 0; r < rows; r++) {
                    const long visible = std::min(end, std::max(0L, ahead + r + 1));
                    float *w = weights + r * KEYS, *s = dscores + r * KEYS;
                    exponentials(w, visible, end, sums[r]);
                    long c = 0;
                    for (; c < visible; c += LANES) store(s + c, load(w + c) * (load(s + c) - along[r]));
                    std::fill(s + c, s + end, 0.0f);
                }
                const auto queries_of = [=](long first, long) { return Range{std::max(0L, first - ahead), rows}; };
                const auto keys_of = [=](long, long last) { return Range{0, std::min(some, ahead + last)}; };
                add_rows<true>(weights, some, KEYS, grads, size, dvalues + t * size, queries_of);
                add_rows<true>(dscores, some, KEYS, queries, size, dkeys + t * size, queries_of);
                add_rows<false>(dscores, rows, KEYS, keys + t * size, size, dqueries, keys_of);
            }
            for (long r = 0; r < rows; r++)
                for (long c = 0; c < size; c += LANES)
                    store(dq.at + (at + r) * dq.pitch + head * size + c, load(dqueries + r * size + c) * (float)in.scale);
        }
    });
    const std::vector<Part> parts = parts_of(in, QUERIES);
    share(parts.size() * in.key_heads, threads, [&](long i) {
        const Part& part = parts[i / in.key_heads];
        const long head = i % in.key_heads, last = std::min(part.first + QUERIES, in.starts[part.document + 1]);
        const float* from = gained + 2 * head * group * all + places[part.document] * size;
        for (long t = part.first; t < last; t++)
            for (long c = 0; c < size; c += LANES) {
                const float* of = from + (t - in.starts[part.document]) * size + c;
                Vector key = {}, value = {};
                for (long g = 0; g < group; g++, of += 2 * all) {
                    key += load(of);
                    value += load(of + all);
                }
                store(dk.at + t * dk.pitch + head * size + c, key);
                store(dv.at + t * dv.pitch + head * size + c, value);
            }
    });
}

}  // namespace
